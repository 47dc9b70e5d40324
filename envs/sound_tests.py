"""The tests of packages that can be relied on: run before anything is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from palestra.envs.feedback import hung
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
    said = await _run_all(packages, found, validator)
    late = [_not_run(tests, results) for tests, results in zip(found, said, strict=True)]
    for results, more in zip(said, await _run_all(packages, late, validator), strict=True):
        results.update(more)
    chosen = [_chosen(tests, results) for tests, results in zip(found, said, strict=True)]
    jobs = [_job(p, p.files, list(tests)) for p, tests in zip(packages, chosen, strict=True)]
    again = await validator.run([[job, job] for job in jobs])
    sound: list[Sound] = []
    skipped: list[Skipped] = []
    for package, tests, results, known, runs in zip(
        packages, found, said, chosen, again, strict=True
    ):
        wavering = {result.id for run in runs for result in run if not result.passed}
        kept = {check: test for check, test in known.items() if check.id not in wavering}
        if kept:
            sound.append(Sound(package=package, tests=kept))
        failing = set(tests) - set(known.values())
        reasons = {t.forms[-2].id: _reason(t, results) for t in tests if t in failing}
        reasons |= dict.fromkeys(sorted(wavering), "flaky: it does not always pass")
        skipped += _named(package, reasons) if kept else [_no_tests(package, reasons)]
    return sound, skipped


async def _run_all(
    packages: Sequence[Package], tests: Sequence[Sequence[SuiteTest]], validator: Validator
) -> list[dict[str, CheckResult]]:
    """What every form of the tests of each package said, by id."""
    forms = [[form for test in each for form in test.forms] for each in tests]
    jobs = [_job(p, p.files, checks) for p, checks in zip(packages, forms, strict=True)]
    runs = await validator.run([[job] for job in jobs])
    return [{result.id: result for result in results} for [results] in runs]


def _not_run(tests: Sequence[SuiteTest], results: Mapping[str, CheckResult]) -> list[SuiteTest]:
    """Tests that did not pass and were stopped, or not run because another one was: as suites, in
    which what goes deep into the code does not hang on proxies."""
    said = [(test, [results[form.id] for form in test.forms]) for test in tests]
    return [
        replace(test, forms=test.forms[-2:])
        for test, forms in said
        if not any(form.passed for form in forms) and any(hung(form.got) for form in forms)
    ]


def _named(package: Package, reasons: Mapping[str, str]) -> list[Skipped]:
    return [Skipped(id=f"{package.name} {test}", reason=why) for test, why in reasons.items()]


def _no_tests(package: Package, reasons: Mapping[str, str]) -> Skipped:
    first = next((f": {test} {why}" for test, why in reasons.items()), "")
    return Skipped(id=package.name, reason=f"none of its {len(reasons)} tests can be used{first}")


def _reason(test: SuiteTest, results: Mapping[str, CheckResult]) -> str:
    """What the test said in a form that it has."""
    said = [results[form.id].got for form in test.forms]
    there = (got for got in said if not got.startswith("LookupError: no test"))
    return f"fails without any bug: {next(there, said[0])}"


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


def _chosen(
    tests: Sequence[SuiteTest], results: Mapping[str, CheckResult]
) -> dict[Check, SuiteTest]:
    """The first form of each test that passed."""
    forms = ((next((f for f in t.forms if results[f.id].passed), None), t) for t in tests)
    return {form: test for form, test in forms if form is not None}


def _job(package: Package, files: Mapping[str, File], checks: Sequence[Check]) -> CheckJob:
    tests = package.test_files
    tree = {path: file for path, file in files.items() if path not in tests}
    return CheckJob(files={}, checks=tuple(checks), test_files=tests, tree=tree)
