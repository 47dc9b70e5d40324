"""``repair-repo:DIR``: a package with its tests becomes SWE-style tasks, one for each bug.

A bug is one wrong line or several, put in by ``mutate``. Every one is run against the tests: those
that fail are its FAIL_TO_PASS, and hidden from the agent; the others are its PASS_TO_PASS. What was
found is kept by the ``Validator``, so a run that was broken off goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from palestra.envs.bugs import Bug, broken, bugs_in, combined, share
from palestra.envs.feedback import clip, hung
from palestra.envs.lazy_files import LazyFiles
from palestra.envs.packages import Package
from palestra.envs.repair_demos import LineEdit, labels
from palestra.envs.repair_source import FUNCTIONS, MUTATIONS, TRAIN, RepairOptions
from palestra.envs.repository import with_git
from palestra.envs.sound_tests import Sound, loading, sound_tests
from palestra.envs.suite_tests import without
from palestra.envs.swe import SWE
from palestra.envs.taskset import Skipped, TaskSet
from palestra.envs.validate import Validator
from palestra.rl.types import Check, CheckResult, File, Task, Tree

PER_FUNCTION = 16
"""Bugs tried in each function."""

_AT_ONCE = 64
_BATCH, _BATCH_BYTES = 12, 16 << 20
_TIMEOUT_S = 60.0
_NAMED = 3
_PROMPT = """\
Something in the package in the work folder is broken. Find the cause and repair it. Change the \
code, not the tests.

{failing} of its {total} tests fail; they are {where}. What they say:
{said}
"""
_VARYING = re.compile(r"0x[0-9a-f]{6,}|/tmp/job-[0-9-]+/?")


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A bug in a package, the tests that could find it, and those that did."""

    id: str
    split: str
    sound: Sound
    bug: Bug
    checks: tuple[Check, ...]
    failed: tuple[CheckResult, ...] = ()


async def build_repository(
    found: Iterable[Package | Skipped],
    *,
    source: str,
    options: RepairOptions,
    validator: Validator,
) -> TaskSet:
    """The tasks of packages. Bugs that no test finds or that do not end are counted in ``skipped``,
    where tests that fail or waver without any bug are named."""
    read = list(found)
    left_out = [each for each in read if isinstance(each, Skipped)]
    packages = [each for each in read if isinstance(each, Package)]
    validator = _for_trees(validator, packages)
    sound, skipped = await sound_tests(packages, validator)
    candidates = await _candidates(sound, options, validator)
    dropped: Counter[tuple[str, str]] = Counter()
    valid = await _valid(_in_turn(candidates), options, validator, dropped)
    for count in range(2, options.mutations + 1):
        pool = [candidate for candidate in valid if len(candidate.bug.edits) == 1]
        more = list(_combined(pool, count, options))
        valid += await _valid(more, options, validator, dropped)
    skipped += [
        Skipped(id=name, reason=f"{count} bugs {why}") for (name, why), count in dropped.items()
    ]
    kept = sorted(valid[: options.limit], key=lambda candidate: candidate.id)
    return TaskSet(
        source=source,
        env=SWE.name,
        tasks=tuple(_task(candidate, options) for candidate in kept),
        skipped=(*left_out, *skipped),
        validated=True,
    )


