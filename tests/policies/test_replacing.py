"""A folder in the place of another: whatever happens in between, one of them is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palestra.policies.replacing import replace_folder
from palestra.rl.train import last_checkpoint, restore


class Kill(BaseException):
    """The process dies here."""


def fill(folder: Path, text: str) -> Path:
    (folder / "native").mkdir(parents=True)
    for name in ("weights", "native/state"):
        (folder / name).write_text(text)
    return folder


def whole(folder: Path) -> str:
    """The text that all files of the folder hold."""
    (text,) = {(folder / name).read_text() for name in ("weights", "native/state")}
    return text


def at_call(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ``number``-th change of the disk raise instead, half done where it can be."""
    calls = iter(range(1, 1000))

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Path, *args: Any, **options: Any) -> Any:
            if next(calls) != number:
                return real(path, *args, **options)
            if real is not rename and (Path(path) / "weights").exists():
                (Path(path) / "weights").unlink()
            raise error

        return change

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", failing(rename))
    monkeypatch.setattr(shutil, "rmtree", failing(shutil.rmtree))


@pytest.mark.parametrize("left_over", [False, True])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_kill_at_any_moment_leaves_one_of_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, left_over: bool
) -> None:
    new, target = fill(tmp_path / "step-3.partial", "new"), fill(tmp_path / "step-3", "previous")
    if left_over:
        fill(tmp_path / "step-3.old", "older still")
    at_call(call, Kill(), monkeypatch)
    with pytest.raises(Kill):
        replace_folder(new, target)
    monkeypatch.undo()
    restore(tmp_path)
    assert last_checkpoint(tmp_path) == target
    assert whole(target) == ("previous" if call < 4 else "new")


def test_after_a_kill_the_only_one_is_kept_until_the_next_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes on in the same folder without looking for what was left."""
    new, target = fill(tmp_path / "step-3.partial", "new"), tmp_path / "step-3"
    fill(tmp_path / "step-3.old", "previous")
    at_call(1, Kill(), monkeypatch)
    with pytest.raises(Kill):
        replace_folder(new, target)
    monkeypatch.undo()
    restore(tmp_path)
    assert whole(target) == "previous"


def test_an_error_leaves_the_previous_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, target = fill(tmp_path / "new", "new"), fill(tmp_path / "step-3", "previous")
    at_call(3, OSError("no room"), monkeypatch)
    with pytest.raises(OSError, match="no room"):
        replace_folder(new, target)
    assert whole(target) == "previous"


@pytest.mark.parametrize("there", [False, True])
def test_the_new_one_takes_the_place(tmp_path: Path, there: bool) -> None:
    new, target = fill(tmp_path / "new", "new"), tmp_path / "step-3"
    if there:
        fill(target, "previous")
        (target / "more").touch()
    replace_folder(new, target)
    assert whole(target) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]
    assert not (target / "more").exists()
