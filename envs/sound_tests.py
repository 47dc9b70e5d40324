"""The tests of packages that can be relied on: run before anything is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palestra.envs.packages import Package
from palestra.envs.suite_tests import SuiteTest, suite_tests
from palestra.envs.taskset import Skipped
from palestra.envs.validate import Validator
from palestra.rl.types import Check, CheckJob, CheckResult, File

_BROKEN = File(data=b"raise BaseException\n")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """A package, and its tests that pass whenever they are run, by the check that each is.

    Example: ``Sound(package=package, tests={SuiteCheck(id="test_a.py::test_x"): test})``
    """

    package: Package
    tests: Mapping[Check, SuiteTest]

    def job(self, files: Mapping[str, File], checks: Sequence[Check]) -> CheckJob:
        """``checks`` of the package with ``files``."""
        return _job(self.package, files, checks)


async def sound_tests(
    packages: Sequence[Package], validator: Validator
) -> tuple[list[Sound], list[Skipped]]:
    """The packages with tests that pass each of three times, and what was left out.

    The first run tells which form of a test passes, two more whether it always does.
    """
    found = [suite_tests(package.test_files) for package in packages]
    first = await validator.run(
        [
            [_job(package, package.files, [form for test in tests for form in test.forms])]
            for package, tests in zip(packages, found, strict=True)
        ]
    )
    chosen = [_chosen(tests, results) for tests, [results] in zip(found, first, strict=True)]
    jobs = [_job(p, p.files, list(tests)) for p, tests in zip(packages, chosen, strict=True)]
    again = await validator.run([[job, job] for job in jobs])
    sound: list[Sound] = []
    skipped: list[Skipped] = []
    for package, tests, known, runs in zip(packages, found, chosen, again, strict=True):
        wavering = {result.id for results in runs for result in results if not result.passed}
        kept = {check: test for check, test in known.items() if check.id not in wavering}
        skipped += [
            Skipped(id=f"{package.name} {check.id}", reason="flaky: it does not always pass")
            for check in known
            if check.id in wavering
        ]
        skipped += [
            Skipped(id=f"{package.name} {test.forms[-2].id}", reason="fails without any bug")
            for test in tests
            if test not in known.values()
        ]
        if kept:
            sound.append(Sound(package=package, tests=kept))
        else:
            skipped.append(Skipped(id=package.name, reason="no tests that pass"))
    return sound, skipped


async def loading(
    wanted: Sequence[tuple[Sound, str]], validator: Validator
) -> list[tuple[Check, ...]]:
    """For each file of a package the tests that load it: they fail when it cannot be loaded."""
    runs = await validator.run(
        [
            [sound.job({**sound.package.files, path: _BROKEN}, list(sound.tests))]
            for sound, path in wanted
        ]
    )
    return [
        tuple(
            check for check, result in zip(sound.tests, results, strict=True) if not result.passed
        )
        for (sound, _), [results] in zip(wanted, runs, strict=True)
    ]


def _chosen(tests: Sequence[SuiteTest], results: Sequence[CheckResult]) -> dict[Check, SuiteTest]:
    """The first form of each test that passed."""
    passed = {result.id for result in results if result.passed}
    forms = ((next((f for f in test.forms if f.id in passed), None), test) for test in tests)
    return {form: test for form, test in forms if form is not None}


def _job(package: Package, files: Mapping[str, File], checks: Sequence[Check]) -> CheckJob:
    tests = package.test_files
    tree = {path: file for path, file in files.items() if path not in tests}
    return CheckJob(files={}, checks=tuple(checks), test_files=tests, tree=tree)
