"""Episodes as one HTML file: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

from palestra.deploy.episode_text import call_text, checks, mean_logprob, parts, total
from palestra.deploy.run_view import GroupView, RunView, TokenText
from palestra.deploy.text import clean
from palestra.rl.types import Message, Trajectory, Turn

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2329; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2.5rem; border-bottom: 1px solid #ccd }
pre { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: .2rem 0 .8rem; padding: .5rem .7rem; background: #f5f6f8; border-radius: 4px }
pre.call { background: #e9f1fb } pre.error { background: #fdeceb } pre.tokens { background: #fff;
  border: 1px solid #dde }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
.what { color: #5b6770; font-size: .85rem } details { margin: .6rem 0 }
summary { cursor: pointer; font-weight: 600 } .good { color: #1d6b3c } .bad { color: #a3281f }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(
    run: RunView, step: int | None, groups: Sequence[GroupView], decode: TokenText | None
) -> str:
    """A whole document about some groups; tokens are coloured where ``decode`` is given."""
    name = _text(run.path.absolute().name)
    body = "\n".join(_body(run, name, step, groups, decode))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _body(
    run: RunView,
    name: str,
    step: int | None,
    groups: Sequence[GroupView],
    decode: TokenText | None,
) -> Iterator[str]:
    finished = len(run.journal.steps())
    yield f"<h1>{name}</h1><p>{_text(run.status)}, {finished} steps finished; "
    yield f"step {step} below</p>" if step is not None else "no episode yet</p>"
    yield "<table><tr><th>group</th><th>task</th><th>rewards</th></tr>"
    for index, group in enumerate(groups):
        rewards = " ".join(total(t) for t in group.trajectories)
        yield (
            f'<tr><td><a href="#g{index}">{_text(group.row.id)}</a></td>'
            f"<td>{_text(group.row.task_id)}</td><td>{rewards}</td></tr>"
        )
    yield "</table>"
    for index, group in enumerate(groups):
        yield from _group(index, group, decode)


def _group(index: int, group: GroupView, decode: TokenText | None) -> Iterator[str]:
    yield f'<h2 id="g{index}">{_text(group.row.id)} - {_text(group.row.task_id)}</h2>'
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
        f'<details><summary>{_text(trajectory.id)} <span class="{"good" if solved else "bad"}">'
        f"reward {total(trajectory)}</span>{_text(parts(trajectory))}</summary>"
        f'<p class="what">ended: {_text(ended)} {_text(trajectory.reason)}</p>'
    )
    for number, turn in enumerate(trajectory.turns, 1):
        yield from _turn(number, turn, decode)
    if trajectory.patch:
        yield _pre("what it changed", trajectory.patch)
    yield "</details>"


def _turn(number: int, turn: Turn, decode: TokenText | None) -> Iterator[str]:
    size = f"{len(turn.token_ids)} tokens, {mean_logprob(turn)}, weights {turn.version}"
    yield _pre(f"reply {number}: {size}", turn.message.content)
    for call in turn.message.calls:
        yield f'<pre class="call">{_text(call_text(call))}</pre>'
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
        yield _pre("observation", turn.observation)


def _token(token_id: int, logprob: float, text: str) -> str:
    surprise = 1 - math.exp(min(0.0, logprob)) if not math.isnan(logprob) else 1.0
    color = f"rgba(200, 40, 30, {0.75 * surprise:.2f})"
    shown = _text(text) or "&middot;"
    return f'<span style="background: {color}" title="{token_id}: {logprob:.4f}">{shown}</span>'


def _pre(what: str, text: str, *, kind: str = "") -> str:
    return f'<div class="what">{_text(what)}</div><pre class="{kind}">{_text(text)}</pre>'


def _text(text: str) -> str:
    return html.escape(clean(text), quote=True)
