"""A run folder as a reader sees it: found, opened read-only, and asked by step and group."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.deploy.run_folder import CONFIG, JOURNAL, is_running
from palestra.deploy.text import one_line
from palestra.deploy.token_text import TokenText, load_tokenizer, tokenizer_files
from palestra.rl.errors import UserError
from palestra.rl.journal import GroupRow, Journal
from palestra.rl.types import Trajectory

SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One group with its trajectories, whose rewards are those that the step learned from.

    Example: ``GroupView(row=GroupRow(...), trajectories=(trajectory, ...))``
    """

    row: GroupRow
    trajectories: tuple[Trajectory, ...]


class RunView:
    """Reads a run folder, whether its run still goes on or not.

    Example: ``with RunView(Path("runs/tiny")) as run: run.groups(step=3)``
    """

    def __init__(self, path: Path) -> None:
        if not (path / JOURNAL).is_file():
            raise UserError(_no_run(path))
        self.path = path
        self.journal = Journal(path / JOURNAL, read_only=True)

    @property
    def status(self) -> str:
        """``running``, or what the summary says, or that there is none."""
        if is_running(self.path):
            return "running"
        return self._summarized("status") or "stopped without a summary"

    @property
    def reason(self) -> str:
        """Why it has failed, one line; empty where it has not, and while it goes on."""
        return "" if is_running(self.path) else self._summarized("reason")

    def _summarized(self, key: str) -> str:
        try:
            summary = json.loads((self.path / "summary.json").read_text())
            return one_line(str(summary[key]))
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def shown_step(self, step: int | None) -> int | None:
        """``step`` if it has groups, or the last one that has; None when there is none at all."""
        steps = sorted({row.step for row in self.journal.groups()})
        if step is None:
            return steps[-1] if steps else None
        if step not in steps:
            held = f"{steps[0]} to {steps[-1]}" if steps else "no step yet"
            raise UserError(f"{self.path}: no step {step}; there is {held}")
        return step

    def groups(self, step: int | None) -> list[GroupView]:
        """The groups of a step, with their trajectories."""
        if step is None:
            return []
        played: dict[str, list[Trajectory]] = {}
        for trajectory in self._shaped(step, self.journal.trajectories(step)):
            played.setdefault(trajectory.group_id, []).append(trajectory)
        rows = self.journal.groups(step)
        return [GroupView(row=row, trajectories=tuple(played.get(row.id, ()))) for row in rows]

    def group(self, prefix: str, step: int | None) -> GroupView:
        """The group with this id, or the only one whose id starts so (in ``step``, if given)."""
        rows = self.journal.groups(step)
        matching = [row for row in rows if row.id.startswith(prefix)]
        exact = [row for row in matching if row.id == prefix]
        found = exact or matching
        if len(found) == 1:
            row = found[0]
            siblings = self._shaped(row.step, self.journal.group(row.id))
            return GroupView(row=row, trajectories=tuple(siblings))
        where = f"{self.path}: " + (f"step {step}: " if step is not None else "")
        if found:
            raise UserError(f"{where}group {prefix} may be {_names(found)}; write more of the id")
        raise UserError(f"{where}no group {prefix}; there is {_names(rows) or 'none yet'}")

    def _shaped(self, step: int, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """With the rewards after shaping; the journal's trajectories hold the raw ones."""
        shaped = self.journal.shaped(step)
        return [
            replace(t, reward=replace(shaped[t.id], provenance=t.reward.provenance))
            if t.reward and t.id in shaped
            else t
            for t in trajectories
        ]

    def token_text(self) -> TokenText | None:
        """Decodes single ids with the run's own tokenizer; None when there is none to load."""
        tokenizer = load_tokenizer([*tokenizer_files(self.path), *self._models()])
        if tokenizer is None:
            return None
        return lambda token_id: str(tokenizer.decode([token_id], skip_special_tokens=False))

    def _models(self) -> list[Path]:
        """The tokenizer of the model that the run started from."""
        try:
            config = tomllib.loads((self.path / CONFIG).read_text(encoding="utf-8"))
            model = Path(str(config["policy"]["model"])) / "tokenizer.json"
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [model] if model.is_file() else []

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def __enter__(self) -> RunView:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _no_run(path: Path) -> str:
    parent = path.parent
    runs = sorted(p.parent.name for p in parent.glob(f"*/{JOURNAL}")) if parent.is_dir() else []
    there = (
        f"{parent}/ holds {', '.join(runs[:SHOWN])}" if runs else "give the path of a run folder"
    )
    return f"{path}: there is no run here; {there}"


def _names(rows: list[GroupRow]) -> str:
    names = ", ".join(one_line(row.id) for row in rows[:SHOWN])
    return names + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
