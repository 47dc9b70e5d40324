"""The console and the loggers: aligned rows, a mirrored log, sinks that agree with the journal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from palestra.deploy.console import Console, header, row
from palestra.deploy.loggers import Loggers
from palestra.deploy.plot import learning_curve, smooth
from palestra.deploy.plot_toggle import limited_phases, toggle_curve
from palestra.deploy.text import clean, one_line
from palestra.rl.errors import UserError
from palestra.rl.journal import EvalRow, Journal
from palestra.rl.metrics import EvalScore

METRICS = {"reward/mean": 0.25, "pass_rate": 0.5, "mismatch/logprob_abs_diff": 3.1e-7}


def test_rows_line_up_with_the_header() -> None:
    cells = row(12, METRICS)
    assert len(cells) == len(header())
    words = dict(zip(header().split(), cells.split(), strict=True))
    assert words["step"] == "12" and words["reward"] == "0.250" and words["pass"] == "50.0%"
    assert words["mismatch"] == "3.1e-07" and words["KL"] == "-"


def test_the_header_comes_once_and_all_is_mirrored(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Console(tmp_path / "log", stream=stream) as console:
        console.phase("train")
        console.step(1, METRICS)
        console.step(2, METRICS)
        console.say("[red]not markup[/red] \x1b[31mred")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "== train",
        header(),
        row(1, METRICS),
        row(2, METRICS),
        "[red]not markup[/red] red",
    ]
    assert (tmp_path / "log").read_text() == stream.getvalue()


def test_notes_are_in_the_log_alone(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Console(tmp_path / "log", stream=screen) as console:
        console.note("left out row 7\x1b[2J")
    assert "row 7" in (tmp_path / "log").read_text() and screen.getvalue() == ""


def test_long_lines_are_not_wrapped() -> None:
    stream = io.StringIO()
    Console(stream=stream).say("x " * 500)
    assert stream.getvalue().count("\n") == 1


def test_progress_is_a_plain_line_now_and_then(tmp_path: Path) -> None:
    def clock() -> Iterator[float]:
        yield from (0.0, 1.0, 11.0, 12.0, 22.0)

    times = clock()
    stream = io.StringIO()
    with (
        Console(tmp_path / "log", stream=stream, clock=lambda: next(times)) as console,
        console.progress(8, "episodes") as advance,
    ):
        for _ in range(4):
            advance(2)
    assert stream.getvalue().splitlines() == [
        "episodes: 4/8 after 11 s",
        "episodes: 8/8 after 22 s",
    ]


def test_before_and_after() -> None:
    stream = io.StringIO()
    old = EvalScore(pass_at_1=0.25, n=200, ci95=(0.195, 0.314))
    new = EvalScore(pass_at_1=0.5, n=200, ci95=(0.431, 0.569))
    Console(stream=stream).before_after({"a": old, "b": old}, {"a": new})
    head, a, b = stream.getvalue().splitlines()
    assert "25.0% [19.5%, 31.4%]" in a and "50.0% [43.1%, 56.9%]" in a and a.endswith("+25.0%")
    assert b.endswith("-") and head.startswith("split")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\b", "ab"),
        ("a\x9b31mb", "ab"),
        ("a\rb\x08c\x00d\x7f", "abcd"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\u202eb\u200bc\ud800", "abc"),
        ("a\x1bcb", "ab"),
        ("\x1b", ""),
        ("\x1b\x1b[31m[31mx", "[31mx"),
        ("gr\u00fc\u00df \U0001f600", "gr\u00fc\u00df \U0001f600"),
    ],
)
def test_clean(text: str, safe: str) -> None:
    assert clean(text) == safe


def test_one_line() -> None:
    assert one_line("a\nb\t\x1b[1mc") == "a\\nb\\tc"


def test_metrics_jsonl_has_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(tmp_path / "j") as journal, Console(stream=io.StringIO()) as console:
        journal.finish_step(1, METRICS)
        with Loggers(["jsonl"], tmp_path, journal, console) as loggers:
            journal.finish_step(2, METRICS)
            loggers.log(2, METRICS)
        journal.finish_step(3, {"x": float("nan")})  # killed before the sink had it
        path.write_text(path.read_text() + '{"step": 3, "half')
        with Loggers(["jsonl"], tmp_path, journal, console) as loggers:
            journal.finish_step(4, METRICS)
            loggers.log(4, METRICS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert rows[0] == {"step": 1, **METRICS} and rows[2]["x"] is None


def test_tensorboard_has_every_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path / "j") as journal, Console(stream=io.StringIO()) as console:
        for step in (1, 2):
            with Loggers(["tensorboard"], tmp_path, journal, console) as loggers:
                journal.finish_step(step, METRICS)
                loggers.log(step, METRICS)
        times = journal.finish_times()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("reward/mean")
    assert [(s.step, s.value) for s in scalars] == [(1, 0.25), (2, 0.25)]
    assert scalars[0].wall_time == pytest.approx(times[1])


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j") as journal,
        Console(stream=io.StringIO()) as console,
        pytest.raises(UserError, match="'abacus'; known are console, jsonl, tensorboard"),
    ):
        Loggers(["jsonl", "abacus"], tmp_path, journal, console)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    evals = [EvalRow(step=s, split="x", task_id="t", sample=0, solved=s > 0) for s in (0, 2)]
    steps = [(1, METRICS), (2, METRICS)]
    for index, (given, rows) in enumerate([(steps, evals), ([], []), (steps, [])]):
        path = tmp_path / f"{index}.png"
        learning_curve(given, rows, path, title="$x [b]")
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_curve_of_toggle_is_a_picture(tmp_path: Path) -> None:
    steps = [
        (n, METRICS | {"toggle/phase": phase, "toggle/budget/mean": 40.0})
        for n, phase in ((1, 0.0), (2, 0.0), (3, 1.0), (4, 0.0))
    ]
    assert list(limited_phases(steps)) == [(1, 2), (4, 4)]
    assert list(limited_phases([(1, METRICS)])) == []
    for name, given in (("phases", steps), ("none", [(1, METRICS)])):
        toggle_curve(given, tmp_path / f"{name}.png", title="$x [b]")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_smooth() -> None:
    assert smooth([]) == []
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    rising = smooth([0.0, 1.0, 1.0])
    assert 0.0 == rising[0] < rising[1] < rising[2] < 1.0
