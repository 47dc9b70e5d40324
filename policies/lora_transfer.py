"""A learner's adapter to its engine: one small folder in shared memory per update."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from palestra.policies import guards
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.lora import MARK, WEIGHTS, file_shapes, saved_name


class AdapterTransfer:
    """Sends adapters alone: the engine has the frozen weights from the same model folder.

    ``client`` makes the calls of vLLM's ``VLLMWeightSyncClient``. Raises EngineError when the
    learner's adapter is not the one in ``start``, the folder that both sides loaded.
    """

    def __init__(
        self, learner: DeepSpeedLearner, client: Any, start: Path, folder: str = "/dev/shm"
    ) -> None:
        self.learner = learner
        self.client = client
        self.folder = folder
        shapes = {saved_name(n): tuple(t.shape) for n, t in learner.named_weights(MARK)}
        guards.same_tensors(shapes, file_shapes(start / WEIGHTS))

    def send_weights(self) -> None:
        """One update; every rank gathers, rank 0 sends, and the folder is gone afterwards."""
        adapter = self.learner.adapter
        assert adapter is not None
        tensors = dict(self.learner.named_weights(MARK))
        if self.learner.ranks.rank:
            return
        size = sum(tensor.nbytes for tensor in tensors.values())
        guards.fits_folder(size, shutil.disk_usage(self.folder).free, self.folder)
        with tempfile.TemporaryDirectory(prefix="palestra-", dir=self.folder) as folder:
            adapter.write(Path(folder), tensors)
            self.client.start_weight_update()
            self.client.update_weights({"path": folder})
            self.client.finish_weight_update()
