"""``palestra show``: an overview of a run, or the episodes of a group, on a terminal.

Whatever a model or a sandbox wrote is untrusted: it is printed without control characters, never
as markup.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from palestra.deploy.console import Console
from palestra.deploy.episode_text import (
    call_text,
    checks,
    mean_logprob,
    observed,
    parts,
    total,
    vouched,
)
from palestra.deploy.html_page import write
from palestra.deploy.judge_text import judgement_lines
from palestra.deploy.run_view import GroupView, RunView
from palestra.deploy.show_html import page
from palestra.deploy.table import aligned
from palestra.deploy.text import clean, one_line
from palestra.deploy.token_text import TokenText
from palestra.rl.types import Judgement, Message, Trajectory, Turn

METRICS = (
    "reward/mean",
    "pass_rate",
    "response_length/mean",
    "num_turns/mean",
    "reward/zero_std_frac",
    "judge/first_frac",
    "judge/contradiction_frac",
    "judge/length_corr",
    "critic/accuracy",
    "critic/trusted",
    "hacking/heldout_fall",
    "hacking/visible_only_frac",
    "hacking/special_cased_frac",
    "hacking/test_edits_frac",
    "hacking/length_ratio",
    "infra/failure_frac",
    "task/failure_frac",
    "actor/entropy",
    "actor/ppo_kl",
    "mismatch/logprob_abs_diff",
    "perf/throughput",
    "timing_s/step",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOptions:
    """What to show; without ``group`` an overview.

    Example: ``ShowOptions(group="3/repair", tokens=True)``
    """

    step: int | None = None
    group: str | None = None
    html: Path | None = None
    tokens: bool = False
    as_json: bool = False


def show(path: Path, options: ShowOptions, console: Console) -> int:
    """Print what ``options`` ask for, or write it into an HTML file; returns the exit code."""
    with RunView(path) as run:
        groups = _chosen(run, options)
        if options.html:
            step = groups[0].row.step if groups else None
            decode = run.token_text() if options.tokens else None
            text = page(run, step, groups, decode, asked=options.group is not None)
            write(options.html, text)
            console.say(f"wrote {options.html}")
        elif options.as_json:
            print(json.dumps(_as_json(run, groups, full=options.group is not None)))
        else:
            for line in _lines(run, groups, options):
                console.say(line)
    return 0


def _chosen(run: RunView, options: ShowOptions) -> list[GroupView]:
    if options.group is not None:
        return [run.group(options.group, options.step)]
    return run.groups(run.shown_step(options.step))


def _lines(run: RunView, groups: Sequence[GroupView], options: ShowOptions) -> Iterator[str]:
    if options.group is None:
        yield from overview(run, groups)
        return
    decode = (run.token_text() or str) if options.tokens else None
    for group in groups:
        yield from group_lines(group, decode)
        yield from judgement_lines(run.journal.judgements(group.row.id))


def overview(run: RunView, groups: Sequence[GroupView]) -> Iterator[str]:
    """Status, the last metrics, and a line per group of the step shown."""
    steps = run.journal.steps()
    yield f"{run.path}: {run.status}, {len(steps)} steps finished"
    if run.reason:
        yield f"it failed: {run.reason}"
    if steps:
        step, metrics = steps[-1]
        yield f"metrics of step {step}:"
        for name in METRICS:
            if name in metrics:
                yield f"  {name:28} {metrics[name]:.4g}"
    if not groups:
        yield "no episode has been recorded yet"
        return
    yield f"groups of step {groups[0].row.step}, with the reward of each episode:"
    rows = [(g.row.id, g.row.task_id, " ".join(map(total, g.trajectories))) for g in groups]
    yield from (f"  {line}" for line in aligned(rows))
    yield f"see one: palestra show {run.path} --group {one_line(groups[0].row.id)} [--tokens]"


def group_lines(group: GroupView, decode: TokenText | None) -> Iterator[str]:
    """Every episode of a group: what was said, what was answered, and what it was worth."""
    row = group.row
    yield f"group {one_line(row.id)}  task {one_line(row.task_id)}  step {row.step}"
    if group.trajectories:
        yield from _messages(group.trajectories[0].prompt)
    for number, trajectory in enumerate(group.trajectories, 1):
        yield ""
        yield f"=== episode {number} of {row.size}  {one_line(trajectory.id)}"
        for index, turn in enumerate(trajectory.turns, 1):
            yield from _turn(index, turn, decode)
        yield from _ending(trajectory)


def _messages(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield f"--- {message.role}"
        yield clean(message.content)


def _turn(index: int, turn: Turn, decode: TokenText | None) -> Iterator[str]:
    size = f"{len(turn.token_ids)} tokens  {mean_logprob(turn)}  weights {turn.version}"
    yield f"--- reply {index}  {size}"
    if turn.message.content:
        yield clean(turn.message.content)
    for call in turn.message.calls:
        yield f"  -> {call_text(call)}"
    if decode:
        for token_id, logprob in zip(turn.token_ids, turn.logprobs, strict=False):
            yield f"  {logprob:9.4f}  {token_id:6}  {one_line(decode(token_id))}"
    if turn.error:
        yield f"  error: {one_line(turn.error)}"
    if turn.observation:
        yield f"--- {observed(turn)}"
        yield clean(turn.observation)


def _ending(trajectory: Trajectory) -> Iterator[str]:
    if trajectory.patch:
        yield "--- what it changed"
        yield clean(trajectory.patch)
    yield f"--- ended: {trajectory.stop.value}, {trajectory.outcome.value}, {checks(trajectory)}"
    if trajectory.reason:
        yield f"  reason: {one_line(trajectory.reason)}"
    yield f"  reward {total(trajectory)}{parts(trajectory)}"
    yield from (f"    {line}" for line in vouched(trajectory))


def _as_json(run: RunView, groups: Sequence[GroupView], *, full: bool) -> dict[str, object]:
    steps = run.journal.steps()
    dump: Callable[[Trajectory], object] = _record if full else _brief
    said = run.journal.judgements if full else lambda _: []
    return {
        "run": str(run.path),
        "status": run.status,
        "reason": run.reason,
        "steps": len(steps),
        "metrics": {k: v if math.isfinite(v) else None for k, v in steps[-1][1].items()}
        if steps
        else {},
        "groups": [
            {
                "id": group.row.id,
                "step": group.row.step,
                "task_id": group.row.task_id,
                "trajectories": [dump(t) for t in group.trajectories],
                "judgements": [_judgement(j) for j in said(group.row.id)],
            }
            for group in groups
        ],
    }


def _brief(trajectory: Trajectory) -> object:
    reward = trajectory.reward.total if trajectory.reward else None
    return {"id": trajectory.id, "stop": trajectory.stop.value, "reward": reward}


def _record(trajectory: Trajectory) -> object:
    from pydantic import TypeAdapter

    return TypeAdapter(Trajectory).dump_python(trajectory, mode="json")


def _judgement(judgement: Judgement) -> object:
    from pydantic import TypeAdapter

    return TypeAdapter(Judgement).dump_python(judgement, mode="json")
