"""The functions shipped in ``envs/corpus``, read as text: nothing of them is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.resources import files

from palestra.envs.programs import Function

PACKAGE = "palestra.envs"


def shipped_functions() -> list[Function]:
    """Every function of the corpus with its cases, in order of file name and text.

    Raises ``ValueError`` naming the module when one is not of the expected form.
    """
    folder = files(PACKAGE).joinpath("corpus")
    modules = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".py")), key=lambda f: f.name
    )
    return [
        function
        for module in modules
        if module.name != "__init__.py"
        for function in parse(module.read_text(encoding="utf-8"), name=module.name)
    ]


def parse(text: str, *, name: str) -> Iterator[Function]:
    """The functions of one module that its literal ``CASES`` names.

    ``CASES`` maps a function name to a list of ``(arguments tuple, expected value)``.
    """
    tree = ast.parse(text, filename=name)
    cases = _cases(tree)
    if cases is None:
        raise ValueError(f"{name}: no literal dict CASES")
    named = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for key, rows in zip(cases.keys, cases.values, strict=True):
        function = key.value if isinstance(key, ast.Constant) else None
        if not isinstance(function, str) or function not in named:
            raise ValueError(f"{name}: CASES names no function of this file: {function!r}")
        source = ast.get_source_segment(text, named[function])
        yield Function(name=function, source=f"{source}\n", cases=_rows(rows, f"{name} {function}"))


def _cases(tree: ast.Module) -> ast.Dict | None:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "CASES":
            value = getattr(node, "value", None)
            return value if isinstance(value, ast.Dict) else None
    return None


def _rows(rows: ast.expr, where: str) -> tuple[tuple[str, str], ...]:
    found = []
    for row in rows.elts if isinstance(rows, ast.List | ast.Tuple) else ():
        if not isinstance(row, ast.Tuple) or len(row.elts) != 2:
            raise ValueError(f"{where}: a case is not (arguments, expected)")
        arguments, expected = row.elts
        if not isinstance(ast.literal_eval(arguments), tuple):
            raise ValueError(f"{where}: arguments {ast.unparse(arguments)} are not a tuple")
        ast.literal_eval(expected)
        # The text, not the value: the repr of a set differs from process to process.
        found.append((ast.unparse(arguments), ast.unparse(expected)))
    if not found:
        raise ValueError(f"{where}: no cases")
    return tuple(found)
