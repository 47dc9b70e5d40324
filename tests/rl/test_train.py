"""Checkpoint folders: which count, which go, and whether the next one fits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from palestra.rl.errors import UserError
from palestra.rl.train import checkpoints, ensure_space, last_checkpoint, prune, restore, step_of


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("step-9", "step-10", "step-2", "step-11.partial", "step-x", "notes"):
        (tmp_path / name / "native").mkdir(parents=True)
        (tmp_path / name / "native" / "state").write_bytes(b"x" * 600)
        (tmp_path / name / "weights").write_bytes(b"x" * 400)
    return tmp_path


def test_checkpoints_are_sorted_by_number_and_complete(folder: Path) -> None:
    assert [step_of(p) for p in checkpoints(folder)] == [2, 9, 10]
    assert last_checkpoint(folder) == folder / "step-10"
    assert last_checkpoint(folder / "nowhere") is None


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [10]), (2, [9, 10]), (3, [2, 9, 10]), (9, [2, 9, 10])]
)
def test_pruning_keeps_the_newest_and_removes_half_written_ones(
    folder: Path, keep: int, left: list[int]
) -> None:
    prune(folder, keep)
    assert [step_of(p) for p in checkpoints(folder)] == left
    names = {p.name for p in folder.iterdir()}
    assert "step-11.partial" not in names
    assert {"step-x", "notes"} <= names, "what is not ours stays"
    assert (folder / "step-10" / "native" / "state").is_file()


def test_a_checkpoint_that_was_being_replaced_gets_its_name_back(folder: Path) -> None:
    (folder / "step-10").rename(folder / "step-10.old")
    (folder / "step-9.old").mkdir()
    assert [step_of(p) for p in checkpoints(folder)] == [2, 9]
    for _ in range(2):
        restore(folder)
        assert [step_of(p) for p in checkpoints(folder)] == [2, 9, 10]
    assert (folder / "step-10" / "native" / "state").is_file()
    assert (folder / "step-9" / "native" / "state").is_file()
    assert not list(folder.glob("*.old"))


@pytest.mark.parametrize(("free", "fits"), [(1999, False), (2000, True), (0, False)])
def test_space_is_checked_before_it_is_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 10_000 - free, free))
    if fits:
        ensure_space(folder)
        return
    with pytest.raises(UserError, match=r"make room.*good up to step-10"):
        ensure_space(folder)
    assert [step_of(p) for p in checkpoints(folder)] == [2, 9, 10]


def test_before_the_first_checkpoint_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    ensure_space(tmp_path)
