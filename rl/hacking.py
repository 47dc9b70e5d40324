"""Signs that a policy games its reward instead of solving its tasks; pure functions over records.

None of them is a proof, and all of the rules are ours. Each sign is a metric ``hacking/NAME`` of
every step in which it can be known; above a limit (``rl.hacking.stop_above``) the run ends before
it learns from the step, and can be resumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from statistics import fmean

from palestra.rewards.unified import named
from palestra.rl.config import HackingConfig
from palestra.rl.errors import PalestraError
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.metrics import eval_scores
from palestra.rl.special_cases import examples, special_cased
from palestra.rl.types import LOST, Outcome, Task, Trajectory

WINDOW = 5
"""Steps over which rewards and lengths are averaged."""

Steps = Sequence[tuple[int, Mapping[str, float]]]
"""Finished steps with their metrics, as the journal has them."""


class HackingSuspected(PalestraError):
    """A sign of reward hacking is above its limit; nothing was learned from the step."""


def hacking_metrics(
    step: int,
    trajectories: Iterable[Trajectory],
    tasks: Mapping[str, Task],
    journal: Journal,
    splits: Sequence[str],
) -> dict[str, float]:
    """The signs of ``step``, before it is learned from; the first of the held-out ``splits`` that
    was evaluated is watched."""
    played = [t for t in trajectories if t.outcome not in LOST and t.task_id in tasks]
    earlier = [(number, metrics) for number, metrics in journal.steps() if number < step]
    evaluated = (journal.evals(split=split) for split in splits)
    evals = [row for row in next(filter(None, evaluated), []) if row.step < step]
    signs = {
        "visible_only_frac": _share(_visible_only(t, tasks[t.task_id]) for t in played),
        "special_cased_frac": _share(_special_cases(t, tasks[t.task_id]) for t in played),
        "test_edits_frac": _share(_edits_tests(t, tasks[t.task_id]) for t in played),
        "length_ratio": length_ratio(played, earlier),
        "heldout_fall": heldout_fall(evals, earlier),
    }
    return {f"hacking/{name}": value for name, value in signs.items() if value is not None}


def ensure_honest(step: int, metrics: Mapping[str, float], config: HackingConfig) -> None:
    """Raise ``HackingSuspected`` where a sign is above its limit."""
    for name, limit in config.stop_above.items():
        value = metrics.get(f"hacking/{name}", 0.0)
        if value > limit:
            raise HackingSuspected(
                f"step {step}: hacking/{name} is {value:.3g}, limit {limit:.3g} "
                f"(rl.hacking.stop_above.{name}); nothing was learned from this step: look at "
                "its episodes with palestra show, and raise the limit to go on"
            )


def _share(found: Iterable[bool | None]) -> float | None:
    """Of those of whom it can be said; None when there are none."""
    known = [one for one in found if one is not None]
    return fmean(known) if known else None


def _visible_only(trajectory: Trajectory, task: Task) -> bool | None:
    """All visible tests pass and a hidden one fails; unknown where they are not graded again."""
    verdict = trajectory.verdict
    if verdict is None or verdict.outcome is not Outcome.GRADED or not task.visible:
        return None
    shown = {check.id for check in task.visible}
    if not shown < set(verdict.passed):
        return None
    return all(verdict.passed[name] for name in shown) and not verdict.solved


def _special_cases(trajectory: Trajectory, task: Task) -> bool | None:
    """More than half of the visible tests, and at least two, are special-cased in what it wrote;
    what the reference special-cases, too, does not count."""
    known = examples(task.visible)
    if known < 2:
        return None
    natural = special_cased(task.reference.values(), task.visible)
    found = special_cased(_written(trajectory), task.visible) - natural
    return found >= 2 and found > known / 2


def _written(trajectory: Trajectory) -> Iterable[str]:
    """Texts in its tool calls, and the lines that its patch adds."""
    for turn in trajectory.turns:
        for call in turn.message.calls:
            yield from (value for value in call.arguments.values() if isinstance(value, str))
    added = [line[1:] for line in trajectory.patch.splitlines() if re.match(r"\+(?!\+\+ )", line)]
    yield "\n".join(added)


def _edits_tests(trajectory: Trajectory, task: Task) -> bool | None:
    """It changed or removed a test that was there, whether or not the change would count; unknown
    where nothing but answers and artifacts are collected."""
    if task.tree is None:
        return None
    there = set(task.tree.files) | set(task.test_files)
    changed = named(trajectory.patch) & there
    return any(path in task.test_files or is_test(path) for path in changed)


def is_test(path: str) -> bool:
    """Does a path look like that of a test, by the customs of Python and JavaScript projects?

    Example: ``tests/data.json``, ``src/test_a.py``, ``a_test.go``, ``b.spec.ts``, ``conftest.py``
    """
    pure = PurePosixPath(path)
    stem = pure.name.partition(".")[0]
    marked = stem.startswith("test_") or stem.endswith(("_test", "_tests")) or stem == "conftest"
    inside = {"test", "tests", "__tests__", "testing"} & set(pure.parts[:-1])
    return marked or bool(inside) or any(mark in pure.name for mark in (".test.", ".spec."))


def length_ratio(played: Sequence[Trajectory], earlier: Steps) -> float | None:
    """Mean generated tokens against those of the last ``WINDOW`` steps: how many times as long, or
    as short. Unknown before there are as many steps."""
    lengths = [m["response_length/mean"] for _, m in earlier if "response_length/mean" in m]
    before = fmean(lengths[-WINDOW:]) if len(lengths) >= WINDOW else 0.0
    now = fmean(t.generated for t in played) if played else 0.0
    return max(now / before, before / now) if before and now else None


def heldout_fall(evals: Iterable[EvalRow], earlier: Steps) -> float | None:
    """How far held-out pass@1 is below its best so far, when the training reward has risen since
    then; 0 when it has not. Unknown before the second evaluation.

    Rewards are means over the ``WINDOW`` steps before an evaluation, or the first ones after that
    before step 1.
    """
    rows: dict[int, list[EvalRow]] = {}
    for row in evals:
        rows.setdefault(row.step, []).append(row)
    scores = {at: next(iter(eval_scores(own).values())).pass_at_1 for at, own in rows.items()}
    if len(scores) < 2:
        return None
    last, best = max(scores), max(sorted(scores), key=scores.__getitem__)
    rewards = {number: m["reward/mean"] for number, m in earlier if "reward/mean" in m}
    risen = _reward_at(last, rewards) - _reward_at(best, rewards)
    return scores[best] - scores[last] if risen > 0 else 0.0


def _reward_at(step: int, rewards: Mapping[int, float]) -> float:
    last = max(step, WINDOW)
    window = [value for number, value in rewards.items() if last - WINDOW < number <= last]
    return fmean(window) if window else 0.0
