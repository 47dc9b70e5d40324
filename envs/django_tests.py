"""Django projects among repositories: what runs their tests, and tests that are named by a text."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping

from palestra.envs.syntax import parse
from palestra.rl.types import File

_OWN = "tests/runtests.py"
_SETTINGS = b"DJANGO_SETTINGS_MODULE"


def django_script(files: Mapping[str, File], tests: Collection[str]) -> str:
    """The path of what runs the ``tests`` (paths) of a Django project, or of Django itself: see
    ``SuiteCheck.django``. Empty where the repository is neither.

    Example: ``django_script({"manage.py": script}, ["shop/tests.py"]) == "manage.py"``
    """
    if _OWN in files and "django/test/runner.py" in files:
        return _OWN
    for path in sorted(files, key=lambda path: (path.count("/"), path)):
        folder, _, name = f"/{path}".rpartition("/")
        below = all(f"/{test}".startswith(f"{folder}/") for test in tests)
        if name == "manage.py" and below and _SETTINGS in files[path].data:
            return path
    return ""


def described(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """First line of the docstring, and id, of each method of a test class: ``unittest`` logs a test
    that has one by it, and so some rows name it."""
    for path, text in texts.items():
        for said, name in _docstrings(text) if path.endswith(".py") else ():
            yield said, f"{path}::{name}"


def _docstrings(text: str) -> Iterator[tuple[str, str]]:
    try:
        classes = [node for node in parse(text).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError):
        return
    for case in classes:
        for method in case.body:
            if isinstance(method, ast.FunctionDef) and (said := ast.get_docstring(method)):
                yield said.splitlines()[0].strip(), f"{case.name}::{method.name}"
