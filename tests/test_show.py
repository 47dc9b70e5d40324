"""Showing a run: finding groups, and never trusting what a model wrote."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from palestra.deploy.console import Console
from palestra.deploy.show import ShowOptions, show
from palestra.rl.errors import UserError
from palestra.rl.journal import Journal
from palestra.rl.types import (
    Group,
    Judgement,
    Message,
    Opinion,
    Provenance,
    ToolCall,
    Trajectory,
    Turn,
    Verdict,
)

EVIL = "\x1b]0;owned\x07\x1b[2J[red]<script>alert('x')</script>\x9b1m\u202e&\"'"


@pytest.fixture
def run(tmp_path: Path, make_trajectory: Callable[..., Trajectory]) -> Path:
    path = tmp_path / "runs" / "tiny"
    path.mkdir(parents=True)
    with Journal(path / "journal.sqlite") as journal:
        for step, group in ((1, "1/a"), (2, "2/a"), (2, "2/b")):
            for index, reward in enumerate((0.0, 1.0)):
                name = f"{group}/{index}"
                journal.add_trajectory(make_trajectory(name, group=group, step=step, reward=reward))
        journal.finish_step(1, {"reward/mean": 0.5})
    return path


def _shown(path: Path, **options: object) -> str:
    stream = io.StringIO()
    assert show(path, ShowOptions(**options), Console(stream=stream)) == 0  # type: ignore[arg-type]
    return stream.getvalue()


def test_overview(run: Path) -> None:
    text = _shown(run)
    assert "stopped without a summary, 1 steps finished" in text
    assert "groups of step 2" in text and "2/a" in text and "1/a" not in text
    assert "0 1" in text and "reward/mean" in text
    (run / "summary.json").write_text('{"status": "done"}')
    assert "1/a" in _shown(run, step=1) and "done, 1 steps" in _shown(run)
    (run / "summary.json").write_text('{"status": "failed", "reason": "the head has gone"}')
    assert "failed, 1 steps finished\nit failed: the head has gone\n" in _shown(run)


def test_a_group(run: Path) -> None:
    text = _shown(run, group="2/b")
    assert text.count("=== episode") == 2 and "Fix it." in text
    assert 'replace(line="3", text="    return x")' in text
    assert "1 of 2 hidden checks passed (first failure: c#1)" in text
    assert "ended: submitted, graded, 2 of 2 hidden checks passed" in text
    assert "reward 1  (tests_pass 1)" in text
    assert "what it changed" not in text
    assert "-0.1000" not in text and "-0.1000" in _shown(run, group="2/b", tokens=True)


def test_what_the_policy_did_not_see_is_counted(
    run: Path, make_trajectory: Callable[..., Trajectory]
) -> None:
    made = make_trajectory("2/c/0", group="2/c", step=2)
    cut = replace(made, turns=(replace(made.turns[0], elided=7), made.turns[0]))
    with Journal(run / "journal.sqlite") as journal:
        journal.add_trajectory(cut)
    shown = _shown(run, group="2/c")
    assert shown.count("--- observation, 7 bytes left out\n") == 1
    assert shown.count("--- observation\n") == 1
    _shown(run, group="2/c", html=run / "page.html")
    assert "observation, 7 bytes left out" in (run / "page.html").read_text()


def test_a_shaped_reward_says_what_was_put_on_it(
    run: Path, make_trajectory: Callable[..., Trajectory]
) -> None:
    raw = make_trajectory("2/b/1", group="2/b", step=2)
    assert raw.reward is not None
    cut = replace(raw, reward=raw.reward.shaped("toggle", 0.0).shaped("length", 0.25))
    with Journal(run / "journal.sqlite") as journal:
        journal.add_shaped(2, [Group(id="2/b", task_id="t", trajectories=(cut,))])
    assert "reward 0.25  (tests_pass 1, toggle -1, length +0.25)" in _shown(run, group="2/b")
    assert "reward 0  (tests_pass 0)" in _shown(run, group="2/b"), "its sibling was not shaped"
    assert "0 0.25" in _shown(run, step=2)


def test_who_vouches_for_a_reward(run: Path, make_trajectory: Callable[..., Trajectory]) -> None:
    made = make_trajectory("2/c/0", group="2/c", step=2)
    assert made.verdict is not None and made.reward is not None
    by = Provenance(verifier="CallCheck", version="palestra 1", evidence="2 of 2", seconds=0.25)
    judge = Provenance(verifier=EVIL, version="7", evidence="first", tokens=31)
    verdict = replace(made.verdict, provenance=by)
    made = replace(made, verdict=verdict, reward=replace(made.reward, provenance={"style": judge}))
    shaped = replace(made, reward=made.reward and made.reward.shaped("toggle", 0.0))
    with Journal(run / "journal.sqlite") as journal:
        journal.add_trajectory(made)
        journal.add_shaped(2, [Group(id="2/c", task_id="t", trajectories=(shaped,))])
    text = _shown(run, group="2/c")
    assert "    verdict: CallCheck (palestra 1), 2 of 2, 0.25 s\n" in text
    assert "(7), first, 0 s, 31 tokens\n" in text and "\x1b" not in text
    _shown(run, group="2/c", html=run / "page.html")
    assert "verdict: CallCheck (palestra 1), 2 of 2, 0.25 s" in (run / "page.html").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"step": 9}, "no step 9; there is 1 to 2"),
        ({"group": "2/"}, "group 2/ may be 2/a, 2/b; write more of the id"),
        ({"group": "x"}, "no group x; there is 1/a, 2/a, 2/b"),
        ({"group": "1/a", "step": 2}, "step 2: no group 1/a; there is 2/a, 2/b"),
    ],
)
def test_what_is_not_there(run: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as raised:
        _shown(run, **options)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_no_run_names_those_that_are_there(run: Path) -> None:
    with pytest.raises(UserError, match=r"there is no run here; .*runs/ holds tiny"):
        _shown(run.parent / "other")


def test_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _shown(run, as_json=True, group="2/b")
    found = json.loads(capsys.readouterr().out)
    assert found["groups"][0]["trajectories"][1]["reward"]["total"] == 1.0
    _shown(run, as_json=True)
    assert [g["id"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["2/a", "2/b"]


def _evil(made: Trajectory, turn: Turn) -> Trajectory:
    call = ToolCall(name=EVIL, arguments={EVIL: EVIL})
    message = Message(role="assistant", content=EVIL, calls=(call,))
    return replace(
        made,
        id=f"e{EVIL}",
        group_id=f"e{EVIL}",
        task_id=EVIL,
        prompt=(Message(role="user", content=EVIL),),
        turns=(replace(turn, message=message, observation=EVIL, error=EVIL),),
        verdict=Verdict(outcome=made.outcome, passed={EVIL: False}),
        reason=EVIL,
        patch=EVIL,
    )


def _evil_judgement(about: Trajectory) -> Judgement:
    return Judgement(
        key="k",
        step=about.step,
        group_id=about.group_id,
        about=(about.id,),
        messages=(Message(role="user", content=f"Asked. {EVIL}"),),
        answers=(f"meets{EVIL}-4be1", "fails-4be1"),
        choice=0,
        opinion=Opinion(text=f"Judged. {EVIL}", judge=f"judge {EVIL}"),
    )


def _tokenizer(path: Path) -> None:
    """A tokenizer whose every token is hostile."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {f"{EVIL}{index}": index for index in range(10)}
    Tokenizer(WordLevel(words, unk_token=f"{EVIL}0")).save(str(path))


