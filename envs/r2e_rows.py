"""Rows of R2E-Gym: checked, their commit as a diff, and what they expect as tests of ours.

``docker_image, repo_name, commit_hash, problem_statement, parsed_commit_content,
execution_result_content, expected_output_json``, the last three as JSON or its text; other fields
(``prompt``, ``modified_files``, ``relevant_files``) are not read. The commit is the solution; its
tests come with the row and lie in ``r2e_tests``. What is expected are words of a log, ``PASSED`` or
not, by names without a file: no log of ours is read, so only tests that are to pass count, and each
is looked up by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from palestra.envs.rows import BadRow, json_field, text_field
from palestra.envs.swebench_rows import MAX_TESTS, Instance
from palestra.rl.types import Json

FOLDER = "r2e_tests"
HIDDEN = (f"/{FOLDER}", f"/root/{FOLDER}", FOLDER)
"""Where published images have the tests: there, or in the repository; no agent may find them."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ISSUE = re.compile(r"\[ISSUE\](.*)\[/ISSUE\]", re.DOTALL)
_SIGNS = {"context": " ", "added": "+", "deleted": "-", "note": "\\ "}
_TESTS = frozenset({"test", "tests", "Test", "Tests"})


class _Path(BaseModel):
    path: str


class _Header(BaseModel):
    file: _Path
    misc_line: str | None = None


class _Range(BaseModel):
    start: int
    length: int | None = None


class _Place(BaseModel):
    old_range: _Range
    new_range: _Range


class _Line(BaseModel):
    content: str
    type: Literal["context", "added", "deleted", "note"]


class _Lines(BaseModel):
    all_lines: list[_Line]


class _Hunk(BaseModel):
    descriptor: _Place
    line_group: _Lines


class _FileDiff(BaseModel):
    header: _Header
    minus_file: _Path | None = None
    plus_file: _Path | None = None
    hunks: list[_Hunk] = []


class _Commit(BaseModel):
    file_diffs: list[_FileDiff]
    old_commit_hash: str = ""


class _Run(BaseModel):
    test_file_names: list[str]
    test_file_codes: list[str]


Part = TypeVar("Part", bound=BaseModel)


def is_r2e(row: Mapping[str, Json]) -> bool:
    """Whether a row is one of R2E-Gym."""
    return "expected_output_json" in row


def r2e_instance(row: Mapping[str, Json]) -> Instance:
    """A row, checked; raises ``BadRow`` naming the field.

    ``base_commit`` is the parent of its commit, for a repository that is on this machine.
    """
    repo, commit = text_field(row, "repo_name"), text_field(row, "commit_hash")
    parsed = _part(row, "parsed_commit_content", _Commit)
    patch = "".join(_diff(each) for each in parsed.file_diffs if _is_work(each.header.file.path))
    if not patch:
        raise BadRow("field parsed_commit_content: changes no Python file but tests")
    files = dict(_test_files(_part(row, "execution_result_content", _Run)))
    statement = text_field(row, "problem_statement")
    issue = _ISSUE.search(statement)
    return Instance(
        id=text_field(row, "instance_id") if row.get("instance_id") else f"{repo}__{commit}",
        repo=repo,
        base_commit=parsed.old_commit_hash or f"{commit}^",
        image=text_field(row, "docker_image"),
        problem=issue.group(1).strip() if issue else statement,
        patch=patch,
        test_patch="",
        tests=tuple(_suite_id(name, files) for name in _passing(row)),
        bug=False,
        test_files=files,
    )


def _part(row: Mapping[str, Json], name: str, kind: type[Part]) -> Part:
    try:
        return kind.model_validate(json_field(row, name))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRow(f"field {name}: {where}{': ' if where else ''}{first['msg']}") from error


def _passing(row: Mapping[str, Json]) -> list[str]:
    """Names of the tests that are to pass, as ``Class.test`` or ``test[parameters]``."""
    expected = json_field(row, "expected_output_json")
    if not isinstance(expected, dict) or not all(
        isinstance(word, str) for word in expected.values()
    ):
        raise BadRow("field expected_output_json: not a word for each test")
    passing = (_COLOUR.sub("", key) for key, word in expected.items() if word == "PASSED")
    found = list(dict.fromkeys(name.partition(" - ")[0] for name in passing))
    if not 0 < len(found) <= MAX_TESTS:
        raise BadRow(f"field expected_output_json: {len(found)} tests are to pass")
    return found


def _suite_id(name: str, files: Mapping[str, str]) -> str:
    """The id of a ``SuiteCheck`` for a test of that name in one of the files."""
    plain, bracket, parameters = name.partition("[")
    parts = plain.split(".")
    if not all(part.isidentifier() for part in parts):
        raise BadRow(f"field expected_output_json: {name[:80]!r} is no test of pytest")
    top = re.compile(rf"^(class|def|async def) {re.escape(parts[0])}\b", re.MULTILINE)
    test = re.compile(rf"^ *(async )?def {re.escape(parts[-1])}\(", re.MULTILINE)
    paths = [path for path, text in files.items() if top.search(text)]
    # Two files may have a class of one name; only one of them need have the test itself.
    paths = [path for path in paths if test.search(files[path])] if len(paths) > 1 else paths
    if len(paths) != 1:
        where = f"in {len(paths)} of the test files"
        raise BadRow(f"field expected_output_json: {name[:80]!r} is {where}")
    return f"{paths[0]}::{'::'.join(parts)}{bracket}{parameters}"


def _test_files(run: _Run) -> Iterator[tuple[str, str]]:
    if len(run.test_file_names) != len(run.test_file_codes):
        raise BadRow("field execution_result_content: test_file_names and _codes differ in number")
    for name, text in zip(run.test_file_names, run.test_file_codes, strict=True):
        inside = name.removeprefix(f"{FOLDER}/")
        if "\0" in name or {"", ".", ".."} & set(inside.split("/")):
            raise BadRow(f"field execution_result_content: {name[:80]!r} is no file of {FOLDER}")
        yield f"{FOLDER}/{inside}", text_field({"test_file_codes": text}, "test_file_codes")


def _is_work(path: str) -> bool:
    """Whether a file is part of the solution: Python, and no test."""
    place = PurePosixPath(path)
    named = place.name.startswith("test_") or place.name.endswith("_test.py")
    return place.suffix == ".py" and not named and not _TESTS & set(place.parts)


def _diff(file: _FileDiff) -> str:
    path = file.header.file.path
    lines = [f"diff --git a/{path} b/{path}", *filter(None, [file.header.misc_line])]
    if file.minus_file and file.plus_file:
        lines += [f"--- {file.minus_file.path}", f"+++ {file.plus_file.path}"]
    for hunk in file.hunks:
        old, new = hunk.descriptor.old_range, hunk.descriptor.new_range
        lines.append(f"@@ -{_range(old)} +{_range(new)} @@")
        lines += [f"{_SIGNS[line.type]}{line.content}" for line in hunk.line_group.all_lines]
    return "".join(f"{line}\n" for line in lines)


def _range(lines: _Range) -> str:
    return f"{lines.start}" if lines.length is None else f"{lines.start},{lines.length}"
