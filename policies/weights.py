"""The learner's weights as vLLM's weight-transfer API wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from palestra.policies import guards
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.shm_transfer import ShmTrainerInitInfo
from palestra.policies.vllm_plugin import register

BUFFER_BYTES = 1 << 30


class LearnerSource(WeightSource):
    """Hugging Face names and full tensors, in one order on every rank, gathered under ZeRO 3."""

    def __init__(self, learner: DeepSpeedLearner) -> None:
        self.learner = learner

    def metadata(self) -> list[ParamMeta]:
        """Names, wire types and full shapes without any transfer."""
        return [
            ParamMeta(name, tensor.dtype, tuple(getattr(tensor, "ds_shape", tensor.shape)))
            for name, tensor in self.learner.engine.module.model.named_parameters()
        ]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.learner.named_weights()


def trainer_engine(learner: DeepSpeedLearner, client: Any) -> Any:
    """A ready-to-send trainer engine: CUDA IPC on a GPU, shared memory elsewhere."""
    register()
    source = LearnerSource(learner)
    info: Any = ShmTrainerInitInfo(rank=0)
    if learner.device.type == "cuda":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        guards.export_allowed(os.environ)
        largest = max(meta.dtype.itemsize * _count(meta.shape) for meta in source.metadata())
        buffer = max(BUFFER_BYTES, largest)
        guards.fits_buffer(largest, buffer)
        # Not packed would keep a second full model on the GPU until the update is finished.
        info = IPCTrainerInitInfo(rank=0, packed=True, packed_buffer_size_bytes=buffer)
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
