"""Mutants edit one line, parse, and mean something else."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.corpus_loader import shipped_functions
from palestra.envs.mutate import Mutant, combine, mutants, source_lines
from palestra.envs.operators import OPERATORS

CLAMP = """\
def clamp(x, low, high):
    if not x >= low and x:
        return min(low, high)
    for i in range(low, len(high)):
        x += i * 2 + 1
        if i in high:
            break
    return -x[1:low]
"""


def check(source: str, mutant: Mutant) -> None:
    before, after = source_lines(source), source_lines(mutant.source)
    assert len(before) == len(after)
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
    assert changed == [mutant.line]
    assert before[mutant.line - 1].rstrip("\r\n") == mutant.original_line
    assert after[mutant.line - 1].rstrip("\r\n") == mutant.mutated_line
    assert ast.dump(ast.parse(source)) != ast.dump(ast.parse(mutant.source))
    assert mutant.operator in OPERATORS


def test_every_shipped_function_has_mutants_that_hold() -> None:
    functions = shipped_functions()
    assert len(functions) > 50
    for function in functions:
        found = mutants(function.source)
        assert found, function.name
        for mutant in found:
            check(function.source, mutant)


def test_mutants_are_the_same_every_time_and_each_once() -> None:
    found = mutants(CLAMP)
    assert found == mutants(CLAMP)
    assert len({mutant.source for mutant in found}) == len(found)
    assert [mutant.line for mutant in found] == sorted(mutant.line for mutant in found)


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        ("compare", "return a < b", "return a <= b"),
        ("compare", "return (a) not  in b", "return (a) in b"),
        ("arithmetic", "return a ** b", "return a * b"),
        ("boolean", "return a and b", "return a or b"),
        ("integer", "return a[0]", "return a[-1]"),
        ("bound", "return a[b]", "return a[b - 1]"),
        ("dropped_term", "return a + 1", "return a"),
        ("arguments", "return f(a, b)", "return f(b, a)"),
        ("negation", "return not (a)", "return (a)"),
        ("negation", "return -a", "return a"),
        ("condition", "return 1 if a else 2", "return 1 if not a else 2"),
        ("variable", "return a", "return b"),
        ("constant", "return True", "return False"),
        ("constant", "return []", "return None"),
        ("augmented", "a += b", "a -= b"),
        ("augmented", "a += b", "a = b"),
        ("twin", "return max(a, b)", "return min(a, b)"),
        ("compare", "return 'é' + a < b", "return 'é' + a > b"),
    ],
)
def test_operators(operator: str, before: str, after: str) -> None:
    found = mutants(f"def f(a, b):\n    {before}\n")
    assert (operator, f"    {after}") in {(m.operator, m.mutated_line) for m in found}


def test_text_and_f_strings_are_left_alone() -> None:
    assert mutants('def f():\n    return "%s" % "1 + 2 < 3"\n') == []
    assert mutants('def f():\n    return f"{1 + 2}"\n') == []
    assert mutants("def f(:\n") == []


def test_combine_changes_several_lines() -> None:
    first, *others = mutants(CLAMP)
    last = others[-1]
    changes = {m.line: (m.original_line, m.mutated_line) for m in (first, last)}
    lines = source_lines(combine(CLAMP, changes))
    assert lines[first.line - 1] == first.mutated_line + "\n"
    assert lines[last.line - 1] == last.mutated_line + "\n"
    with pytest.raises(ValueError, match="line 1 is not"):
        combine(CLAMP, {1: ("nonsense", "x")})


names = st.sampled_from(["a", "b", "c"])
atoms = st.one_of(names, st.integers(-9, 99).map(str), st.just("'é\\n'"), st.just("True"))
exprs = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+ - * // % < <= == and or in".split()), inner).map(
            lambda t: f"({t[0]}) {t[1]} ({t[2]})"
        ),
        inner.map(lambda e: f"not ({e})"),
        inner.map(lambda e: f"-({e})"),
        st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})"),
        st.tuples(names, inner).map(lambda t: f"{t[0]}[{t[1]}:]"),
    ),
    max_leaves=6,
)
breaks = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=60)
@given(st.lists(exprs, min_size=1, max_size=4), breaks)
def test_any_program(values: list[str], newline: str) -> None:
    lines = ["def f(a, b):", *(f"    c = {value}  # é" for value in values), "    return c", ""]
    source = newline.join(lines)
    found = mutants(source)
    assert found == mutants(source)
    for mutant in found:
        check(source, mutant)
