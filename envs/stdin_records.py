"""Problems that programs solve by reading standard input: CodeContests, APPS and records like them.

Outputs are compared as these benchmarks do it: word by word, decimals within a tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from palestra.envs.complete import SOLUTION, Complete
from palestra.envs.records import identity
from palestra.envs.rows import BadRow, json_field, text_field
from palestra.rl.types import CallCheck, Check, Json, ProgramCheck, Task

TOLERANCE = 1e-5
"""What AlphaCode allows (the code of CodeContests); APPS allows as much relative to the value."""

SLOWNESS = 3.0
"""Limits of contests are for compiled programs; a Python program gets so many times as much (our
default)."""

MAX_SECONDS = 60.0
MAX_VISIBLE = 4
_ASKED = f"Write a program in the file {SOLUTION} that reads standard input and writes to standard"
_ASKED += " output.\n"


def contest_task(row: Mapping[str, Json]) -> Task:
    """A task from a CodeContests problem (``name, description, public_tests, private_tests,
    generated_tests, solutions, time_limit``) or from ``id, content, test`` with ``test`` a list of
    ``{"input": {"stdin"}, "output": {"stdout"}}``.

    Public tests are visible. Raises ``BadRow``.
    """
    for name in ("input_file", "output_file"):
        if row.get(name):
            raise BadRow(f"field {name}: the program would have to use a file of that name")
    public = list(_cases(row, "public_tests"))
    names = ("private_tests", "generated_tests", "test", "tests")
    cases = [*public, *(case for name in names for case in _cases(row, name))]
    return stdin_task(
        f"CodeContests/{identity(row, 'task_id', 'id', 'name')}",
        text=text_field(row, "description", "content", "question"),
        cases=cases,
        visible=len(public),
        reference=_reference(row),
        check_s=SLOWNESS * _seconds(row.get("time_limit")),
    )


def apps_task(row: Mapping[str, Json]) -> Task:
    """A task from an APPS problem: ``problem_id, question, input_output, solutions, starter_code``.

    With ``fn_name`` in ``input_output`` a function is called, else a program is run. Raises
    ``BadRow``.
    """
    name = f"APPS/{identity(row, 'problem_id', 'id', 'task_id')}"
    tests = json_field(row, "input_output")
    if not isinstance(tests, dict):
        raise BadRow("field input_output: no tests")
    given, wanted = tests.get("inputs"), tests.get("outputs")
    if not isinstance(given, list) or not isinstance(wanted, list) or len(given) != len(wanted):
        raise BadRow("field input_output: inputs and outputs are not lists of one length")
    solutions = json_field(row, "solutions") or []
    if not isinstance(solutions, list) or not all(isinstance(text, str) for text in solutions):
        raise BadRow("field solutions: not a list of strings")
    reference = text_field({"solutions": solutions[0]}, "solutions") if solutions else ""
    starter = text_field(row, "starter_code") if row.get("starter_code") else ""
    question = text_field(row, "question")
    function = tests.get("fn_name")
    if not function:
        cases = [(_joined(i), (_joined(o),)) for i, o in zip(given, wanted, strict=True)]
        return stdin_task(name, text=question, cases=cases, reference=reference)
    if not isinstance(function, str) or not function.isidentifier():
        raise BadRow("field input_output: fn_name is not a name")
    if all(isinstance(value, list) and len(value) == 1 for value in wanted):
        wanted = [value[0] for value in wanted]
    method = "class Solution" in (starter + reference)
    calls = list(zip(given, wanted, strict=True))
    return function_task(
        name,
        text=question,
        starter=starter,
        function=f"Solution().{function}" if method else function,
        calls=calls,
        reference=reference,
    )


def stdin_task(
    name: str,
    *,
    text: str,
    cases: Sequence[tuple[str, tuple[str, ...]]],
    visible: int = 0,
    reference: str = "",
    check_s: float = 0.0,
    tolerance: float = TOLERANCE,
    by_line: bool = False,
) -> Task:
    """A problem whose ``cases`` are inputs, each with the outputs that are accepted; the first
    ``visible`` are shown. Raises ``BadRow``."""
    checks = tuple(
        ProgramCheck(
            id=f"{name}#{number}",
            argv=("python3", SOLUTION),
            stdin=stdin,
            expected=outputs,
            tolerance=tolerance,
            by_line=by_line,
        )
        for number, (stdin, outputs) in enumerate(cases)
    )
    return _task(name, f"{_ASKED}{text}", checks, visible, reference, check_s, labels={})


def function_task(
    name: str,
    *,
    text: str,
    starter: str,
    function: str,
    calls: Sequence[tuple[Json, Json]],
    visible: int = 0,
    reference: str = "",
    check_s: float = 0.0,
    prelude: str = "",
) -> Task:
    """A problem whose ``calls`` are lists of arguments, each with the value that is wanted.

    ``prelude`` has the imports that bare completions may rely on. Raises ``BadRow``.
    """
    checks = tuple(
        CallCheck(
            id=f"{name}#{number}",
            module=SOLUTION.removesuffix(".py"),
            function=function,
            args=repr(tuple(_list(arguments))),
            expected=repr(_finite(value)),
        )
        for number, (arguments, value) in enumerate(calls)
    )
    asked = f"Write it in the file {SOLUTION}, with all imports that it needs"
    shown = f"{asked}:\n{starter}" if starter else f"{asked}; call it {function}."
    labels = {"entry_point": function.partition("(")[0], "code_prompt": f"{prelude}{starter}"}
    prompt = f"{text}\n{shown}"
    return _task(name, prompt, checks, visible, reference, check_s, labels=labels)


def _task(
    name: str,
    prompt: str,
    checks: tuple[Check, ...],
    visible: int,
    reference: str,
    check_s: float,
    *,
    labels: Mapping[str, str],
) -> Task:
    if not checks:
        raise BadRow("no tests")
    return Task(
        id=name,
        source=Complete.name,
        kind="complete",
        prompt=prompt,
        files={SOLUTION: ""},
        reference={SOLUTION: reference} if reference else {},
        artifacts=(SOLUTION,),
        visible=checks[: min(visible, MAX_VISIBLE)],
        hidden=checks,
        labels=labels,
        check_s=check_s,
    )


def _cases(row: Mapping[str, Json], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Tests in any of the shapes they are published in: a dict of two lists, or a list of pairs."""
    tests = json_field(row, name)
    if tests is None:
        return
    if isinstance(tests, dict):
        given = tests.get("input", tests.get("inputs"))
        wanted = tests.get("output", tests.get("outputs"))
        if not isinstance(given, list) or not isinstance(wanted, list) or len(given) != len(wanted):
            raise BadRow(f"field {name}: input and output are not lists of one length")
        tests = [{"input": i, "output": o} for i, o in zip(given, wanted, strict=True)]
    if not isinstance(tests, list):
        raise BadRow(f"field {name}: not a list of tests")
    for number, test in enumerate(tests):
        if not isinstance(test, dict):
            raise BadRow(f"field {name}[{number}]: not an object")
        stdin, outputs = _inner(test, "input", "stdin"), _inner(test, "output", "stdout")
        accepted = outputs if isinstance(outputs, list) else [outputs]
        if not isinstance(stdin, str) or not all(isinstance(text, str) for text in accepted):
            raise BadRow(f"field {name}[{number}]: input or output is no text")
        if not accepted:
            raise BadRow(f"field {name}[{number}]: no output is accepted")
        yield stdin, tuple(str(text) for text in accepted)


