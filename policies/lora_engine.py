"""The sampling side with an adapter: frozen weights from disk, and a LoRA that updates replace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from palestra.policies import guards
from palestra.policies.config import EngineConfig
from palestra.policies.engine import VllmEngine
from palestra.policies.lora import SETTINGS, WEIGHTS, file_shapes

SLOT_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""
NUMBER = 1
"""vLLM's id of the adapter; an engine has one."""


class LoraEngine(VllmEngine):
    """A ``VllmEngine`` whose every reply is sampled with the adapter that was loaded last.

    ``adapter`` is the folder of the one that the run starts from. Updates bring adapters only, so
    the frozen weights are kept on the host while the engine sleeps.
    """

    sleep_level = 1

    def __init__(
        self, folder: str, config: EngineConfig, *, max_model_len: int, adapter: str
    ) -> None:
        settings = json.loads((Path(adapter) / SETTINGS).read_text())
        self.adapter = adapter
        self.rank: int = settings["r"]
        self.targets: list[str] = settings["target_modules"]
        self.layers = sum(".lora_A." in name for name in file_shapes(Path(adapter) / WEIGHTS))
        super().__init__(folder, config, max_model_len=max_model_len)
        self._name_version(0)

    def _engine_args(self) -> dict[str, Any]:
        return {
            "enable_lora": True,
            "max_loras": 1,
            "max_cpu_loras": 1,
            "max_lora_rank": min(rank for rank in SLOT_RANKS if rank >= self.rank),
            "lora_target_modules": self.targets,
        }

    def _name_version(self, version: int) -> None:
        from vllm.lora.request import LoRARequest

        # The name is part of the prefix cache's keys.
        self._lora = LoRARequest(f"palestra-{version}", NUMBER, self.adapter)

    def _generate(self, prompt: Any, params: Any) -> AsyncIterator[Any]:
        key = str(next(self._ids))
        return self._llm.generate(prompt, params, key, lora_request=self._lora)  # type: ignore[no-any-return]

    async def start(self) -> None:
        """Load the adapter that the run starts from."""
        with self._turn("load adapter"):
            await self._load(self.adapter)

    async def _load(self, folder: str) -> None:
        from vllm.lora.request import LoRARequest

        await self._llm.add_lora(LoRARequest("palestra", NUMBER, folder, load_inplace=True))
        for loaded in await self._llm.collective_rpc("palestra_adapted_layers"):
            guards.all_adapted(loaded, self.layers)

    async def checksums(self) -> dict[str, str]:
        """SHA-256 of every parameter and of every part of the adapter, by worker and name."""
        frozen = await super().checksums()
        adapters = await self._llm.collective_rpc("palestra_adapter_checksums")
        return frozen | {key: digest for worker in adapters for key, digest in worker.items()}

    async def reset_weights(self) -> None:
        """Zero the adapter: the update that follows has to bring all of it."""
        with self._turn("reset weights"):
            await self._llm.collective_rpc("palestra_reset_adapter")

    async def start_weight_update(self) -> None:
        """Nothing but the rest of the update is allowed from here on."""
        with self._turn("start update"):
            pass

    async def update_weights(self, info: Any) -> None:
        """Load the adapter in the folder ``info["path"]``."""
        with self._turn("update"):
            await self._load(info["path"])

    async def finish_weight_update(self) -> None:
        """End the update; ``set_version`` names it."""
        with self._turn("finish update"):
            pass

    async def set_version(self, version: int) -> None:
        """What the weights count as from now on, in the prefix cache, too."""
        await super().set_version(version)
        self._name_version(version)
