"""What every grade does, done by a zygote a few times before the first one.

Python rewrites code as it learns what it works on. What the zygote has had rewritten is shared by
all its forks; what is still to be learned, each of them copies and rewrites for itself. Inside the
box: standard library only.
"""

from __future__ import annotations

import os
import sys

from palestra.sandbox.candidate import lay_out, leave
from palestra.sandbox.tester import Tester
from palestra.sandbox.worker import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 16
"""Enough: Python 3.11 begins to learn at the eighth call."""

_FOLDER, _NAME = "/tmp/rehearsal", "rehearsed"
_SOLUTION = (
    b"import math\n\n\ndef add(values, to=1):\n    return [value + to for value in values]\n"
)
_TEST = """assert add([1, 2]) == [2, 3]
assert add([0.5, -1], to=2) == [2.5, 1]
assert add(["a"], "b") == ["ab"]
"""


def rehearse() -> None:
    """Be the candidate and the tester by turns, with a fork as the other."""
    sys.dont_write_bytecode = True
    for _ in range(_ROUNDS):
        lay_out(_FOLDER, {f"{_NAME}.py": (_SOLUTION, 0o644)})
        sys.path.insert(0, _FOLDER)
        _play(serve, _test)
        _play(_test, serve)
        sys.path.remove(_FOLDER)
        sys.path_importer_cache.pop(_FOLDER, None)
        sys.modules.pop(_NAME)
        os.unlink(f"{_FOLDER}/{_NAME}.py")  # noqa: PTH108
        os.rmdir(_FOLDER)  # noqa: PTH106


def _play(ours: Callable[[int, int], None], theirs: Callable[[int, int], None]) -> None:
    here, there = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here[1])
        os.close(there[0])
        leave(lambda: theirs(here[0], there[1]))
    os.close(here[0])
    os.close(there[1])
    ours(there[0], here[1])
    os.close(there[0])
    os.close(here[1])
    os.waitpid(child, 0)


def _test(reader: int, writer: int) -> None:
    passed: list[bool] = []

    def emit(index: int, good: bool, text: bytes) -> None:
        passed.append(good)

    script = (0, _NAME, ("add",), _TEST)
    Tester({"scripts": [script], "units": [], "files": {}}, [_NAME], reader, writer, emit).run([0])
    if passed != [True]:
        raise RuntimeError("a rehearsal failed")
