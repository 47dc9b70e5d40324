"""What became of a ``unittest`` test: only a plain success counts. Runs inside the box."""

from __future__ import annotations

from palestra.sandbox.answers import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable
    from typing import Any


def recorder(done: Callable[[unittest.TestCase, bool, bytes], None]) -> unittest.TestResult:
    """A result that calls ``done(test, passed, text)`` when a test ends.

    A skip, an expected failure and an unexpected success are no successes, and neither is a test
    with a subtest that fails.
    """
    import unittest

    class Recorder(unittest.TestResult):
        good, text = False, b""

        def startTest(self, test: unittest.TestCase) -> None:
            super().startTest(test)
            self.good, self.text = False, b""

        def addSuccess(self, test: unittest.TestCase) -> None:
            self.good = True

        def addError(self, test: object, err: Any) -> None:
            self.good, self.text = False, describe(err[1])

        addFailure = addError

        def addSubTest(self, test: object, subtest: object, err: Any) -> None:
            if err is not None:
                self.good, self.text = False, describe(err[1])

        def addSkip(self, test: unittest.TestCase, reason: str) -> None:
            self.good, self.text = False, b"skipped: " + reason.encode(errors="replace")[:150]

        def addExpectedFailure(self, test: object, err: object) -> None:
            self.good, self.text = False, b"expected failure"

        def addUnexpectedSuccess(self, test: object) -> None:
            self.good, self.text = False, b"unexpected success"

        def stopTest(self, test: unittest.TestCase) -> None:
            super().stopTest(test)
            done(test, self.good, self.text)

    return Recorder()
