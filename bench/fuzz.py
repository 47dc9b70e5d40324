"""Damaged records given to every loader: a task or the typed error, and nothing else happens.

    .venv/bin/python bench/fuzz.py [--examples 6000] [LOADER ...]

Writes bench/results/fuzz.json. While a loader runs, an audit hook forbids what it has no business
with: running code, unpickling, opening files, starting programs. The rows are those of
tests/envs: each value that Hypothesis makes takes the place of each field in turn,
in three shapes, as it is and as JSON in a text; pickles and arrays have one of their bytes changed.
Loaders of folders (``fuzz_folders``) may read what is in the folder, and nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from fuzz_folders import (
    FOLDER,
    damaged_exercises,
    damaged_programs,
    read_exercise,
    read_program,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from report import machine_of, write_report

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from palestra.envs import rows  # noqa: E402
from palestra.envs.formats import ROWS  # noqa: E402
from palestra.envs.livecodebench import _unpickled  # noqa: E402
from palestra.envs.r2e_rows import r2e_instance  # noqa: E402
from palestra.envs.rows import BadRow  # noqa: E402
from palestra.envs.swebench_rows import instance  # noqa: E402
from palestra.rl.errors import UserError  # noqa: E402
from tests.envs.test_formats import JSON, SAMPLES  # noqa: E402
from tests.envs.test_r2e import ROW as R2E_ROW  # noqa: E402
from tests.envs.test_swebench_images import ROW as SWEBENCH_ROW  # noqa: E402

RESULT = ROOT / "bench" / "results" / "fuzz.json"
FORBIDDEN = ("exec", "open", "pickle.", "marshal.", "os.", "subprocess.", "socket.", "shutil.")
_watched = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loaders", nargs="*", choices=[*LOADERS, []])
    parser.add_argument("--examples", type=int, default=6000, help="values, of many inputs each")
    args = parser.parse_args()
    figures = {}
    sys.addaudithook(forbid)
    for name in args.loaders or LOADERS:
        began = time.perf_counter()
        tried, refused = fuzzed(name, args.examples)
        seconds = time.perf_counter() - began
        met = tried >= 100_000
        figures[f"{name}: inputs without a crash"] = {
            "value": tried,
            "unit": "inputs",
            "target": ">= 1e5",
            "met": met,
            "refused": refused,
            "seconds": round(seconds, 1),
        }
        print(f"  {name}: {tried} tried, {refused} refused, {seconds:.0f} s", flush=True)
    if RESULT.exists() and args.loaders:
        figures = json.loads(RESULT.read_text())["figures"] | figures
    write_report(RESULT, figures, "bench/fuzz.py", machine_of())


def fuzzed(name: str, examples: int) -> tuple[int, int]:
    """How many inputs were tried, and how many of them were refused."""
    tried = refused = 0
    inputs, use = LOADERS[name]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(JSON, st.integers(0, 255))
    def run(value: object, byte: int) -> None:
        nonlocal tried, refused
        for item in inputs(value, byte):
            tried += 1
            try:
                watched(use, item)
            except TYPED:
                refused += 1

    "".encode("raw-unicode-escape")  # codecs and modules are loaded when they are first needed
    for _ in range(3):
        with_samples(name)
    run()
    return tried, refused


def with_samples(name: str) -> None:
    make, samples = READ.get(name, (BadRow, ()))
    for row in samples:
        try:
            make(row)
        except BadRow:
            continue


def watched(use: Callable[[object], object], value: object) -> None:
    global _watched
    _watched = True
    try:
        use(value)
    finally:
        _watched = False


def forbid(event: str, about: tuple[object, ...]) -> None:
    if _watched and event.startswith(FORBIDDEN) and not reads_inside(event, about):
        raise RuntimeError(f"a loader did {event} {about}")


def reads_inside(event: str, about: tuple[object, ...]) -> bool:
    """Whether a file or folder is read that a loader of folders may read."""
    if event == "open" and about[1] not in (None, "r", "rb"):
        return False
    inside = Path(os.path.realpath(str(about[0]))).is_relative_to(FOLDER) if about else False
    return inside and event in ("open", "os.listdir", "os.scandir")


def damaged(rows: Sequence[Mapping[str, object]], value: object, _: int) -> Iterator[object]:
    """Each of the rows with a value in the place of each field."""
    for row in rows:
        for name in row:
            for shape in (value, [value], {"input": [value], "output": [value]}):
                yield {**row, name: shape}
                yield {**row, name: json.dumps(shape)}


def pickles(value: object, byte: int) -> Iterator[object]:
    """The pickle of a value with a byte in the place of each of its first."""
    data = pickle.dumps(value)
    for place in range(min(len(data), 99)):
        yield data[:place] + bytes([byte]) + data[place + 1 :]


def arrays(value: object, byte: int) -> Iterator[object]:
    """The text of an array with a character in the place of each of its first."""
    text = json.dumps([value, {"a": value}])
    for place in range(min(len(text), 99)):
        yield text[:place] + chr(byte) + text[place + 1 :]


def read_array(text: object) -> list[object]:
    return list(rows._array(Path("x.json"), io.StringIO(str(text))))


Inputs = Callable[[object, int], Iterator[object]]
TYPED = (BadRow, UserError)
READ: dict[str, tuple[Callable[..., object], Sequence[Mapping[str, object]]]] = {
    **{name: (make, SAMPLES[name]) for name, make in ROWS.items()},
    "swebench": (instance, [SWEBENCH_ROW]),
    "r2e": (r2e_instance, [R2E_ROW]),
}
LOADERS: dict[str, tuple[Inputs, Callable[..., object]]] = {
    **{name: (partial(damaged, rows), make) for name, (make, rows) in READ.items()},
    "exercism": (damaged_exercises, read_exercise),
    "quixbugs": (damaged_programs, read_program),
    "packed tests": (pickles, _unpickled),
    "JSON arrays": (arrays, read_array),
}


if __name__ == "__main__":
    main()
