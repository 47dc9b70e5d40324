"""Repair tasks made from correct programs: mutate, keep what the checks notice, split, label."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from palestra.envs.bugs import on_different_lines, rank
from palestra.envs.feedback import hung, report
from palestra.envs.mutate import combine, mutants
from palestra.envs.programs import Program, with_unique_ids
from palestra.envs.repair import Repair, numbered
from palestra.envs.repair_demos import LineEdit, labels
from palestra.envs.taskset import Skipped, TaskSet
from palestra.envs.validate import Validator
from palestra.rl.types import CheckJob, CheckResult, Task

TRAIN, MUTATIONS, FUNCTIONS = "train", "heldout_mutations", "heldout_functions"
SPLITS = (TRAIN, MUTATIONS, FUNCTIONS)


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What tasks are made.

    ``seed`` decides the splits and nothing else does. ``split`` keeps one of them. ``mutations`` is
    the largest number of broken lines in a task; every number from 1 up to it occurs. ``max_lines``
    and ``limit`` bound the size of a file and the number of tasks, ``max_mutants`` the candidates
    tried per program. ``timeouts`` keeps programs that a check had to stop. In repositories
    ``max_lines`` is about functions, ``max_mutants`` about each of them, and ``show_failing_tests``
    leaves the tests that a bug breaks where the agent sees them.

    Example: ``RepairOptions(seed=0, split="train", limit=100)``
    """

    seed: int = 0
    split: str | None = None
    limit: int | None = None
    max_lines: int | None = None
    max_mutants: int | None = None
    mutations: int = 1
    heldout_functions: float = 0.2
    heldout_mutations: float = 0.25
    timeouts: bool = False
    show_failing_tests: bool = False


@dataclass(frozen=True, kw_only=True)
class _Broken:
    """A candidate task: whole files, what is wrong in them, and what the checks said."""

    files: Mapping[str, str]
    edits: tuple[LineEdit, ...]
    operator: str
    results: tuple[CheckResult, ...] = ()


async def build(
    programs: Sequence[Program], *, source: str, options: RepairOptions, validator: Validator
) -> TaskSet:
    """The tasks of ``programs`` that fail at least one check and whose reference passes all.

    Program texts that occur twice and programs that fail their own checks are in ``skipped``.
    """
    chosen, skipped = _choose(programs, options)
    singles = {p.id: list(_singles(p, options)) for p, _ in chosen}
    found = await _validate([(p, singles[p.id]) for p, _ in chosen], options, validator)
    tasks: list[Task] = []
    pools: list[tuple[Program, str, list[_Broken]]] = []
    for (item, heldout), valid in zip(chosen, found, strict=True):
        if isinstance(valid, str) or not valid:
            reason = valid if isinstance(valid, str) else "no mutant fails its checks"
            skipped.append(Skipped(id=item.id, reason=reason))
            continue
        named = _split(item, valid, heldout, options)
        tasks += [_task(item, b, split, f"{n:02d}") for n, (split, b) in enumerate(named)]
        pools += [(item, split, [b for s, b in named if s == split]) for split in SPLITS]
    tasks += await _combined(pools, options, validator)
    tasks = _without_repeats(tasks, programs)
    wanted = [t for t in tasks if options.split in (None, t.labels["split"])]
    return TaskSet(
        source=source,
        env=Repair.name,
        tasks=tuple(_limited(wanted, options.limit)),
        skipped=tuple(skipped),
        validated=True,
    )


def _choose(
    programs: Sequence[Program], options: RepairOptions
) -> tuple[list[tuple[Program, bool]], list[Skipped]]:
    """The programs to mutate, each with whether it is held out."""
    unique: dict[str, Program] = {}
    skipped: list[Skipped] = []
    for item in with_unique_ids(programs):
        text = repr(sorted(item.files.items()))
        lines = max((len(t.splitlines()) for t in item.files.values()), default=0)
        if text in unique:
            skipped.append(Skipped(id=item.id, reason=f"same text as {unique[text].id}"))
        elif options.max_lines is not None and lines > options.max_lines:
            skipped.append(Skipped(id=item.id, reason=f"{lines} lines, more than max_lines"))
        else:
            unique[text] = item
    ranked = sorted(unique.values(), key=lambda p: rank(options.seed, p.id))
    heldout = {p.id for p in ranked[: round(len(ranked) * options.heldout_functions)]}
    chosen = [(p, p.id in heldout) for p in unique.values()]
    if options.split is not None:
        chosen = [(p, out) for p, out in chosen if out == (options.split == FUNCTIONS)]
    return chosen[: options.limit], skipped


def _singles(item: Program, options: RepairOptions) -> Iterator[_Broken]:
    """Candidates with one changed line."""
    made = []
    for path, text in item.files.items():
        for mutant in mutants(text):
            edit = LineEdit(
                path=path,
                line=mutant.line,
                original=mutant.original_line,
                broken=mutant.mutated_line,
            )
            files = {**item.files, path: mutant.source}
            made.append(_Broken(files=files, edits=(edit,), operator=mutant.operator))
    if options.max_mutants is not None:
        ranked = sorted(made, key=lambda b: rank(options.seed, item.id, b.edits))
        kept = set(map(id, ranked[: options.max_mutants]))
        made = [b for b in made if id(b) in kept]
    yield from made


