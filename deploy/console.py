"""What a person sees while a run goes on: the same plain text on the terminal and in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from palestra.deploy.table import aligned
from palestra.deploy.text import clean
from palestra.rl.metrics import EvalScore

PLAIN_EVERY_S = 10.0

# Heading, metric, format; the width is that of the heading or of a typical value.
COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("reward", "reward/mean", ".3f", 6),
    ("pass", "pass_rate", ".1%", 6),
    ("length", "response_length/mean", ".1f", 6),
    ("entropy", "actor/entropy", ".3f", 7),
    ("KL", "actor/ppo_kl", ".1e", 8),
    ("mismatch", "mismatch/logprob_abs_diff", ".1e", 8),
    ("tok/s", "perf/throughput", ",.0f", 6),
    ("gen", "timing_s/generate", ".1f", 6),
    ("env", "timing_s/environment", ".1f", 6),
    ("learn", "timing_s/learn", ".1f", 6),
    ("sync", "timing_s/sync", ".1f", 6),
    ("idle", "timing_s/idle", ".1f", 6),
    ("s", "timing_s/step", ".1f", 6),
)


class Advance(Protocol):
    """Reports that ``count`` more pieces of the work are done."""

    def __call__(self, count: int = 1) -> None: ...


class Console:
    """Prints lines, steps and progress; everything but the moving bar also goes to ``log``.

    Example: ``with Console(run / "console.log") as console: console.say("hello")``
    """

    def __init__(
        self,
        log: Path | None = None,
        *,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = RichConsole(file=stream, highlight=False, soft_wrap=True)
        self._log = log.open("a", encoding="utf-8") if log else None
        self._clock = clock
        self._header_shown = False

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line (or several); control characters are dropped and nothing is markup."""
        text = clean(text)
        self._screen.print(Text(text, style=style))
        if self._log:
            self._log.write(f"{text}\n")
            self._log.flush()

    def note(self, text: str) -> None:
        """Write a line to the log alone: one of many that a terminal need not show."""
        if self._log:
            self._log.write(f"{clean(text)}\n")
            self._log.flush()

    def phase(self, title: str) -> None:
        """Say that a new part of the run begins."""
        self.say(f"== {title}", style="bold")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print one row of the table of steps, under a header the first time."""
        if not self._header_shown:
            self._header_shown = True
            self.say(header(), style="bold")
        self.say(row(step, metrics))

    def before_after(self, before: Mapping[str, EvalScore], after: Mapping[str, EvalScore]) -> None:
        """Print pass@1 of every split before and after training, with 95 % intervals."""
        for index, line in enumerate(before_after_lines(before, after)):
            self.say(line, style="" if index else "bold")

    @contextmanager
    def progress(self, total: int, what: str) -> Iterator[Advance]:
        """Show how far some work is: a bar on a terminal, a line every ten seconds elsewhere.

        Example: ``with console.progress(128, "episodes") as advance: advance()``
        """
        if self._screen.is_terminal:
            with self._bar(total, what) as advance:
                yield advance
        else:
            yield self._lines(total, what)

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Advance]:
        """A bar on a terminal and nothing elsewhere, for work that reports in lines of its own."""
        if self._screen.is_terminal:
            with self._bar(total, what) as advance:
                yield advance
        else:
            yield lambda count=1: None

    @contextmanager
    def _bar(self, total: int, what: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._screen, transient=True) as bar:
            task = bar.add_task(clean(what), total=total)
            yield lambda count=1: bar.advance(task, count)

    def _lines(self, total: int, what: str) -> Advance:
        started = shown = self._clock()
        done = 0

        def advance(count: int = 1) -> None:
            nonlocal done, shown
            done += count
            now = self._clock()
            if now - shown >= PLAIN_EVERY_S:
                shown = now
                self.say(f"{what}: {done}/{total} after {now - started:.0f} s")

        return advance

    def close(self) -> None:
        """Close the log file; safe to call twice."""
        if self._log:
            self._log.close()
            self._log = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def header() -> str:
    """The headings of the table of steps."""
    return "  ".join(["step".rjust(5), *(name.rjust(width) for name, _, _, width in COLUMNS)])


def row(step: int, metrics: Mapping[str, float]) -> str:
    """One step as aligned text; ``-`` where a metric was not measured."""
    cells = [
        (format(metrics[metric], form) if metric in metrics else "-").rjust(width)
        for _, metric, form, width in COLUMNS
    ]
    return "  ".join([str(step).rjust(5), *cells])


def before_after_lines(
    before: Mapping[str, EvalScore], after: Mapping[str, EvalScore]
) -> list[str]:
    """The table of evaluations: one line per split below a header."""
    splits = list(dict.fromkeys([*before, *after]))
    table = [("split", "tasks", "pass@1 before", "pass@1 after", "change")]
    for split in splits:
        old, new = before.get(split), after.get(split)
        tasks = new.n if new else old.n if old else 0
        change = f"{new.pass_at_1 - old.pass_at_1:+.1%}" if old and new else "-"
        table.append((split, str(tasks), _score(old), _score(new), change))
    return aligned(table, right=frozenset({1, 2, 3, 4}))


def _score(score: EvalScore | None) -> str:
    if score is None:
        return "-"
    low, high = score.ci95
    return f"{score.pass_at_1:.1%} [{low:.1%}, {high:.1%}]"
