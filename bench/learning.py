"""Does the tiny recipe learn? Three seeds, each a whole `palestra train` in a process of its own.

    .venv/bin/python bench/learning.py [--seeds 0 1 2] [--recipe FILE] [--set KEY=VALUE]

Writes bench/results/learning.json: per seed pass@1 on held-out tasks before and after RL, training
reward of the first and last five steps, seconds of the RL phase, the largest log-probability gap
between engine and learner, and how the seconds of a step divide.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from report import machine_of, write_report

ROOT = Path(__file__).resolve().parent.parent
MAIN, OTHER = "heldout_mutations", "heldout_functions"
LANES = ("generate", "grade", "environment", "learn", "checkpoint", "sync", "idle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "tiny.toml"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-learning")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    for seed in args.seeds:
        run = args.runs / f"seed-{seed}"
        shutil.rmtree(run, ignore_errors=True)
        command = [str(Path(sys.executable).with_name("palestra")), "train", args.recipe]
        command += ["--run", str(run), "--set", f"seed={seed}"]
        for override in args.set:
            command += ["--set", override]
        print("$", " ".join(command), flush=True)
        subprocess.run(command, check=True)
        figures |= figures_of(run, seed)
    how = "bench/learning.py, recipe " + Path(args.recipe).name
    write_report(ROOT / "bench" / "results" / "learning.json", figures, how, machine_of())


def figures_of(run: Path, seed: int) -> dict[str, dict[str, object]]:
    """The figures of one finished run."""
    summary = json.loads((run / "summary.json").read_text())
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    before, after = summary["eval"]["before"], summary["eval"]["after"]
    gain = after[MAIN]["pass@1"] - before[MAIN]["pass@1"]
    reward = summary["reward"]["last5"] - summary["reward"]["first5"]
    wall = sum(step["timing_s/step"] for step in steps)
    lanes = {lane: sum(step.get(f"timing_s/{lane}", 0.0) for step in steps) for lane in LANES}
    gap = max(step.get("mismatch/logprob_abs_diff_max", 0.0) for step in steps)
    unaccounted = abs(wall - sum(lanes.values())) / wall
    name = f"seed {seed}: "
    rows = {
        "pass@1 before": (before[MAIN]["pass@1"], "share", f"n={before[MAIN]['n']}", None),
        "pass@1 after": (after[MAIN]["pass@1"], "share", f"n={after[MAIN]['n']}", None),
        "pass@1 gain": (gain, "share", ">= 0.15", gain >= 0.15),
        "held-out functions before": (before[OTHER]["pass@1"], "share", "reported", None),
        "held-out functions after": (after[OTHER]["pass@1"], "share", "reported", None),
        "reward gain, last 5 - first 5": (reward, "reward", ">= 0.25", reward >= 0.25),
        "RL phase": (wall, "s", "< 900", wall < 900),
        "largest |engine - learner| log-probability": (gap, "nat", "< 1e-4", gap < 1e-4),
        "step seconds not in any phase": (unaccounted, "share", "<= 0.03", unaccounted <= 0.03),
        "idle": (lanes["idle"] / wall, "share", "< 0.15", lanes["idle"] / wall < 0.15),
        "step, median": (
            statistics.median(step["timing_s/step"] for step in steps),
            "s",
            "reported",
            None,
        ),
    }
    rows |= {
        f"time in {lane}": (seconds / wall, "share", "reported", None)
        for lane, seconds in lanes.items()
    }
    return {
        name + key: {"value": value, "unit": unit, "target": target, "met": met}
        for key, (value, unit, target, met) in rows.items()
    }


if __name__ == "__main__":
    main()
