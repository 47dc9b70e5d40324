"""What rewards cost and what they bring.

    .venv/bin/python bench/rewards.py [PART ...]

A part is a module ``rewards_PART.py`` beside this one with a function ``figures()``; default: all.
Writes bench/results/rewards.json; with parts named, only their figures are replaced.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

from report import machine_of, write_report

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "rewards.json"
PARTS = sorted(path.stem.removeprefix("rewards_") for path in HERE.glob("rewards_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    args = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    if RESULT.exists() and args.parts:
        figures = json.loads(RESULT.read_text())["figures"]
    for part in args.parts or PARTS:
        print(f"{part} ...", flush=True)
        figures |= importlib.import_module(f"rewards_{part}").figures()
        load = {"value": round(os.getloadavg()[0], 2), "unit": "processes", "target": ""}
        figures[f"load average in {part}"] = load
    write_report(RESULT, figures, "bench/rewards.py", machine_of())


if __name__ == "__main__":
    main()
