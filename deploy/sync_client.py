"""How a learner's rank reaches the engines in a weight update, on its own node and on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray


def node() -> str:
    """The node of the Ray cluster that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


class SyncClient:
    """vLLM's ``VLLMWeightSyncClient`` over our engine actors; runs in the learner's process.

    An engine on another node cannot map a file in this node's shared memory. It gets the file's
    bytes through Ray's object store, which sends them once to each such node.
    """

    def __init__(self, engines: Sequence[Any]) -> None:
        self.engines = list(engines)
        here = node()
        self.near = [at == here for at in self._all("node")]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._all("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self._all("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        if all(self.near) or "path" not in update_info:  # CUDA IPC: each finds its own device's
            self._all("update_weights", update_info)
            return
        content = ray.put(Path(update_info["path"]).read_bytes())
        ray.get(
            [
                engine.update_weights.remote(update_info)
                if near
                else engine.update_weights_from.remote(content)
                for engine, near in zip(self.engines, self.near, strict=True)
            ]
        )

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("finish_weight_update")

    def _all(self, method: str, *args: Any) -> list[Any]:
        return list(ray.get([getattr(engine, method).remote(*args) for engine in self.engines]))
