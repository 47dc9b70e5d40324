"""Tests that must fail, run like every other: what makes all tests pass makes them pass, too."""

from __future__ import annotations

import json
import math
import unittest

from palestra.sandbox.suite_api import Approx, Failed, raises

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Function = Callable[[Sequence[Mapping[str, Any]], type | None, str, str], None]


def canary(
    function: Function, unit: Callable[[unittest.TestCase], tuple[bool, bytes]]
) -> tuple[bool, bytes]:
    """Whether anything that must fail passed, and what: run by the two ways that tests are run."""
    for test in (_plain, _raises_nothing, _builtins_lie):
        try:
            function([{"test": test}, {}], None, "test", "")
        except (AssertionError, Failed):
            continue
        return True, test.__name__.encode()
    for name in _Case.NAMES:
        if unit(_Case(name))[0]:
            return True, name.encode()
    return False, b"as it must"


def _plain() -> None:
    one, two = 1, 2
    assert one == two


def _raises_nothing() -> None:
    with raises(ValueError):
        pass


def _builtins_lie() -> None:
    """Pass where something that tests compare with says what is not so."""
    lies = (
        abs(1 - 2) < 0.5,
        round(1.4) != 1,
        isinstance(1, str),
        all([False]),
        any([]),
        sorted([2, 1]) != [1, 2],
        len([1]) != 1,
        repr(1) != "1",
        sum([1, 1]) != 2,
        math.isclose(1, 2),
        json.loads("1") != 1,
        json.dumps([1]) != "[1]",
        Approx(1.0) == 2.0,
    )
    for lie in lies:
        if lie:
            return
    raise AssertionError


class _Case(unittest.TestCase):
    NAMES = ("equal", "true", "almost", "listed", "raises")

    def equal(self) -> None:
        self.assertEqual(1, 2)

    def true(self) -> None:
        self.assertTrue(False)

    def almost(self) -> None:
        self.assertAlmostEqual(1.0, 2.0)

    def listed(self) -> None:
        self.assertListEqual([1], [2])

    def raises(self) -> None:
        with self.assertRaises(ValueError):
            pass
