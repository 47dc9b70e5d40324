"""Verifiers of answers: what is right, what is wrong, and what tries to be both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palestra.rewards.answers.grade import MAX_ANSWER, AnswerGrader
from palestra.rewards.answers.numeric import number
from palestra.rewards.answers.registry import VERIFIERS
from palestra.rewards.answers.symbolic import Algebra
from palestra.rl.errors import GraderError, TaskError
from palestra.rl.types import AnswerCheck, Outcome, ScriptCheck, Task, Verdict, Work

FOUR = json.dumps({"numbers": [4, 7, 8, 8], "target": 24})
GRID = json.dumps({"rows": ["1...", "..1.", ".1..", "...1"], "block": [2, 2]})
SEND = json.dumps({"terms": ["SEND", "MORE"], "sum": "MONEY"})
SOLVED = "S=9, E=5, N=6, D=7, M=1, O=0, R=8, Y=2"
CASES = [
    ("exact", " New\nYork ", "new york", ""),
    ("exact", "New York or Paris", "new york", "another text"),
    ("constraints", "ab c\n\nd", '[["paragraphs", {"count": 2}], ["lower", {}]]', ""),
    (
        "constraints",
        "- a\n- b",
        '[["bullets", {"count": 3}], ["words", {"most": 3}]]',
        "not obeyed: bullets count=3, words most=3",
    ),
    (
        "constraints",
        "This response contains exactly three bullets, as requested.",
        '[["bullets", {"count": 3}]]',
        "it claims to obey, but not obeyed: bullets count=3",
    ),
    ("constraints", "Copper! copper", '[["contains", {"word": "copper", "times": 2}]]', ""),
    ("constraints", "copperware", '[["avoids", {"word": "copper"}]]', ""),
    ("constraints", '{"a": "x"}', '[["keys", {"names": ["a"]}]]', ""),
    (
        "constraints",
        '```{"a": "x"}```',
        '[["keys", {"names": ["a"]}]]',
        "not obeyed: keys names=['a']",
    ),
    ("constraints", '{"a": ""}', '[["keys", {"names": ["a"]}]]', "not obeyed: keys names=['a']"),
    (
        "constraints",
        "so it goes.",
        '[["ends", {"phrase": "so it goes"}]]',
        "not obeyed: ends phrase=so it goes",
    ),
    ("choice", "(b).", "B", ""),
    ("choice", "A or B", "B", "not one letter"),
    ("choice", "A", "B", "another choice"),
    ("numeric", "$1,200.", "1200", ""),
    ("numeric", "1.2e3", "1200", ""),
    ("numeric", "0.5", "1/2", ""),
    ("numeric", "0.333", "1/3", "another number"),
    ("numeric", "3.14", "3.1416 ± 0.002", ""),
    ("numeric", "3.13", "3.1416 ± 0.002", "another number"),
    ("numeric", "12,00", "1200", "not a number"),
    ("numeric", "1 2", "12", "not a number"),
    ("numeric", "1e9999", "1", "not a number"),
    ("numeric", "nan", "1", "not a number"),
    ("numeric", "1/0", "1", "not a number"),
    ("numeric", "١٢", "12", "not a number"),
    ("target", "(7 - 8 / 8) * 4", FOUR, ""),
    ("target", "4 * 7 - 8 / 8 - 3", FOUR, "it does not use each number once"),
    ("target", "4 + 7 + 8 + 8", FOUR, "another value"),
    ("target", "24", FOUR, "it does not use each number once"),
    ("target", "8 ** 8 + 4 - 7", FOUR, "not an expression of + - * / and whole numbers"),
    ("target", "8 // 8 + 4 - 7", FOUR, "not an expression of + - * / and whole numbers"),
    ("target", "4/(8-8)*7", FOUR, "not an expression of + - * / and whole numbers"),
    ("target", "(" * 500 + ")" * 500, FOUR, "not an expression of + - * / and whole numbers"),
    ("sudoku", "2143\n3412\n1234\n4321", GRID, "a clue was changed"),
    ("sudoku", "1324\n2413\n3142\n4231", GRID, ""),
    ("sudoku", "1 3 2 4\n2 4 1 3\n3 1 4 2\n4 2 3 1", GRID, ""),
    ("sudoku", "1111\n1111\n1111\n1111", GRID, "a row, column or block lacks a digit"),
    ("sudoku", "1324\n2413\n3142", GRID, "not 4 rows of 4 digits"),
    ("cryptarithm", SOLVED, SEND, ""),
    ("cryptarithm", SOLVED.replace("Y=2", "Y=3"), SEND, "the sum does not hold"),
    ("cryptarithm", SOLVED.replace("Y=2", "Y=7"), SEND, "two letters have the same digit"),
    (
        "cryptarithm",
        "S=0, E=0, N=0, D=0, M=0, O=0, R=0, Y=0",
        SEND,
        "two letters have the same digit",
    ),
    ("cryptarithm", SOLVED + ", S=8", SEND, "not one digit for each letter, as in A=1, B=2"),
    ("cryptarithm", "S=9 I think", SEND, "not one digit for each letter, as in A=1, B=2"),
]


def judge(verifier: str, text: str, expected: str) -> str:
    return asyncio.run(VERIFIERS.find(verifier)(text, expected))


@pytest.mark.parametrize(("verifier", "text", "expected", "wrong"), CASES)
def test_what_is_right(verifier: str, text: str, expected: str, wrong: str) -> None:
    assert judge(verifier, text, expected) == wrong


@given(st.fractions(max_denominator=10**6))
@example(Fraction(0))
def test_numbers_are_read_as_they_are_written(value: Fraction) -> None:
    assert number(str(value)) == value


@given(st.text(max_size=60) | st.from_regex(r"[\d+\-*/() =A-Z.,\n]{0,80}", fullmatch=True))
def test_nothing_that_is_no_answer_passes_or_raises(text: str) -> None:
    for verifier, expected in [
        ("numeric", "1/7"),
        ("target", json.dumps({"numbers": [97, 89], "target": 8})),
        ("sudoku", GRID),
        ("cryptarithm", SEND),
    ]:
        wrong = judge(verifier, text, expected)
        assert wrong or (verifier == "target" and eval(text) == 8)  # digits and operators alone


@pytest.mark.parametrize("verifier", ["numeric", "target", "sudoku", "cryptarithm", "constraints"])
def test_an_expectation_that_cannot_be_read_is_the_tasks_fault(verifier: str) -> None:
    for expected in ("no", "[1]", '[["words", {"of": 1}]]', '{"a": 1}'):
        with pytest.raises(TaskError):
            judge(verifier, "1", expected)


EXPRESSIONS = [
    ("x^2+2x+1", "(x+1)^2", True),
    (r"\frac{1}{2}", "0.5", True),
    ("$3\\sqrt{2}$.", r"\sqrt{18}", True),
    (r"\{2, 1\}", r"\{1, 2\}", True),
    (r"\{1, 2, 3\}", "2", False),
    ("1, 2, 3", "2", False),
    (r"2 \text{ or } 3", "3", False),
    ("$2$ or $3$", "3", False),
    (r"\boxed{2}\boxed{3}", "3", False),
    (r"\frac{d}{dx}(x^2)", "2x", False),
    (r"\int_0^2 x dx", "2", False),
    ("x", "2", False),
    ("", "2", False),
    ("__import__('os').system('id')", "2", False),
    ("9^{9^{9^{9}}}", "2", False),
    ("(" * 400, "2", False),
]

KILLED = [
    sys.executable,
    "-c",
    "import os; print(0, flush=True); input(); os.kill(os.getpid(), 9)",
]


def test_expressions_are_compared_by_algebra_within_limits() -> None:
    async def compare() -> None:
        algebra = Algebra(cpu_s=2, children=2)
        for text, expected, right in EXPRESSIONS:
            wrong = await algebra.wrong(text, expected)
            assert (wrong == "") == right, (text, wrong)
        assert await algebra.wrong("1" * 2000, "1") == "longer than 1000 characters"
        with pytest.raises(TaskError, match="not an expression"):
            await algebra.wrong("1", "")
        # A child that died costs nobody an answer; one that hangs is no fault of the answer.
        [child] = algebra.children._idle
        os.kill(child.pid, signal.SIGKILL)
        assert await algebra.wrong("1/2", "0.5") == ""
        [child] = algebra.children._idle
        # The machine, short of memory, ends a child and the one in its place.
        whole, algebra.children._command = algebra.children._command, KILLED
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(GraderError, match="SIGKILL"):
            await algebra.wrong("1", "1")
        algebra.children._command = whole
        assert await algebra.wrong("1", "1") == ""
        [child] = algebra.children._idle
        os.kill(child.pid, signal.SIGSTOP)
        algebra.children._seconds = 0.2
        with pytest.raises(GraderError, match="no answer within"):
            await algebra.wrong("1", "1")
        algebra.children._seconds = 60
        assert await asyncio.gather(*[algebra.wrong("0.5", "1/2") for _ in range(6)]) == [""] * 6
        assert len(algebra.children._idle) == 2
        await algebra.children.close()

    asyncio.run(compare())


def task(*checks: AnswerCheck | ScriptCheck) -> Task:
    return Task(
        id="t",
        source="palestra/Math-v0",
        kind="math",
        prompt="?",
        files={},
        reference={},
        artifacts=("answer.txt",),
        hidden=checks,
    )


def test_answers_are_graded_and_everything_else_is_passed_on() -> None:
    code = ScriptCheck(id="code", module="m", names=(), code="")
    passed_on = Verdict(outcome=Outcome.GRADED, passed={"code": True})

    async def others(asked: Task, work: Work) -> Verdict:
        assert asked.hidden == (code,)
        return passed_on

    def verdict(asked: Task, work: Work) -> Verdict:
        return asyncio.run(AnswerGrader(others)(asked, work))

    one = AnswerCheck(id="one", verifier="numeric", expected="18")
    assert verdict(task(code), {}) == passed_on
    assert verdict(task(one), {"answer.txt": b"18"}).solved
    assert verdict(task(one), {}).reason == "one: answer.txt: missing"
    assert not verdict(task(one), {"answer.txt": b"\xff"}).solved
    assert not verdict(task(one), {"answer.txt": b"1" * (MAX_ANSWER + 1)}).solved
    two = AnswerCheck(id="two", verifier="exact", expected="18.0")
    both = verdict(task(one, two), {"answer.txt": b"18"})
    assert both.passed == {"one": True, "two": False} and both.reason == "two: another text"
    with pytest.raises(TaskError, match="stand beside others"):
        verdict(task(one, code), {"answer.txt": b"18"})


def test_a_verifier_that_breaks_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(text: str, expected: str) -> str:
        raise RuntimeError("boom")

    monkeypatch.setattr(VERIFIERS, "ours", {"broken": broken})

    async def others(asked: Task, work: Work) -> Verdict:
        raise AssertionError

    check = AnswerCheck(id="one", verifier="broken", expected="")
    found = asyncio.run(AnswerGrader(others)(task(check), {"answer.txt": b""}))
    assert found.outcome is Outcome.INFRA_FAILURE and "boom" in found.reason