def _for_trees(validator: Validator, packages: Sequence[Package]) -> Validator:
    """As many jobs per command as do not bring too many bytes."""
    sizes = [sum(len(file.data) for file in package.files.values()) for package in packages]
    batch = max(1, min(_BATCH, _BATCH_BYTES // max([1, *sizes])))
    return replace(validator, screen=False, batch=batch, timeout=_TIMEOUT_S)


async def _candidates(
    sound: Sequence[Sound], options: RepairOptions, validator: Validator
) -> list[_Candidate]:
    """Every bug that is to be tried, in files that some test loads."""
    bugs: dict[tuple[Sound, str], list[tuple[int, Bug]]] = {}
    for one in sound:
        found = bugs_in(
            one.package.sources,
            seed=options.seed,
            per_function=options.max_mutants or PER_FUNCTION,
            max_lines=options.max_lines,
        )
        for number, bug in enumerate(found):
            bugs.setdefault((one, bug.edits[0].path), []).append((number, bug))
    tests = await loading(list(bugs), validator)
    made = (
        _Candidate(
            id=f"repair/{one.package.name}/{number:04d}",
            split=_split(one.package, bug, options),
            sound=one,
            bug=bug,
            checks=checks,
        )
        for ((one, _), numbered), checks in zip(bugs.items(), tests, strict=True)
        for number, bug in numbered
        if checks
    )
    return [candidate for candidate in made if options.split in (None, candidate.split)]


def _split(package: Package, bug: Bug, options: RepairOptions) -> str:
    if share(options.seed, package.name, bug.function) < options.heldout_functions:
        return FUNCTIONS
    held_out = share(options.seed, package.name, bug.edits) < options.heldout_mutations
    return MUTATIONS if held_out else TRAIN


def _in_turn(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """First one bug of every function, then a second: a limit leaves no function out."""
    turns: Counter[tuple[Sound, str]] = Counter()
    keyed: list[tuple[int, int]] = []
    for place, candidate in enumerate(candidates):
        function = (candidate.sound, candidate.bug.function)
        turns[function] += 1
        keyed.append((turns[function], place))
    return [candidates[place] for _, place in sorted(keyed)]


async def _valid(
    candidates: Sequence[_Candidate],
    options: RepairOptions,
    validator: Validator,
    dropped: Counter[tuple[str, str]],
) -> list[_Candidate]:
    """Those that the same tests find twice, up to the limit; the others are counted by package and
    reason."""
    valid: list[_Candidate] = []
    waiting = list(candidates)
    while waiting and (options.limit is None or len(valid) < options.limit):
        size = _AT_ONCE if options.limit is None else min(_AT_ONCE, options.limit - len(valid))
        part, waiting = waiting[:size], waiting[size:]
        found: list[_Candidate] = []
        for candidate, results in zip(part, await _run(part, validator), strict=True):
            failed = tuple(result for result in results if not result.passed)
            if not failed:
                dropped[candidate.sound.package.name, "fail no test"] += 1
            elif not options.timeouts and any(hung(result.got) for result in failed):
                dropped[candidate.sound.package.name, "do not end"] += 1
            else:
                found.append(replace(candidate, failed=failed))
        again = await _run([_failing_alone(candidate) for candidate in found], validator)
        for candidate, results in zip(found, again, strict=True):
            if any(result.passed for result in results):
                dropped[candidate.sound.package.name, "make tests waver"] += 1
            else:
                valid.append(candidate)
    return valid


def _failing_alone(candidate: _Candidate) -> _Candidate:
    failed = {result.id for result in candidate.failed}
    checks = tuple(check for check in candidate.checks if check.id in failed)
    return replace(candidate, checks=checks)


async def _run(
    candidates: Sequence[_Candidate], validator: Validator
) -> list[Sequence[CheckResult]]:
    groups = [
        [each.sound.job(broken(each.sound.package.files, each.bug.edits), each.checks)]
        for each in candidates
    ]
    return [results for [results] in await validator.run(groups)]


def _combined(
    pool: Sequence[_Candidate], count: int, options: RepairOptions
) -> Iterator[_Candidate]:
    """Candidates with ``count`` bugs of one package and split."""
    groups: dict[tuple[Sound, str], list[_Candidate]] = {}
    for candidate in pool:
        groups.setdefault((candidate.sound, candidate.split), []).append(candidate)
    for (sound, split), members in groups.items():
        found = combined([candidate.bug for candidate in members], count, options.seed)
        tests = {c.bug.edits[0].path: c.checks for c in members}
        for number, bug in enumerate(found):
            loaded = set(itertools.chain(*(tests[edit.path] for edit in bug.edits)))
            yield _Candidate(
                id=f"repair/{sound.package.name}/{split}-{count}x{number:03d}",
                split=split,
                sound=sound,
                bug=bug,
                checks=tuple(check for check in sound.tests if check in loaded),
            )


def _task(candidate: _Candidate, options: RepairOptions) -> Task:
    package, edits = candidate.sound.package, candidate.bug.edits
    failing = frozenset(result.id for result in candidate.failed)
    hidden = frozenset() if options.show_failing_tests else failing
    total = len(candidate.sound.tests)
    said = [_said(result) for result in candidate.failed[:_NAMED]]
    return Task(
        id=candidate.id,
        source=SWE.name,
        kind="repair-repo",
        prompt=_PROMPT.format(
            failing=len(failing),
            total=total,
            where="not shown here" if hidden else "in the folder",
            said="\n".join(said),
        ),
        files={},
        reference={edit.path: package.sources[edit.path] for edit in edits},
        artifacts=(),
        hidden=tuple(candidate.sound.tests),
        test_files=package.test_files,
        labels={
            **labels(edits, "\n".join(said)),
            "split": candidate.split,
            "repo": package.name,
            "function": candidate.bug.function,
            "operator": candidate.bug.operator,
            "FAIL_TO_PASS": json.dumps([result.id for result in candidate.failed]),
            "difficulty": str(difficulty(len(failing), total, len(edits))),
        },
        tree=Tree(files=LazyFiles(partial(_start, candidate.sound, edits, hidden))),
    )


def difficulty(failing: int, total: int, bugs: int) -> int:
    """1 where at least half of the tests fail, 2 where a tenth does, 3 where fewer do, and one more
    for each further bug, up to 4. Our default."""
    quiet = 1 if 2 * failing >= total else 2 if 10 * failing >= total else 3
    return min(4, quiet + bugs - 1)


@lru_cache(maxsize=16)
def _start(sound: Sound, edits: tuple[LineEdit, ...], hidden: frozenset[str]) -> Mapping[str, File]:
    """What the agent finds: one commit of the package with the bug, without the tests that tell."""
    gone = [test for check, test in sound.tests.items() if check.id in hidden]
    files = dict(broken(sound.package.files, edits))
    for path, text in without(sound.package.test_files, gone).items():
        files[path] = replace(files[path], data=text.encode())
    return with_git(files)


def _said(result: CheckResult) -> str:
    """A failing test and what it said, less what differs from run to run."""
    got = _VARYING.sub("...", result.got)
    return clip(f"{result.id.removesuffix('[')}: {got}")
