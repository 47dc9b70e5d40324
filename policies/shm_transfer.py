"""Weight transfer through shared memory: vLLM's weight-transfer API for machines without CUDA.

The trainer writes one safetensors file below ``/dev/shm``; each engine worker on the same host maps
it and loads it through vLLM's own layerwise reload. Workers on other hosts get a copy of the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from palestra.policies import guards

SHARED_MEMORY = "/dev/shm"


@dataclass
class ShmInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class ShmUpdateInfo(WeightTransferUpdateInfo):
    """Where the trainer put the weights of this round."""

    path: str


@dataclass
class ShmTrainerInitInfo(TrainerInitInfo):
    """Trainer side; ``folder`` holds one file at a time."""

    backend: ClassVar[str] = "shm"
    folder: str = SHARED_MEMORY


@contextlib.contextmanager
def shared_file(size: int, folder: str = SHARED_MEMORY) -> Iterator[Path]:
    """A name in shared memory for a file of about ``size`` bytes, which is gone afterwards."""
    guards.fits_folder(size, shutil.disk_usage(folder).free, folder)
    path = Path(folder) / f"palestra-{os.getpid()}-{uuid.uuid4().hex}.safetensors"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class ShmWeightTransferEngine(WeightTransferEngine[ShmInitInfo, ShmUpdateInfo]):
    """Worker side: load every tensor of the named file."""

    init_info_cls = ShmInitInfo
    update_info_cls = ShmUpdateInfo

    def init_transfer_engine(self, init_info: ShmInitInfo) -> None:
        """No rendezvous is needed on one host."""

    def start_weight_update(self) -> None:
        """Begin vLLM's layerwise reload."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ShmUpdateInfo) -> None:
        """Load the tensors in the order in which the trainer wrote them."""
        with safe_open(update_info.path, framework="pt") as file:
            order = file.metadata()["order"].split("\n")
            self.model.load_weights((name, file.get_tensor(name)) for name in order)

    def finish_weight_update(self) -> None:
        """Run each layer's post-processing on the new weights."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is kept between rounds."""


class ShmTrainerEngine(TrainerWeightTransferEngine[ShmTrainerInitInfo]):
    """Trainer side: every rank walks the source (a collective under ZeRO-3), rank 0 ships it."""

    init_info_cls = ShmTrainerInitInfo

    def __init__(
        self, *, client: VLLMWeightSyncClient, source: WeightSource, is_sender: bool, folder: str
    ) -> None:
        super().__init__(client=client, source=source, is_sender=is_sender)
        self.folder = folder

    @classmethod
    def trainer_init(
        cls,
        init_info: ShmTrainerInitInfo,
        *,
        client: VLLMWeightSyncClient,
        source: WeightSource | None = None,
    ) -> Self:
        """Build the engine and greet the workers."""
        if source is None:
            raise ValueError("shm weight transfer needs a WeightSource")
        engine = cls(
            client=client, source=source, is_sender=init_info.is_sender, folder=init_info.folder
        )
        if engine.is_sender:
            client.init_weight_transfer_engine({})
        return engine

    def send_weights(self) -> None:
        """One full round; the file is gone when this returns, whatever happens."""
        assert self.source is not None
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in self.source:
            if self.is_sender:
                tensors[name] = tensor.detach().cpu().contiguous()
        if not self.is_sender:
            return
        size = sum(tensor.nbytes for tensor in tensors.values())
        with shared_file(size, self.folder) as path:
            save_file(tensors, path, metadata={"order": "\n".join(tensors)})
            self._ship({"path": str(path)})

    def _ship(self, update: dict[str, Any]) -> None:
        self.client.start_weight_update()
        self.client.update_weights(update)
        self.client.finish_weight_update()
