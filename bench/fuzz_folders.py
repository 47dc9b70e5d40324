"""Damaged folders for ``fuzz.py``: one file of an exercise or of a QuixBugs program is changed."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from palestra.envs.exercism import exercise_task
from palestra.envs.quixbugs import quixbugs_task

SECRET = "nobody asked for this"
TOP = Path(tempfile.mkdtemp(prefix="palestra-fuzz-", dir="/dev/shm")).resolve()
FOLDER = TOP / "set"
"""All that a loader may read."""

LISTED = {
    "solution": ["a.py"],
    "test": ["a_test.py"],
    "example": [".meta/example.py"],
    "editor": ["data.txt"],
}
UNIT = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        pass\n"
EXERCISE = {
    ".meta/config.json": json.dumps({"files": LISTED}),
    ".meta/example.py": "def a():\n    return 1\n",
    ".docs/instructions.md": "Return one.\n",
    "a.py": "def a():\n    pass\n",
    "a_test.py": UNIT,
    "data.txt": "1\n",
}
CASES = (
    "import pytest\nfrom load_testdata import load_json_testcases\nfrom p import p\n"
    "testdata = load_json_testcases(p.__name__)\n"
    '@pytest.mark.parametrize("input_data,expected", testdata)\n'
    "def test_p(input_data, expected):\n"
    "    if input_data == [{0}]:\n        pytest.skip('slow')\n"
    "    assert p(*input_data) == expected\n"
)
QUIXBUGS = {
    "python_programs/p.py": "def p(x):\n    return x\n",
    "correct_python_programs/p.py": "def p(x):\n    return x + 1\n",
    "python_testcases/test_p.py": CASES.replace("{0}", "0"),
    "python_testcases/node.py": "class Node:\n    pass\n",
    "json_testcases/p.json": "[[1], 2]\n[[0], 1]\n",
}


def damaged_exercises(value: object, byte: int) -> Iterator[Path]:
    """An exercise whose settings or files have a value, or a byte, in each place in turn."""
    folder = _laid_out(EXERCISE)
    shapes = (value, [value], [f"../{value}"], [f"/{value}"], ["../../secret.py"], {"a": value})
    settings: list[object] = [{"files": value}, value, [value]]
    settings += [{"files": {**LISTED, name: shape}} for name in LISTED for shape in shapes]
    for setting in settings:
        (folder / ".meta/config.json").write_text(json.dumps(setting))
        yield folder
    yield from _changed(folder, EXERCISE, value, byte)


def damaged_programs(value: object, byte: int) -> Iterator[Path]:
    """A QuixBugs program with a value, or a byte, in the place of each of its files."""
    folder = _laid_out(QUIXBUGS)
    tests, cases = folder / "python_testcases/test_p.py", folder / "json_testcases/p.json"
    for text in (repr(value), str(value), f"x: {value!r}", f"*{value!r}"):
        tests.write_bytes(_encoded(CASES.replace("{0}", text)))
        yield folder
    tests.write_text(QUIXBUGS["python_testcases/test_p.py"])
    for shape in ([value, value], [[value], 1], [value], {"input": value}):
        cases.write_text(json.dumps(shape))
        yield folder
    cases.write_text(QUIXBUGS["json_testcases/p.json"])
    yield from _changed(folder, QUIXBUGS, value, byte)


def read_exercise(folder: object) -> None:
    """The task of an exercise, which has nothing from outside of its folder."""
    assert isinstance(folder, Path)
    assert SECRET not in repr(exercise_task(folder))


def read_program(folder: object) -> None:
    """The task of a QuixBugs program."""
    assert isinstance(folder, Path)
    quixbugs_task(folder, "p")


def _laid_out(texts: Mapping[str, str]) -> Path:
    TOP.joinpath("secret.py").write_text(f'"""{SECRET}"""\n')
    folder = FOLDER / "p"
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def _changed(folder: Path, texts: Mapping[str, str], value: object, byte: int) -> Iterator[Path]:
    for path, text in texts.items():
        whole = text.encode()
        place = (byte * 7) % len(whole)
        one = whole[:place] + bytes([byte]) + whole[place + 1 :]
        for data in (_encoded(str(value)), json.dumps(value).encode(), one, whole[:place]):
            (folder / path).write_bytes(data)
            yield folder
        (folder / path).unlink()
        yield folder
        (folder / path).write_text(text)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


atexit.register(shutil.rmtree, TOP, ignore_errors=True)
