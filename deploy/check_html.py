"""The report of ``palestra tasks check`` as one HTML file; see ``html_page``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from palestra.deploy.html_page import document, escaped
from palestra.envs.check import CheckReport, TaskCheck


def page(report: CheckReport) -> str:
    """A whole document: the counts, then every task, those with a problem first."""
    name = escaped(report.source)
    return document(name, "\n".join(_body(report, name)))


def _body(report: CheckReport, name: str) -> Iterator[str]:
    counts = report.to_json()
    word = (
        '<span class="good">sound</span>' if report.sound else '<span class="bad">not sound</span>'
    )
    yield f"<h1>{name}: {word}</h1>"
    yield from _table(
        ("tasks", "references pass", "pass untouched", "flaky", "left out", "seconds"),
        [
            (
                *(str(counts[key]) for key in ("tasks", "reference_pass", "noop_pass", "flaky")),
                str(len(report.skipped)),
                f"{report.wall_s:.1f}",
            )
        ],
    )
    if report.skipped:
        yield "<h2>Left out</h2>"
        rows = ((escaped(item.id), escaped(item.reason)) for item in report.skipped)
        yield from _table(("what", "why"), rows)
    yield "<h2>Tasks</h2>"
    worst_first = sorted(report.tasks, key=lambda task: not task.problem)
    yield from _table(("task", "reference, s", "attacks", "problem"), map(_row, worst_first))


def _row(task: TaskCheck) -> tuple[str, ...]:
    gains = sum(map(bool, task.attacks.values()))
    attacks = f"{gains} of {len(task.attacks)} gained" if task.attacks else "not tried"
    problem = f'<span class="bad">{escaped(task.problem)}</span>' if task.problem else "none"
    return escaped(task.id), f"{task.seconds:.2f}", attacks, problem


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"
