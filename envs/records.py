"""Function-level benchmark records as tasks: HumanEval and MBPP, as they are published."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from palestra.envs.complete import SOLUTION, Complete
from palestra.envs.evalplus import CHECK_S, extra_checks
from palestra.envs.programs import Function
from palestra.envs.rows import BadRow, list_field, text_field
from palestra.envs.syntax import parse
from palestra.rl.types import Check, Json, ScriptCheck, Task

MODULE = SOLUTION.removesuffix(".py")


def humaneval_task(row: Mapping[str, Json]) -> Task:
    """A task from ``task_id, prompt, entry_point, canonical_solution, test``, or from what EvalPlus
    has instead of a test or beside it.

    The hidden check is the record's ``check`` function, called with the entry point. Raises
    ``BadRow``.
    """
    prompt, entry = text_field(row, "prompt"), text_field(row, "entry_point")
    body = text_field(row, "canonical_solution")
    if not entry.isidentifier():
        raise BadRow("field entry_point: not a name")
    identity = _identity(row)
    hidden: list[Check] = list(extra_checks(row, name=identity, module=MODULE))
    if "test" in row or not hidden:
        test = text_field(row, "test")
        # Bound first: an entry point may itself be called check.
        code = f"_candidate = {entry}\n{test}\ncheck(_candidate)\n"
        names = (entry, *sorted((_functions(prompt) & _used(test)) - {entry}))
        hidden.insert(0, ScriptCheck(id=f"{identity}#0", module=MODULE, names=names, code=code))
    return _task(
        identity,
        prompt=f"Complete this program in the file {SOLUTION}:\n{prompt}",
        reference=prompt + body,
        visible=(),
        hidden=tuple(hidden),
        labels={"entry_point": entry, "code_prompt": prompt},
        check_s=CHECK_S if len(hidden) > 1 else 0.0,
    )


def mbpp_task(row: Mapping[str, Json]) -> Task:
    """A task from ``task_id, text | prompt, code, test_list`` and test setup or imports.

    Each assertion is one hidden check; the first is visible, and in the prompt because it shows the
    name and the arguments that are wanted. Raises ``BadRow``.
    """
    identity = _identity(row)
    wanted, code = text_field(row, "text", "prompt"), text_field(row, "code")
    tests = list_field(row, "test_list")
    if not tests:
        raise BadRow("field test_list: empty")
    setup = _setup(row)
    names = _functions(code)
    checks = tuple(
        ScriptCheck(
            id=f"{identity}#{number}",
            module=MODULE,
            names=tuple(sorted(names & _used(setup + test))),
            code=_imports(code, _used(test)) + setup + test,
        )
        for number, test in enumerate(tests)
    )
    if not any(check.names for check in checks):
        raise BadRow("field test_list: calls nothing that field code defines")
    return _task(
        identity,
        prompt=f"{wanted}\nWrite it in the file {SOLUTION}. It must pass:\n{tests[0]}",
        reference=code,
        visible=checks[:1],
        hidden=checks,
        labels={"entry_point": next(check.names[0] for check in checks if check.names)},
    )


def mbpp_function(row: Mapping[str, Json]) -> Function:
    """The code of a record whose assertions all are ``assert f(literals) == literal``.

    Raises ``BadRow`` for every other record.
    """
    code, tests = text_field(row, "code"), list_field(row, "test_list")
    if _setup(row).strip():
        raise BadRow("field test_setup_code: tests need more than the function")
    cases = [_case(test) for test in tests]
    names = {name for name, _, _ in cases}
    if len(names) != 1 or not names <= _functions(code):
        raise BadRow("field test_list: not about one function of field code")
    source = "\n".join(line.rstrip() for line in code.strip().split("\n")) + "\n"
    return Function(name=names.pop(), source=source, cases=tuple((a, e) for _, a, e in cases))


def identity(row: Mapping[str, Json], *names: str) -> str:
    """The first of these fields, as text; raises ``BadRow``."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return text_field(row, name)
    raise BadRow(f"field {' or '.join(names)}: missing or not a string or number")


def _identity(row: Mapping[str, Json]) -> str:
    found = identity(row, "task_id")
    return f"MBPP/{found}" if isinstance(row["task_id"], int) else found


def _setup(row: Mapping[str, Json]) -> str:
    parts = list_field(row, "test_imports", optional=True)
    if row.get("test_setup_code"):
        parts.append(text_field(row, "test_setup_code"))
    return "".join(f"{part}\n" for part in parts)


def _task(
    identity: str,
    *,
    prompt: str,
    reference: str,
    visible: tuple[Check, ...],
    hidden: tuple[Check, ...],
    labels: Mapping[str, str],
    check_s: float = 0.0,
) -> Task:
    return Task(
        id=identity,
        source=Complete.name,
        kind="complete",
        prompt=prompt,
        files={SOLUTION: ""},
        reference={SOLUTION: reference},
        artifacts=(SOLUTION,),
        visible=visible,
        hidden=hidden,
        labels=labels,
        check_s=check_s,
    )


def _functions(code: str) -> set[str]:
    """Top-level functions and classes of a program that may stop in the middle of one."""
    for text in (code, f"{code}\n    pass\n"):
        try:
            body = parse(text).body
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return {node.name for node in body if isinstance(node, kinds)}
    raise BadRow("field code or prompt: does not parse")


def _imports(code: str, used: set[str]) -> str:
    """The imports of a reference whose names its tests use; a candidate's are not asked for."""
    try:
        body = parse(code).body
    except (SyntaxError, ValueError):
        return ""
    found = [
        ast.unparse(node)
        for node in body
        if isinstance(node, ast.Import)
        and any((item.asname or item.name.split(".")[0]) in used for item in node.names)
    ]
    return "".join(f"{line}\n" for line in found)


def _used(code: str) -> set[str]:
    try:
        nodes: Iterable[ast.AST] = ast.walk(parse(code))
    except (SyntaxError, ValueError) as error:
        raise BadRow("field test or test_list: does not parse") from error
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _case(test: str) -> tuple[str, str, str]:
    """``assert f(1, 2) == 3`` as ``("f", "(1, 2)", "3")``; raises ``BadRow`` for other shapes."""
    bad = BadRow("field test_list: not of the form assert f(literals) == literal")
    try:
        statement = parse(test.strip()).body[0]
        compared = statement.test if isinstance(statement, ast.Assert) else None
        if not isinstance(compared, ast.Compare) or not isinstance(compared.ops[0], ast.Eq):
            raise bad
        call, expected = compared.left, compared.comparators[0]
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            raise bad
        arguments = ast.Tuple(elts=call.args, ctx=ast.Load())
        ast.literal_eval(arguments)
        ast.literal_eval(expected)
    except (SyntaxError, ValueError, IndexError, TypeError) as error:
        raise bad from error
    return call.func.id, ast.unparse(arguments), ast.unparse(expected)