@pytest.fixture
def evil_run(
    run: Path, make_trajectory: Callable[..., Trajectory], make_turn: Callable[..., Turn]
) -> Path:
    with Journal(run / "journal.sqlite") as journal:
        evil = _evil(make_trajectory(step=3), make_turn())
        journal.add_trajectory(evil)
        journal.add_judgement(_evil_judgement(evil))
    _tokenizer(run / "tokenizer.json")
    return run


@pytest.mark.parametrize("options", [{}, {"group": "e"}, {"group": "e", "tokens": True}])
def test_nothing_escapes_into_the_terminal(evil_run: Path, options: dict[str, object]) -> None:
    text = _shown(evil_run, **options)
    assert "[red]<script>" in text  # shown as it is, not taken for markup
    assert ("--- what it changed" in text) == ("Judged. " in text) == ("group" in options)
    assert not [c for c in text if c != "\n" and not c.isprintable()]


class _Tags(HTMLParser):
    """Collects what a browser would take for tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(name for name, _ in attrs)}


@pytest.mark.parametrize("group", ["e", None])
def test_nothing_escapes_into_html(evil_run: Path, tmp_path: Path, group: str | None) -> None:
    _shown(evil_run, html=tmp_path / "page.html", tokens=True, group=group)
    page = (tmp_path / "page.html").read_text()
    tags = _Tags()
    tags.feed(page)
    known = (
        "html lang head meta charset http-equiv content name title style body h1 h2 p table tr th"
    )
    known += " td a href id details summary span class pre div"
    assert tags.seen <= set(known.split())
    assert "&lt;script&gt;" in page and "<script" not in page
    assert not [c for c in page if c != "\n" and not c.isprintable()]
    assert page.count("what it changed") == page.count("Judged. ") == 1
    assert page.count("Asked. ") == (group is not None), "what was asked repeats the group"
    assert "Content-Security-Policy" in page and 'title="3: -0.1000"' in page


def test_html_of_a_run_without_episodes(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.sqlite").close()
    _shown(tmp_path, html=tmp_path / "page.html")
    assert "no episode yet" in (tmp_path / "page.html").read_text()
    assert "no episode has been recorded yet" in _shown(tmp_path)


def test_what_a_judge_said_stands_under_its_group(run: Path) -> None:
    asked = Judgement(
        key="k",
        step=2,
        group_id="2/b",
        about=("2/b/0", "2/b/1"),
        messages=(Message(role="user", content="Which?"),),
        answers=("first-4be1", "second-4be1", "tie-4be1"),
        choice=1,
        opinion=Opinion(text=f"The second.{EVIL}", judge="policy@7", input_tokens=90),
    )
    with Journal(run / "journal.sqlite") as journal:
        journal.add_judgement(asked)
        journal.add_judgement(replace(asked, key="l", choice=None))
        journal.add_judgement(replace(asked, choice=0))
        assert journal.judgement("k") == asked
        assert journal.judgement("m") is None
    text = _shown(run, group="2/b")
    assert "--- judge policy@7 on 2/b/0, 2/b/1: second  90 + 0 tokens" in text
    assert text.count("The second.") == 2 and "no verdict" in text
    assert not any(mark in text for mark in ("\x1b", "\x07", "\u202e"))
    assert "judge" not in _shown(run, group="2/a")


def test_judgements_in_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turn = Turn(
        context_ids=(1,),
        token_ids=(2,),
        logprobs=(-0.5,),
        version=7,
        message=Message(role="assistant", content="\ud800"),
    )
    asked = Judgement(
        key="k",
        step=2,
        group_id="2/b",
        about=("2/b/0",),
        messages=(),
        answers=("meets-4be1", "fails-4be1"),
        choice=0,
        opinion=Opinion(text="Yes.", judge="policy@7", turn=turn),
    )
    with Journal(run / "journal.sqlite") as journal:
        journal.add_judgement(asked)
        (kept,) = journal.judgements("2/b")
        assert kept.opinion.turn is not None and kept.opinion.turn.logprobs == (-0.5,)
    _shown(run, group="2/b", as_json=True)
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [j["opinion"]["text"] for j in group["judgements"]] == ["Yes."]


def test_a_journal_from_before_there_were_judges(run: Path) -> None:
    with closing(sqlite3.connect(run / "journal.sqlite")) as old:
        old.execute("DROP TABLE judgements")
    assert "=== episode 2" in _shown(run, group="2/b")
