"""SWE-bench rows as tasks: ``swebench:PATH``, a JSON, JSON Lines or Parquet file of rows.

Beside it may lie ``swebench.toml``, which says where repositories are on this machine::

    [repositories."acme/calc"]
    path = "calc.git"                     # bare or not, relative to this file
    setup = ["python3 make_version.py"]   # run once per commit, in a box without network
    test = "python3 -m pytest"            # what the agent is told; it does not grade

Rows of other repositories are played in containers of the image that they name, or that has the
published name for their id; what lies in it at ``/testbed`` is the repository (``[images]`` in that
file for others: see ``swebench_start.Images``).

The agent gets the row's commit without its history. The files of ``test_patch`` and of all named
tests are laid over its work in the grading box only, where our own runner looks each test up.
Rows of R2E-Gym bring their tests along (``r2e_rows``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from palestra.envs.django_tests import django_script
from palestra.envs.parquet_rows import read_parquet
from palestra.envs.r2e_rows import is_r2e, r2e_instance
from palestra.envs.repository import without_git
from palestra.envs.rows import BadRow, read_rows, record
from palestra.envs.swe import SWE
from palestra.envs.swebench_rows import Finder, Instance, instance
from palestra.envs.swebench_start import (
    BESIDE,
    Beside,
    Workplace,
    applied,
    broken,
    image_of,
    start_of,
)
from palestra.envs.taskset import Skipped
from palestra.rl.errors import UserError
from palestra.rl.types import File, Json, SandboxProvider, SuiteCheck, Task, Tree

_PROMPT = """\
Resolve this issue in the repository that lies in the work folder. Change the code, not the tests.
{how}
{problem}"""


async def swebench_tasks(
    path: Path, provider: SandboxProvider, *, cache: Path | None = None, limit: int | None = None
) -> tuple[list[Task], tuple[Skipped, ...]]:
    """The tasks of a file of rows, and the rows that give none, by number. Raises ``UserError``."""
    place = Workplace(
        folder=path.parent, beside=_beside(path.parent / BESIDE), provider=provider, cache=cache
    )
    tasks: list[Task] = []
    skipped: list[Skipped] = []
    for number, row in _rows(path):
        if limit is not None and len(tasks) >= limit:
            break
        try:
            tasks.append(await _task(_instance(record(row)), place))
        except (BadRow, UserError) as error:
            skipped.append(Skipped(id=f"{path.name} row {number}", reason=str(error)))
    return tasks, tuple(skipped)


def _instance(row: Mapping[str, Json]) -> Instance:
    return r2e_instance(row) if is_r2e(row) else instance(row)


async def _task(row: Instance, place: Workplace) -> Task:
    whole = await start_of(row, place)
    code = without_git(whole)
    changed = applied(code, row.patch, "patch")
    if row.bug:
        start = await broken(row, whole, place)
        reference = _texts({path: code.get(path) for path in changed}, "patch")
    else:
        start, reference = whole, _texts(changed, "patch")
    tests = dict(row.test_files)
    if row.test_patch:
        tests |= _texts(applied(code, row.test_patch, "test_patch"), "test_patch")
    finder = Finder(tests, code)
    ids = dict.fromkeys(each for name in row.tests for each in finder.ids(name))
    django = django_script(code, {each.partition("::")[0] for each in ids})
    hidden = tuple(SuiteCheck(id=each, django=django) for each in ids)
    known = place.beside.repositories.get(row.repo) or place.beside.images
    return Task(
        id=row.id,
        source=SWE.name,
        kind="swe",
        prompt=_prompt(row, known.test),
        files={},
        reference=reference,
        artifacts=(),
        hidden=hidden,
        test_files={**_named(hidden, code, tests), **tests},
        labels={"repo": row.repo},
        tree=Tree(files=start),
        image=image_of(row, place.beside),
    )


def _named(
    checks: tuple[SuiteCheck, ...], code: Mapping[str, File], tests: Mapping[str, str]
) -> dict[str, str]:
    """The files of tests that are as the repository has them: the agent's do not count."""
    wanted = {check.id.partition("::")[0] for check in checks} | {check.django for check in checks}
    paths = sorted(wanted - tests.keys() - {""})
    if missing := [path for path in paths if path not in code]:
        raise BadRow(f"field FAIL_TO_PASS or PASS_TO_PASS: there is no file {missing[0]}")
    return _texts({path: code[path] for path in paths}, "PASS_TO_PASS")


def _texts(files: Mapping[str, File | None], field: str) -> dict[str, str]:
    """The files as texts, less those that are deleted; raises ``BadRow`` for what is no text."""
    found: dict[str, str] = {}
    for path, file in files.items():
        if file is not None:
            try:
                found[path] = file.data.decode()
            except UnicodeDecodeError as error:
                raise BadRow(f"field {field}: {path} is not UTF-8") from error
    return found


def _prompt(row: Instance, test: str) -> str:
    how = f"Its tests are run with: {test}\n" if test else ""
    return _PROMPT.format(how=how, problem=row.problem)


def _rows(path: Path) -> Iterator[tuple[int, Json | BadRow]]:
    return read_parquet(path) if path.name.endswith(".parquet") else read_rows(path)


def _beside(path: Path) -> Beside:
    if not path.is_file():
        return Beside.model_validate({})
    try:
        return Beside.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()
        raise UserError(f"{path}: {'; '.join(reason[1:3]) or reason[0]}") from error
