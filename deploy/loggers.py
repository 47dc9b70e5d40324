"""Where metrics go: sinks chosen by name, each of them a copy of what the journal says.

Give a step to the journal first and to the sinks afterwards: a sink is rebuilt from the journal
when it is opened, so a resumed run has every step once, whenever the last one was killed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from palestra.deploy.atomic import write_text
from palestra.deploy.console import Console
from palestra.deploy.text import one_line
from palestra.deploy.trackers import TRACKERS, check_installed
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal


class Sink(Protocol):
    """Takes the metrics of finished steps, in order."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonlSink:
    """``metrics.jsonl``: one object per step, the key ``step`` first; null where not finite."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        path = run / "metrics.jsonl"
        write_text(path, "".join(_line(step, metrics) for step, metrics in journal.steps()))
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        self._file.write(_line(step, metrics))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Event files in ``tensorboard/``, written without torch."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run / "tensorboard"
        folder.mkdir(exist_ok=True)
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._writer: Any = EventFileWriter(str(folder))
        times = journal.finish_times()
        for step, metrics in journal.steps():
            self._add(step, metrics, times[step])
        self._writer.flush()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one event with every metric."""
        self._add(step, metrics, time.time())
        self._writer.flush()

    def _add(self, step: int, metrics: Mapping[str, float], wall_time: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        event = Event(wall_time=wall_time, step=step, summary=Summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class ConsoleSink:
    """A row of the console's table per step."""

    def __init__(self, run: Path, journal: Journal, console: Console) -> None:
        self._console = console

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the row."""
        self._console.step(step, metrics)

    def close(self) -> None:
        """Nothing to do: the console belongs to the caller."""


class TrackerSink:
    """A tracker of another project, in which anything may fail: it is said once, its copy ends
    there, and the run goes on. Raises ``UserError`` when it cannot be opened."""

    def __init__(self, name: str, run: Path, journal: Journal, console: Console) -> None:
        self._name, self._console = name, console
        try:
            self._tracker: Any = TRACKERS[name](run, journal, console)
        except Exception as error:
            raise UserError(
                f"logger: {name} cannot be opened: {_reason(error)}; mend it or leave it out"
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give the step to the tracker, as long as it has not failed."""
        self._attempt(lambda tracker: tracker.log(step, metrics))

    def close(self) -> None:
        """Say goodbye to it."""
        self._attempt(lambda tracker: tracker.close())

    def _attempt(self, action: Callable[[Any], None]) -> None:
        try:
            if self._tracker is not None:
                action(self._tracker)
        except Exception as error:  # noqa: BLE001 - of a library, over a network
            self._tracker = None
            self._console.say(
                f"logger: {self._name} gets no more steps ({_reason(error)}); the journal has them"
            )


SINKS: dict[str, Callable[[Path, Journal, Console], Sink]] = {
    "console": ConsoleSink,
    "jsonl": JsonlSink,
    "tensorboard": TensorBoardSink,
    **{name: partial(TrackerSink, name) for name in TRACKERS},
}


class Loggers:
    """The sinks of a run; a context manager that closes them.

    Example: ``with Loggers(["jsonl"], run, journal, console) as loggers: loggers.log(1, metrics)``
    """

    def __init__(self, names: Sequence[str], run: Path, journal: Journal, console: Console) -> None:
        check_names(names)
        self._stack = ExitStack()
        self._sinks: list[Sink] = []
        with ExitStack() as opened:  # closes the first sinks when a later one cannot be opened
            for name in dict.fromkeys(names):
                sink = SINKS[name](run, journal, console)
                opened.callback(sink.close)
                self._sinks.append(sink)
            self._stack = opened.pop_all()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give a step that is in the journal to every sink."""
        for sink in self._sinks:
            sink.log(step, metrics)

    def close(self) -> None:
        """Close every sink; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_names(names: Sequence[str]) -> None:
    """Raise ``UserError`` for a logger that does not exist; ask before long work starts."""
    for name in names:
        if name not in SINKS:
            raise UserError(f"logger: unknown logger {name!r}; known are {', '.join(SINKS)}")
        check_installed(name)


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:200]


def _line(step: int, metrics: Mapping[str, float]) -> str:
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return json.dumps({"step": step, **finite}) + "\n"
