"""QuixBugs: small programs with one wrong line each, and their tests.

Tests are published as pytest functions, most of them run once per line of a JSON file. Each becomes
a check of its own whose code runs outside of the candidate's process.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from palestra.envs.folders import text_within
from palestra.envs.programs import visible_part
from palestra.envs.repair import Repair, numbered
from palestra.envs.rows import BadRow
from palestra.envs.syntax import parse
from palestra.rl.types import Check, Json, ScriptCheck, Task

CHECK_S = 10.0
"""Seconds for one test of a program that is slow in some (our default): the slowest that is not
left out takes two with a correct program. Wrong programs that never end cost as much."""

_APPROX = """\
class pytest:
    class approx:
        def __init__(self, expected, abs):
            self.expected, self.abs = expected, abs
        def __eq__(self, got):
            return -self.abs <= got - self.expected <= self.abs
"""


def quixbugs_names(folder: Path) -> list[str]:
    """The programs of a checkout: those that come with a correct version and with tests."""
    return [
        path.stem
        for path in sorted((folder / "python_programs").glob("*.py"))
        if (folder / "correct_python_programs" / path.name).is_file()
        and (folder / _tests(path.stem)).is_file()
    ]


def quixbugs_task(folder: Path, name: str) -> Task:
    """The task to repair one program; raises ``BadRow``."""
    file = f"{name}.py"
    broken = text_within(folder, f"python_programs/{file}")
    left_out: list[str] = []
    checks = tuple(_checks(folder, name, left_out))
    if not checks:
        raise BadRow("no tests")
    beside = "python_testcases/node.py"
    return Task(
        id=f"quixbugs/{name}",
        source=Repair.name,
        kind="repair",
        prompt=f"Fix {file}\n{numbered(broken)}",
        files={file: broken},
        reference={file: text_within(folder, f"correct_python_programs/{file}")},
        artifacts=(file,),
        visible=visible_part(checks),
        hidden=checks,
        test_files={"node.py": text_within(folder, beside)} if (folder / beside).is_file() else {},
        labels={"left_out": "; ".join(left_out)} if left_out else {},
        check_s=CHECK_S if left_out else 0.0,
    )


def _checks(folder: Path, name: str, left_out: list[str]) -> Iterator[Check]:
    """A check per test; names of tests that the authors skip as too slow go to ``left_out``."""
    try:
        module = parse(text_within(folder, _tests(name)))
    except (SyntaxError, ValueError) as error:
        raise BadRow(f"test_{name}.py: does not parse") from error
    tests = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    beside = [node for node in module.body if node not in tests and not _loads(node)]
    number = 0
    for test in tests:
        arguments = [argument.arg for argument in test.args.args]
        for line, case in enumerate(_cases(folder, name) if arguments else [None], 1):
            if case is not None and case[0] in _too_slow(test):
                left_out.append(f"case {line} is skipped by the authors as too slow")
                continue
            yield ScriptCheck(
                id=f"{name}#{number}",
                module=name,
                names=(name,),
                code=_code(beside, test, arguments, case),
            )
            number += 1


def _code(
    beside: Sequence[ast.stmt], test: ast.FunctionDef, arguments: Sequence[str], case: Json
) -> str:
    parts = [*map(ast.unparse, beside)]
    if arguments:
        # What stands beside may turn the lists of JSON into what the test wants.
        parts = [f"testdata = {[case]!r}", *parts, f"{', '.join(arguments)} = testdata[0]"]
    body = [node for node in test.body if not _skips(node)]
    parts += [*map(ast.unparse, body)]
    code = "\n".join(parts) + "\n"
    return f"{_APPROX}{code}" if "pytest." in code else code


def _loads(node: ast.stmt) -> bool:
    """Whether a statement is about pytest or about loading programs and data, which we do."""
    words = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        modules = [node.module or ""]
    return bool(
        {"pytest", "load_json_testcases"} & words or {"pytest", "load_testdata"} & {*modules}
    )


def _skips(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.body[0]).startswith("pytest.skip(")


def _too_slow(test: ast.FunctionDef) -> list[Json]:
    """The inputs that a test skips."""
    lists = [
        item
        for node in test.body
        if isinstance(node, ast.If) and _skips(node)
        for item in ast.walk(node.test)
        if isinstance(item, ast.List)
    ]
    try:
        return [ast.literal_eval(item) for item in lists]
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise BadRow(f"{test.name}: what it skips is no literal") from error


def _cases(folder: Path, name: str) -> list[tuple[Json, Json]]:
    """Input and output per line."""
    found: list[tuple[Json, Json]] = []
    lines = text_within(folder, f"json_testcases/{name}.json").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            given, wanted = json.loads(line)
            json.dumps([given, wanted], allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadRow(f"{name}.json line {number}: not [input, output]") from error
        found.append((given if isinstance(given, list) else [given], wanted))
    return found


def _tests(name: str) -> str:
    return f"python_testcases/test_{name}.py"
