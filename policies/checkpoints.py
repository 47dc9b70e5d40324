"""A checkpoint that all ranks of a learner write, or none."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from palestra.policies import process_group
from palestra.policies.replacing import replace_folder
from palestra.rl.errors import CheckpointError

if TYPE_CHECKING:
    from palestra.policies.learner import DeepSpeedLearner

NATIVE, STEPS = "native", "learner.json"
UNWRITABLE = (OSError, RuntimeError, SafetensorError)
"""RuntimeError is what torch.save says when the disk is full."""
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, AssertionError)


def save(learner: DeepSpeedLearner, target: Path) -> None:
    """A Hugging Face export with the native state in ``native/``, renamed into place whole.

    Each part ends on all ranks before the next begins. Where one of them cannot write, all raise
    CheckpointError, and nothing is left.
    """
    partial = target.with_name(target.name + ".partial")
    first = learner.ranks.rank == 0

    def prepare() -> None:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / NATIVE).mkdir(parents=True)

    def find() -> None:
        if not partial.is_dir():
            raise OSError(f"{partial} is not there on a node: all must share its file system")

    def write() -> None:
        with _patient(learner.engine):
            learner.engine.save_checkpoint(
                str(partial),
                tag=NATIVE,
                save_latest=False,
                exclude_frozen_parameters=learner.adapter is not None,
            )

    def finish() -> None:
        if first:
            (partial / STEPS).write_text(json.dumps({"steps": learner.steps}))
            replace_folder(partial, target)

    try:
        for part in (prepare, find, lambda: learner.export(str(partial)), write, finish):
            _everywhere(part, learner, f"cannot write {target}", UNWRITABLE)
    except CheckpointError:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def load(learner: DeepSpeedLearner, folder: Path) -> None:
    """Restore what ``save`` wrote."""

    def read() -> None:
        steps = json.loads((folder / STEPS).read_text())["steps"]
        path, _ = learner.engine.load_checkpoint(
            str(folder), tag=NATIVE, load_module_strict=learner.adapter is None
        )
        if path is None:
            raise OSError("it holds no checkpoint that can be loaded")
        learner.steps = steps

    _everywhere(read, learner, f"cannot load {folder}", UNREADABLE)


def _everywhere(
    part: Callable[[], None],
    learner: DeepSpeedLearner,
    what: str,
    faults: tuple[type[Exception], ...],
) -> None:
    """Do this rank's part, then hear of all others; its collectives come before it may fail."""
    reason = ""
    try:
        part()
    except faults as error:
        text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        reason = text or type(error).__name__
    said = process_group.said_by_all(reason, learner.device)
    if any(said):
        raise CheckpointError(f"{what}: {'; '.join(dict.fromkeys(filter(None, said)))}")


@contextlib.contextmanager
def _patient(engine: Any) -> Iterator[None]:
    """DeepSpeed's ``engine`` tells of what it could not write at the end only: until then every
    rank takes part in the collectives of ``save_checkpoint``, or the others wait for it."""
    failures: list[Exception] = []

    def late(write: Callable[..., None]) -> Callable[..., None]:
        def attempt(*args: Any, **named: Any) -> None:
            try:
                write(*args, **named)
            except UNWRITABLE as error:
                failures.append(error)

        return attempt

    with contextlib.ExitStack() as stack:
        for owner, name in ((engine.checkpoint_engine, "save"), (engine, "_copy_recovery_script")):
            write = getattr(owner, name)
            stack.callback(setattr, owner, name, write)
            setattr(owner, name, late(write))
        yield
    if failures:
        raise failures[0]
