"""Sinks of other projects' trackers; none is needed, and each is imported when a run names it.

What they write lies in the run's folder, and nothing leaves the machine unless the tracker's own
variables say so (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from palestra.deploy.console import Console
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal

PROJECT = "palestra"


class WandbSink:
    """Weights & Biases, offline by default: ``wandb sync RUN/wandb/offline-run-*`` sends it."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        wandb: Any = importlib.import_module("wandb")
        for stale in run.glob("wandb/offline-run-*"):
            shutil.rmtree(stale)
        mode = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(silent=True, console="off")
        self._run: Any = wandb.init(
            project=PROJECT, name=run.name, dir=str(run), mode=mode, settings=settings
        )
        for step, metrics in journal.steps():
            self.log(step, metrics)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run, which writes what is left."""
        self._run.finish()


class MlflowSink:
    """MLflow; without ``MLFLOW_TRACKING_URI`` a folder ``mlflow/`` that its own UI opens."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        # A run waits for each answer: not for minutes, as is usual there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        mlflow: Any = importlib.import_module("mlflow")
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            # MLflow asks for this since it prefers databases, which its small package lacks.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            shutil.rmtree(run / "mlflow", ignore_errors=True)
            place = (run / "mlflow").absolute().as_uri()
        self._metric: Any = mlflow.entities.Metric
        self._client: Any = mlflow.MlflowClient(tracking_uri=place)
        experiment = self._client.get_experiment_by_name(PROJECT)
        identity = (
            experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        )
        self._run = self._client.create_run(identity, run_name=run.name).info.run_id
        times = journal.finish_times()
        for step, metrics in journal.steps():
            self._add(step, metrics, times[step])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one step."""
        self._add(step, metrics, time.time())

    def _add(self, step: int, metrics: Mapping[str, float], at: float) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        rows = [self._metric(name, value, int(at * 1000), step) for name, value in finite.items()]
        self._client.log_batch(self._run, metrics=rows)

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self._run)


class TrackioSink:
    """Trackio; without ``TRACKIO_DIR`` in the folder ``trackio/``."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        if "TRACKIO_DIR" not in os.environ:
            shutil.rmtree(run / "trackio", ignore_errors=True)
            os.environ["TRACKIO_DIR"] = str((run / "trackio").absolute())
        trackio: Any = importlib.import_module("trackio")
        self._run: Any = trackio.init(project=PROJECT, name=run.name, embed=False)
        for step, metrics in journal.steps():
            self.log(step, metrics)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run, which writes what is left."""
        self._run.finish()


def check_installed(name: str) -> None:
    """Raise ``UserError`` where a tracker's package is missing."""
    if name in TRACKERS and importlib.util.find_spec(name) is None:
        raise UserError(f"logger: {name} is not installed; pip install {name}")


TRACKERS: dict[str, Callable[[Path, Journal, Console], Any]] = {
    "wandb": WandbSink,
    "mlflow": MlflowSink,
    "trackio": TrackioSink,
}
