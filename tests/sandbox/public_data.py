"""Jobs made of public data sets, for tests; the data is not part of the project."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from palestra.rl.types import CheckJob, ScriptCheck, UnitCheck

_ROOT = Path(__file__).resolve().parents[2]


def data_folder(*parts: str) -> Path:
    """A folder of PALESTRA_DATA (or ../shared/data); skips without it, but fails on CI."""
    root = Path(os.environ.get("PALESTRA_DATA", _ROOT.parent / "shared" / "data"))
    folder = root.joinpath(*parts)
    if not folder.exists():
        reason = f"{folder} is absent; set PALESTRA_DATA to the folder of public data sets"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def top_names(code: str) -> tuple[str, ...]:
    """Functions, classes and variables that a module defines."""
    names: list[str] = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name.split(".")[0] for alias in node.names]
    return tuple(names)


def sanitized_mbpp() -> dict[str, CheckJob]:
    """427 references with plain asserts."""
    rows = json.loads(data_folder("mbpp", "sanitized-mbpp.json").read_text())
    jobs: dict[str, CheckJob] = {}
    for row in rows:
        names = tuple(name for name in top_names(row["code"]) if name != "*")
        imports = "\n".join(row["test_imports"])
        checks = tuple(
            ScriptCheck(id=f"{row['task_id']}#{i}", module="solution", names=names, code=code)
            for i, code in enumerate(f"{imports}\n{test}" for test in row["test_list"])
        )
        jobs[str(row["task_id"])] = CheckJob(files={"solution.py": row["code"]}, checks=checks)
    return jobs


def mxeval_mbpp() -> dict[str, CheckJob]:
    """974 references with a ``check(candidate)`` function each."""
    lines = data_folder("mbpp", "mxeval_mbpp_release_v1.jsonl").read_text().splitlines()
    jobs: dict[str, CheckJob] = {}
    for row in map(json.loads, lines):
        code = row["prompt"] + row["canonical_solution"]
        check = ScriptCheck(
            id=row["task_id"],
            module="solution",
            names=(row["entry_point"],),
            code=f"_candidate = {row['entry_point']}\n{row['test']}\ncheck(_candidate)",
        )
        jobs[row["task_id"]] = CheckJob(files={"solution.py": code}, checks=(check,))
    return jobs


def exercism() -> dict[str, CheckJob]:
    """Exercises with reference, tests and helpers."""
    jobs: dict[str, CheckJob] = {}
    for folder in sorted(data_folder("exercism-python", "practice").iterdir()):
        tests = {p.name: p.read_text() for p in folder.glob("*.py") if p.stem != module_of(folder)}
        checks = tuple(
            UnitCheck(id=f"{Path(name).stem}.{case.name}.{method.name}")
            for name, text in sorted(tests.items())
            for case in ast.parse(text).body
            if isinstance(case, ast.ClassDef)
            for method in case.body
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
        )
        files = {
            (f"{module_of(folder)}.py" if p.name == "example.py" else p.name): p.read_text()
            for p in (folder / ".meta").glob("*.py")
        }
        jobs[folder.name] = CheckJob(files=files, checks=checks, test_files=tests)
    return jobs


def module_of(folder: Path) -> str:
    """Name of the module that an exercise asks for."""
    return folder.name.replace("-", "_")
