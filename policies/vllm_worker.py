"""What we add to vLLM's workers: counters of the process that has the model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator

import torch

from palestra.policies import counters

RELOAD_LOGGER = "vllm.model_executor.model_loader.reload.layerwise"
NOT_LOADED = ": Failed to load weights"


class WorkerReport:
    """Mixed into the worker class (``worker_extension_cls``); called through ``collective_rpc``."""

    def palestra_device(self) -> str:
        return counters.device_id()

    def palestra_environment(self) -> dict[str, str]:
        return counters.environment()

    def palestra_counters(self) -> dict[str, int]:
        return counters.host() | counters.device_used()

    def palestra_cache_block(self) -> int:
        """Tokens at whose multiples the prefix cache is hit: more than a block of the KV cache for
        models with several kinds of attention."""
        config = self.cache_config  # type: ignore[attr-defined]
        return int(config.cache_hit_alignment_tokens or config.block_size)

    def palestra_watch(self) -> None:
        """Take note of layers that the coming update leaves out."""
        self._palestra_unloaded = Unloaded()
        self._palestra_unloaded.start()

    def palestra_unloaded(self) -> list[str]:
        """Classes of the layers whose parameters the update left out, one per layer.

        vLLM also warns of layers that have buffers alone (rotary embeddings); a deep sleep keeps
        those on the host.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        trained = {type(m).__name__ for m in model.modules() if list(m.parameters(recurse=False))}
        return [layer for layer in self._palestra_unloaded.stop() if layer in trained]

    def palestra_adapter_checksums(self) -> dict[str, str]:
        """SHA-256 of every part of the adapter, under names like those of vLLM's checksums."""
        prefix = self._weight_checksum_prefix()  # type: ignore[attr-defined]
        return {
            prefix + name: hashlib.sha256(part.cpu().view(torch.uint8).numpy().data).hexdigest()
            for name, part in self._adapter_parts()
        }

    def palestra_adapted_layers(self) -> int:
        """How many layers of the checkpoint have an adapter: their A is never all zero."""
        return sum(bool(part.any()) for name, part in self._adapter_parts() if ".lora_A." in name)

    def palestra_reset_adapter(self) -> None:
        for _, part in self._adapter_parts():
            part.zero_()

    def _adapter_parts(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Where vLLM keeps the one adapter: A and B of each layer, and of each of those that vLLM
        has fused into one."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        for name, module in model.named_modules():
            for side in "AB":
                parts = getattr(module, f"lora_{side.lower()}_stacked", ())
                yield from ((f"{name}.lora_{side}.{n}", part) for n, part in enumerate(parts))


class Unloaded(logging.Handler):
    """Reads vLLM's warnings about layers without weights: there is no other trace of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._level = logging.NOTSET
        self.layers: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One warning per layer."""
        layer, found, _ = record.getMessage().partition(NOT_LOADED)
        if found:
            self.layers.append(layer)

    def start(self) -> None:
        """Listen, also where vLLM's own log level would hide warnings."""
        logger = logging.getLogger(RELOAD_LOGGER)
        self._level = logger.level
        logger.setLevel(logging.WARNING)
        logger.addHandler(self)

    def stop(self) -> list[str]:
        """Everything heard since ``start``."""
        logger = logging.getLogger(RELOAD_LOGGER)
        logger.setLevel(self._level)
        logger.removeHandler(self)
        return self.layers