def _inner(test: Mapping[str, Json], name: str, stream: str) -> Json:
    value = test.get(name)
    return value.get(stream) if isinstance(value, dict) else value


def _reference(row: Mapping[str, Json]) -> str:
    """The first solution in Python 3; empty where there is none."""
    if row.get("canonical_solution"):
        return text_field(row, "canonical_solution")
    found = json_field(row, "solutions")
    if isinstance(found, dict):
        languages, texts = found.get("language"), found.get("solution")
        if not isinstance(languages, list) or not isinstance(texts, list):
            raise BadRow("field solutions: language and solution are not lists")
        found = [{"language": n, "solution": t} for n, t in zip(languages, texts, strict=False)]
    for item in found if isinstance(found, list) else ():
        known = isinstance(item, dict) and item.get("language") in (3, "PYTHON3", "python3")
        if known and isinstance(item, dict):
            return text_field(item, "solution")
    return ""


def _seconds(value: Json) -> float:
    """A time limit: seconds, or ``{"seconds", "nanos"}``."""
    parts = value if isinstance(value, dict) else {"seconds": value}
    seconds, nanos = parts.get("seconds") or 0, parts.get("nanos") or 0
    if not isinstance(seconds, int | float) or not isinstance(nanos, int | float):
        raise BadRow("field time_limit: not a number of seconds")
    total = seconds + nanos * 1e-9
    if not 0 <= total <= MAX_SECONDS:
        raise BadRow(f"field time_limit: {total:g} seconds")
    return total


def _joined(value: Json) -> str:
    """Standard input or output; some records give its lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(str(line) for line in value)
    if not isinstance(value, str):
        raise BadRow("field input_output: an input or output is no text")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise BadRow("the arguments of a call are not a list")
    _finite(value)
    return value


def _finite(value: Json) -> Json:
    """The value, if it can be written as a literal."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRow(f"a value of a test is no literal: {error}") from error
    return value
