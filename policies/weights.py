"""The learner's weights as vLLM's weight-transfer API wants them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from vllm.device_allocator import alloc_conf
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from palestra.policies import guards
from palestra.policies.hf_folder import checkpoint_shapes
from palestra.policies.int4 import fake_quantise
from palestra.policies.learner import DeepSpeedLearner, named_tensors
from palestra.policies.shm_transfer import ShmTrainerInitInfo
from palestra.policies.vllm_plugin import register

BUFFER_BYTES = 1 << 30
"""Of packed transfers, and of what ZeRO 3 gathers at once; more where one tensor is larger."""


class LearnerSource(WeightSource):
    """A checkpoint's names and full tensors, in one order on every rank, gathered under ZeRO 3.

    A model may train in one tensor what its checkpoint holds in several (the experts of a layer):
    the engine gets what a checkpoint holds, rounded where the learner computes with it rounded.
    """

    def __init__(self, learner: DeepSpeedLearner) -> None:
        self.learner = learner

    def metadata(self) -> list[ParamMeta]:
        """Names, wire types and full shapes without any transfer."""
        trained = {meta.name: meta for meta in self._trained()}
        found: list[ParamMeta] = []
        for names in buckets(trained.values(), BUFFER_BYTES):
            empty = {
                name: torch.empty(trained[name].shape, dtype=trained[name].dtype, device="meta")
                for name in names
            }
            found += [ParamMeta(n, t.dtype, tuple(t.shape)) for n, t in self._as_saved(empty)]
        return found

    def _trained(self) -> list[ParamMeta]:
        return [
            ParamMeta(name, tensor.dtype, tuple(getattr(tensor, "ds_shape", tensor.shape)))
            for name, tensor in named_tensors(self.learner.engine.module.model)
        ]

    def _as_saved(self, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        from transformers.core_model_loading import revert_weight_conversion

        rounded = self.learner.rounded & tensors.keys()
        tensors = tensors | {name: fake_quantise(tensors[name]) for name in rounded}
        saved = revert_weight_conversion(self.learner.engine.module.model, tensors)
        yield from ((name, tensor.contiguous()) for name, tensor in saved.items())

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        import deepspeed

        gather = self.learner.config.zero_stage == 3
        tensors = dict(named_tensors(self.learner.engine.module.model))
        for names in buckets(self._trained(), BUFFER_BYTES):
            partitioned = [tensors[name] for name in names if hasattr(tensors[name], "ds_id")]
            with deepspeed.zero.GatheredParameters(partitioned, enabled=gather):
                yield from self._as_saved({name: tensors[name].detach() for name in names})


def buckets(metadata: Iterable[ParamMeta], room: int) -> Iterator[list[str]]:
    """Names in order, in groups of at most ``room`` bytes or of one tensor."""
    group: list[str] = []
    held = 0
    for meta in metadata:
        if group and held + size_of(meta) > room:
            yield group
            group, held = [], 0
        group.append(meta.name)
        held += size_of(meta)
    if group:
        yield group


def size_of(meta: ParamMeta) -> int:
    """Bytes on the wire."""
    return int(meta.dtype.itemsize * torch.Size(meta.shape).numel())


def trainer_engine(learner: DeepSpeedLearner, client: Any) -> Any:
    """A ready-to-send trainer engine: CUDA IPC on a GPU, shared memory elsewhere.

    Raises EngineError when the learner's tensors are not those of its checkpoint.
    """
    register()
    source = LearnerSource(learner)
    model = learner.engine.module.model
    guards.same_tensors(
        {meta.name: meta.shape for meta in source.metadata()},
        checkpoint_shapes(Path(learner.folder)),
        optional=not_sent(model),
    )
    rank = learner.ranks.rank
    info: Any = ShmTrainerInitInfo(rank=rank)
    if learner.device.type == "cuda":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        buffer = max(BUFFER_BYTES, *map(size_of, source.metadata()))
        # Not packed would keep a second full model on the GPU until the update is finished.
        info = IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=buffer)
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)


def check_transfer(engine: Any) -> None:
    """Before every CUDA IPC transfer: what is to be sent fits, and may be exported."""
    live = alloc_conf.expandable_segments_enabled()
    if live is None:  # torch would not tell
        live = alloc_conf.expandable_segments_enabled_from_env()
    guards.export_allowed(live)
    guards.fits_buffer(max(map(size_of, engine.source.metadata())), engine.packed_buffer_size_bytes)


def not_sent(model: Any) -> list[str]:
    """Patterns of names that a checkpoint may hold but the model does not train."""
    patterns = list(model._keys_to_ignore_on_load_unexpected or [])
    return [*patterns, r"^lm_head\.weight$"] if model.config.tie_word_embeddings else patterns
