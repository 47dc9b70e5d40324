"""Episodes as one HTML file; see ``html_page``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from palestra.deploy.episode_text import (
    call_text,
    checks,
    mean_logprob,
    observed,
    parts,
    total,
    vouched,
)
from palestra.deploy.html_page import document, escaped
from palestra.deploy.judge_text import headline
from palestra.deploy.run_view import GroupView, RunView
from palestra.deploy.token_text import TokenText
from palestra.rl.types import Judgement, Message, Trajectory, Turn


def page(
    run: RunView,
    step: int | None,
    groups: Sequence[GroupView],
    decode: TokenText | None,
    *,
    asked: bool = False,
) -> str:
    """A whole document about some groups; tokens are coloured where ``decode`` is given, and what
    judges were asked is shown where it was ``asked`` for, as it repeats much."""
    name = escaped(run.path.absolute().name)
    body = [*_head(run, name, step, groups)]
    for index, group in enumerate(groups):
        body += _group(index, group, decode)
        body += [_judgement(one, asked) for one in run.journal.judgements(group.row.id)]
    return document(name, "\n".join(body))


def _head(run: RunView, name: str, step: int | None, groups: Sequence[GroupView]) -> Iterator[str]:
    finished = len(run.journal.steps())
    yield f"<h1>{name}</h1><p>{escaped(_status(run))}, {finished} steps finished; "
    yield f"step {step} below</p>" if step is not None else "no episode yet</p>"
    yield "<table><tr><th>group</th><th>task</th><th>rewards</th></tr>"
    for index, group in enumerate(groups):
        rewards = " ".join(total(t) for t in group.trajectories)
        yield (
            f'<tr><td><a href="#g{index}">{escaped(group.row.id)}</a></td>'
            f"<td>{escaped(group.row.task_id)}</td><td>{rewards}</td></tr>"
        )
    yield "</table>"


def _status(run: RunView) -> str:
    return f"{run.status} ({run.reason})" if run.reason else run.status


def _group(index: int, group: GroupView, decode: TokenText | None) -> Iterator[str]:
    yield f'<h2 id="g{index}">{escaped(group.row.id)} - {escaped(group.row.task_id)}</h2>'
    if group.trajectories:
        yield "<details><summary>prompt</summary>"
        yield from _messages(group.trajectories[0].prompt)
        yield "</details>"
    for trajectory in group.trajectories:
        yield from _episode(trajectory, decode)


def _messages(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield _pre(message.role, message.content)


def _episode(trajectory: Trajectory, decode: TokenText | None) -> Iterator[str]:
    solved = trajectory.verdict is not None and trajectory.verdict.solved
    ended = f"{trajectory.stop.value}, {trajectory.outcome.value}, {checks(trajectory)}"
    yield (
        f'<details><summary>{escaped(trajectory.id)} <span class="{"good" if solved else "bad"}">'
        f"reward {total(trajectory)}</span>{escaped(parts(trajectory))}</summary>"
        f'<p class="what">ended: {escaped(ended)} {escaped(trajectory.reason)}</p>'
    )
    yield from (f'<p class="what">{escaped(line)}</p>' for line in vouched(trajectory))
    for number, turn in enumerate(trajectory.turns, 1):
        yield from _turn(number, turn, decode)
    if trajectory.patch:
        yield _pre("what it changed", trajectory.patch)
    yield "</details>"


def _turn(number: int, turn: Turn, decode: TokenText | None) -> Iterator[str]:
    size = f"{len(turn.token_ids)} tokens, {mean_logprob(turn)}, weights {turn.version}"
    yield _pre(f"reply {number}: {size}", turn.message.content)
    for call in turn.message.calls:
        yield f'<pre class="call">{escaped(call_text(call))}</pre>'
    if decode:
        spans = "".join(
            _token(token_id, logprob, decode(token_id))
            for token_id, logprob in zip(turn.token_ids, turn.logprobs, strict=False)
        )
        yield '<div class="what">tokens, redder where less likely</div>'
        yield f'<pre class="tokens">{spans}</pre>'
    if turn.error:
        yield _pre("error", turn.error, kind="error")
    if turn.observation:
        yield _pre(observed(turn), turn.observation)


def _judgement(judgement: Judgement, asked: bool) -> str:
    said = [_pre("said", judgement.opinion.text)]
    if asked:
        said = [*_messages(judgement.messages), *said]
    head = f"<details><summary>{escaped(headline(judgement))}</summary>"
    return "\n".join([head, *said, "</details>"])


def _token(token_id: int, logprob: float, text: str) -> str:
    surprise = 1 - math.exp(min(0.0, logprob)) if not math.isnan(logprob) else 1.0
    color = f"rgba(200, 40, 30, {0.75 * surprise:.2f})"
    shown = escaped(text) or "&middot;"
    return f'<span style="background: {color}" title="{token_id}: {logprob:.4f}">{shown}</span>'


def _pre(what: str, text: str, *, kind: str = "") -> str:
    return f'<div class="what">{escaped(what)}</div><pre class="{kind}">{escaped(text)}</pre>'