async def _validate(
    wanted: Sequence[tuple[Program, Sequence[_Broken]]],
    options: RepairOptions,
    validator: Validator,
) -> list[list[_Broken] | str]:
    """Per program its broken candidates that do fail, or why the program itself is no use."""
    groups = [
        [_job(item, item.files), *(_job(item, broken.files) for broken in candidates)]
        for item, candidates in wanted
    ]
    answers = await validator.run(groups)
    found: list[list[_Broken] | str] = []
    for (item, candidates), (reference, *results) in zip(wanted, answers, strict=True):
        failed = next((r for r in reference if not r.passed), None)
        if failed or len(reference) < len(item.checks) or not reference:
            got = f"{failed.id}: {failed.got}" if failed else "no results"
            found.append(f"the reference fails its own checks: {got}")
            continue
        found.append(
            [
                _Broken(files=b.files, edits=b.edits, operator=b.operator, results=tuple(outcome))
                for b, outcome in zip(candidates, results, strict=True)
                if _usable(outcome, options)
            ]
        )
    return found


def _usable(results: Sequence[CheckResult], options: RepairOptions) -> bool:
    if all(result.passed for result in results):
        return False
    return options.timeouts or not any(hung(r.got) for r in results if not r.passed)


def _job(item: Program, files: Mapping[str, str]) -> CheckJob:
    return CheckJob(files=files, checks=item.checks, test_files=item.test_files)


def _split(
    item: Program, valid: Sequence[_Broken], heldout: bool, options: RepairOptions
) -> list[tuple[str, _Broken]]:
    if heldout:
        return [(FUNCTIONS, broken) for broken in valid]
    count = max(1, round(len(valid) * options.heldout_mutations)) if len(valid) >= 4 else 0
    count = count if options.heldout_mutations else 0
    ranked = sorted(range(len(valid)), key=lambda n: rank(options.seed, item.id, valid[n].edits))
    out = set(ranked[:count])
    return [(MUTATIONS if n in out else TRAIN, broken) for n, broken in enumerate(valid)]


async def _combined(
    pools: Sequence[tuple[Program, str, list[_Broken]]],
    options: RepairOptions,
    validator: Validator,
) -> list[Task]:
    """Tasks with 2 up to ``options.mutations`` broken lines, each from mutants of one split."""
    tasks: list[Task] = []
    for count in range(2, options.mutations + 1):
        made = [list(_combinations(item, pool, count, options)) for item, _, pool in pools]
        wanted = [(item, broken) for (item, _, _), broken in zip(pools, made, strict=True)]
        found = await _validate(wanted, options, validator)
        for (item, split, _), valid in zip(pools, found, strict=True):
            numbers = enumerate(valid if isinstance(valid, list) else [])
            tasks += [_task(item, b, split, f"{split}-{count}x{n:02d}") for n, b in numbers]
    return tasks


def _combinations(
    item: Program, pool: Sequence[_Broken], count: int, options: RepairOptions
) -> Iterator[_Broken]:
    """As many combinations as the pool has members, of mutants on different lines."""
    rng = random.Random(rank(options.seed, item.id, count, [b.edits for b in pool]))
    for edits in on_different_lines([b.edits[0] for b in pool], count, rng):
        yield _Broken(files=_apply(item.files, edits), edits=edits, operator="combined")


def _apply(files: Mapping[str, str], edits: Sequence[LineEdit]) -> dict[str, str]:
    return {
        path: combine(text, {e.line: (e.original, e.broken) for e in edits if e.path == path})
        for path, text in files.items()
    }


def _task(item: Program, broken: _Broken, split: str, number: str) -> Task:
    return Task(
        id=f"repair/{item.id}/{number}",
        source=Repair.name,
        kind="repair",
        prompt=_prompt(broken.files),
        files=broken.files,
        reference=item.files,
        artifacts=tuple(item.files),
        visible=item.visible,
        hidden=item.checks,
        test_files=item.test_files,
        labels={
            "split": split,
            "function": item.id,
            "operator": broken.operator,
            **labels(broken.edits, report(item.visible, broken.results)),
        },
    )


def _prompt(files: Mapping[str, str]) -> str:
    if len(files) == 1:
        (path, text), *_ = files.items()
        return f"Fix {path}\n{numbered(text)}"
    return f"Fix this program. Its files: {', '.join(files)}"


def _without_repeats(tasks: Sequence[Task], programs: Sequence[Program]) -> list[Task]:
    """No broken text twice, wherever it comes from, and none that is another's correct text."""
    seen = {repr(sorted(item.files.items())) for item in programs}
    kept = []
    for task in tasks:
        text = repr(sorted(task.files.items()))
        if text not in seen:
            seen.add(text)
            kept.append(task)
    return kept


def _limited(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """At most ``limit`` tasks, taken in turn from the functions so that all of them appear."""
    if limit is None or len(tasks) <= limit:
        return list(tasks)
    turns: dict[str, int] = {}
    keyed = []
    for place, task in enumerate(tasks):
        name = task.labels["function"]
        turns[name] = turns.get(name, 0) + 1
        keyed.append((turns[name], place))
    return [tasks[place] for place in sorted(place for _, place in sorted(keyed)[:limit])]
