"""``format:path`` turned into tasks: the one place that knows which formats there are.

``repair:``                shipped functions, broken (also ``palestra/Repair-v0``)
``repair:mbpp:PATH``       functions of an MBPP file, broken
``repair:DIR``             Exercism exercises or a package with unittest files, broken
``repair-repo:DIR``        a package with its tests, or exercises, broken; see ``repair_repository``
``mbpp:PATH``              MBPP rows (.jsonl, sanitized .json, or in the HumanEval form)
``humaneval:PATH``         HumanEval rows; those of EvalPlus, MBXP and MultiPL-E, too
``livecodebench:PATH``, ``codecontests:PATH``, ``apps:PATH``, ``bigcodebench:PATH``
``exercism:DIR``           Exercism exercises, to write from their stubs
``quixbugs:DIR``           a checkout of QuixBugs
``swebench:PATH``          SWE-bench rows (.json, .jsonl, .parquet); see ``swebench``
``math:PATH``              rows of GSM8K, MATH, AIME and the like
``harbor:DIR``             Harbor task directories; see ``harbor``
``NAMESPACE/Name-v0``      the tasks of a registered environment (``Env.tasks``)
``module:Class``           the tasks of an environment that is not registered
``verifiers:NAME``         an environment of the package verifiers; see ``adapters.verifiers``
``openenv:URL``            an OpenEnv server; see ``adapters.openenv``
``jsonl:PATH``             tasks of your own; the format is described in ``task_json``

Files are ``.jsonl``, ``.jsonl.gz``, ``.parquet`` or a JSON array. They are read once, row by row,
to find out what is wrong with which; rows are read again, and tasks made, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palestra.envs.corpus_loader import shipped_functions
from palestra.envs.folders import folder_programs
from palestra.envs.formats import FOLDERS, ROWS
from palestra.envs.harbor import harbor_tasks
from palestra.envs.lazy_source import entries, env_of, lazy_tasks, one_env
from palestra.envs.packages import packages
from palestra.envs.programs import Function, Program, program
from palestra.envs.records import mbpp_function
from palestra.envs.registry import ADAPTERS, make
from palestra.envs.repair import Repair
from palestra.envs.repair_repository import build_repository
from palestra.envs.repair_source import RepairOptions, build
from palestra.envs.rows import BadRow, read_rows, record
from palestra.envs.swe import SWE
from palestra.envs.swebench import swebench_tasks
from palestra.envs.taskset import Skipped, TaskSet
from palestra.envs.validate import Validator
from palestra.rl.errors import UserError
from palestra.rl.plugins import in_reach
from palestra.rl.types import CheckRunner, SandboxProvider, Task

FORMATS = (
    *("repair:", "repair:mbpp:PATH", "repair:DIR", "repair-repo:DIR"),
    *(f"{name}:PATH" for name in ROWS),
    *(f"{name}:DIR" for name in FOLDERS),
    "swebench:PATH",
    "harbor:DIR",
    "verifiers:NAME",
    "openenv:URL",
    "MODULE:CLASS",
)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Settings for programs that are tested by unittest files, whose checks cost more."""

    max_mutants: int = 24
    timeout: float = 10.0
    batch: int = 12


async def load(
    source: str,
    *,
    run_checks: CheckRunner,
    provider: SandboxProvider,
    seed: int,
    split: str | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    options: RepairOptions | None = None,
) -> TaskSet:
    """The tasks of ``source``; bad rows and useless programs are in ``skipped``.

    ``split`` and ``limit`` keep a part; ``cache`` is a folder for validation results; ``options``
    says more about repair tasks (its seed, split and limit are replaced by those given here).
    Raises ``UserError`` for an unknown format or an unreadable path.
    """
    kind, _, rest = source.partition(":")
    if source in ("repair", Repair.name):
        kind, rest = "repair", ""
    if kind == "repair":
        chosen = replace(options or RepairOptions(), seed=seed, split=split, limit=limit)
        validator = Validator(
            run_checks=run_checks, provider=provider, cache=cache, screen=not chosen.timeouts
        )
        return await _repair(source, rest, chosen, validator)
    if kind == "repair-repo":
        return await build_repository(
            packages(_path(kind, rest)),
            source=source,
            options=replace(options or RepairOptions(), seed=seed, split=split, limit=limit),
            validator=Validator(run_checks=run_checks, provider=provider, cache=cache),
        )
    if "/" in kind or kind in ADAPTERS:
        return _own(source, run_checks, seed, split, limit)
    if kind == "swebench":
        path, most = _path(kind, rest), limit if split is None else None
        found, bad = await swebench_tasks(path, provider, cache=cache, limit=most)
        return _part(source, SWE.name, found, bad, split, limit)
    if kind == "harbor":
        path, most = _path(kind, rest), limit if split is None else None
        found, bad = await harbor_tasks(path, provider, cache=cache, limit=most)
        return _part(
            source, one_env(source, {env_of(task) for task in found}), found, bad, split, limit
        )
    if kind not in (*ROWS, *FOLDERS):
        if in_reach(kind):
            return _own(source, run_checks, seed, split, limit)
        raise UserError(f"unknown task source {source!r}; there are: {', '.join(FORMATS)}")
    found_there = entries(kind, _path(kind, rest))
    return await lazy_tasks(source, found_there, provider, split=split, limit=limit)


def _path(kind: str, rest: str) -> Path:
    if not rest:
        raise UserError(f"{kind}: needs a path, for example {kind}:data/{kind}")
    return Path(rest)


def _own(
    name: str, run_checks: CheckRunner, seed: int, split: str | None, limit: int | None
) -> TaskSet:
    """The tasks that an environment has itself."""
    return _part(name, name, make(name, run_checks).tasks(seed), (), split, limit)


def _part(
    source: str,
    env: str,
    tasks: Sequence[Task],
    skipped: tuple[Skipped, ...],
    split: str | None,
    limit: int | None,
) -> TaskSet:
    kept = tuple(t for t in tasks if split is None or t.labels.get("split") == split)[:limit]
    return TaskSet(source=source, env=env, tasks=kept, skipped=skipped)


async def _repair(source: str, rest: str, options: RepairOptions, validator: Validator) -> TaskSet:
    skipped: tuple[Skipped, ...] = ()
    if not rest:
        programs = [program(function) for function in shipped_functions()]
    elif rest.startswith("mbpp:"):
        functions, skipped = _functions(Path(rest.removeprefix("mbpp:")))
        programs = [program(function) for function in functions]
    else:
        found = list(folder_programs(Path(rest)))
        programs = [item for item in found if isinstance(item, Program)]
        skipped = tuple(item for item in found if isinstance(item, Skipped))
        unit = Unit()
        options = replace(options, max_mutants=options.max_mutants or unit.max_mutants)
        validator = replace(validator, timeout=unit.timeout, batch=unit.batch, screen=False)
    tasks = await build(programs, source=source, options=options, validator=validator)
    return replace(tasks, skipped=skipped + tasks.skipped)


def _functions(path: Path) -> tuple[list[Function], tuple[Skipped, ...]]:
    """The functions of MBPP rows, and the rows that have none to break, by number."""
    made: list[Function] = []
    skipped: list[Skipped] = []
    for number, row in read_rows(path):
        try:
            made.append(mbpp_function(record(row)))
        except BadRow as error:
            skipped.append(Skipped(id=f"{path.name} row {number}", reason=str(error)))
    return made, tuple(skipped)
