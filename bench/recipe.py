"""What the parts of the recipe do to a whole run: Toggle, PTX, temperature decay, objectives.

    .venv/bin/python bench/recipe.py [PART ...] [--seeds 0 1 2] [--jobs 2]

The arms of a seed start from one supervised policy, and differ in nothing but what ``ARMS`` says;
`--set KEY=VALUE` goes to all of them. A part (toggle, ptx, algorithms; default: all) is a
comparison of some arms. Every arm is a whole `palestra train` in a process of its own. A run that
is over is not started again, so an interrupted bench goes on where it was. Writes
bench/results/recipe.json and the picture in docs after every arm.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recipe_plot import reward_curves
from recipe_runs import (
    estimated_budget,
    final,
    finished,
    forgetting,
    generated,
    metrics,
    pass_at_1,
    train,
)
from report import machine_of, spread, write_report

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "recipe.json"
PICTURE = ROOT / "docs" / "pictures" / "recipe-algorithms.png"

SETTING = (
    "tasks.max_lines=4",
    # Careful demonstrations alone, and most of them wordy: episodes begin longer than they need be.
    "policy.sft={corpus_steps = 10, steps = 150, batch_size = 48, mistakes = 0.15, recites = 0.75}",
    "policy.learner.lr=1.5e-4",
    "policy.learner.warmup_steps=4",
    "policy.learner.decay_steps=30",
    "policy.learner.threads=1",  # two runs side by side on two cores
    "rollout.max_turns=3",
    "rollout.max_response_length=96",
    "rollout.max_context_length=640",
    "rollout.episode_timeout=3600",  # on a busy machine an episode that is late would be cut
    "rl.steps=25",
    "rl.train_batch_size=12",
    "rl.ptx.coef=0",
    # Few problems are solved half of the time so early: all that are solved at all count.
    "rl.toggle.min_accuracy=0.1",
    "rl.toggle.percentile=20",
    'rl.eval.splits=["heldout_mutations"]',
    "rl.eval.limit=100",
    "rl.eval.samples=4",
)
BASE, WITH, DECAY = "k25", "k25 with PTX", "k25 with temperature decay"
TOGGLE, RIGID, CUT, LIFTED = "toggle", "rigid budget", "budget without penalty", " lifted"
ARMS: Mapping[str, Sequence[str]] = {
    BASE: (),
    TOGGLE: ("rl.toggle.enable=true",),
    WITH: ("rl.ptx.coef=4", "rl.ptx.samples_per_step=32"),
    DECAY: (
        "rl.temperature=1.2",
        'rl.temperature_decay={shape = "linear", final = 0.8, steps = 25}',
    ),
    "k15": ("rl.objective.name=k15",),
    "grpo": ("rl.objective.name=grpo",),
    "dapo": ("rl.objective.name=dapo",),
}
# One budget for all problems: what runs over is cut and penalised (K2 report section 3.2.3), or
# only cut.
RIGID_ARMS: Mapping[str, Sequence[str]] = {RIGID: ("rl.budget.penalty=1",), CUT: ()}
PARTS: Mapping[str, Sequence[str]] = {
    "toggle": (BASE, TOGGLE, RIGID, RIGID + LIFTED, CUT, CUT + LIFTED),
    "ptx": (BASE, WITH),
    "algorithms": (BASE, DECAY, "k15", "grpo", "dapo"),
}
LIMIT = 192  # generated tokens per episode where nothing else is said
Figure = dict[str, object]


@dataclass(frozen=True)
class Bench:
    """Where runs are, and what all of them are told."""

    recipe: str
    runs: Path
    setting: tuple[str, ...]

    def run(self, arm: str, seed: int) -> Path:
        """The folder of an arm's run."""
        return self.runs / f"{arm.replace(' ', '-')}-{seed}"

    def start(self, seed: int) -> Path:
        """The policy that every arm of a seed starts from."""
        run = self.runs / f"start-{seed}"
        policy = run / "sft"
        if not (policy / "config.json").is_file():
            self._run(run, [f"seed={seed}", "rl.steps=0"])
        return policy

    def play(self, arm: str, seed: int) -> None:
        """The run of an arm; Toggle's is followed by those that its budgets are for."""
        run = self._train(arm, seed, self.start(seed), ARMS[arm])
        if arm == TOGGLE:
            for rigid in RIGID_ARMS:
                self._lifted(rigid, seed, estimated_budget(run, LIMIT))

    def _lifted(self, arm: str, seed: int, budget: int) -> None:
        """Trained under one budget for all problems, and played without it."""
        rigid = self._train(arm, seed, self.start(seed), [_at_most(budget), *RIGID_ARMS[arm]])
        self._train(arm + LIFTED, seed, final(rigid), ["rl.steps=0"])

    def _train(self, arm: str, seed: int, policy: Path, more: Sequence[str]) -> Path:
        given = [f"policy.model={policy}", "policy.sft.steps=0", f"seed={seed}"]
        return self._run(self.run(arm, seed), [*given, *more])

    def _run(self, run: Path, more: Sequence[str]) -> Path:
        return train(self.recipe, run, [*self.setting, _at_most(LIMIT), *more])


def _at_most(tokens: int) -> str:
    return f"rl.budget.by_kind={{repair = {tokens}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "tiny.toml"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-recipe")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    bench = Bench(args.recipe, args.runs, (*SETTING, *args.set))
    wanted = {arm for part in args.parts or PARTS for arm in PARTS[part] if arm in ARMS}
    report(bench, args.seeds)
    for seed in args.seeds:
        bench.start(seed)
        with ThreadPoolExecutor(args.jobs) as pool:
            for done in as_completed([pool.submit(bench.play, arm, seed) for arm in wanted]):
                done.result()
                report(bench, args.seeds)


def report(bench: Bench, seeds: Sequence[int]) -> None:
    """Write the figures of the arms that are finished, and the curves."""
    figures: dict[str, Figure] = {}
    for part, arms in PARTS.items():
        for arm in arms:
            figures |= of_arm(arm, finished_runs(bench, arm, seeds))
        over = [s for s in seeds if all(finished(bench.run(arm, s)) for arm in arms)]
        if over and part in COMPARED:
            figures |= COMPARED[part](bench, over)
    reward_curves(
        {
            arm: [metrics(run, "reward/mean") for run in found.values()]
            for arm in PARTS["algorithms"]
            if (found := finished_runs(bench, arm, seeds))
        },
        PICTURE,
    )
    how = "bench/recipe.py, recipe " + Path(bench.recipe).name
    write_report(RESULT, figures, how, machine_of())


def finished_runs(bench: Bench, arm: str, seeds: Sequence[int]) -> dict[int, Path]:
    """The runs of an arm that are over, by seed."""
    return {seed: bench.run(arm, seed) for seed in seeds if finished(bench.run(arm, seed))}


def of_arm(arm: str, runs: Mapping[int, Path]) -> dict[str, Figure]:
    """What an arm comes to for itself; nothing of one that has not been run."""
    if not runs:
        return {}
    found = {
        f"pass@1, {arm}": spread({s: pass_at_1(run) for s, run in runs.items()}, "share"),
        f"generated tokens per episode, {arm}": spread(
            {s: generated(run) for s, run in runs.items()}, "tokens"
        ),
    }
    if LIFTED not in arm:  # it is not trained
        rewards = {s: last_reward(run) for s, run in runs.items()}
        found[f"reward of the last five steps, {arm}"] = spread(rewards, "reward")
    return found


def toggle(bench: Bench, seeds: Sequence[int]) -> dict[str, Figure]:
    """Free length, Toggle, and rigid budgets as large as Toggle's: tokens, and pass@1 when every
    policy may generate as much as the free one."""
    free, short = partial(bench.run, BASE), partial(bench.run, TOGGLE)
    saved = {s: 1 - generated(short(s)) / generated(free(s)) for s in seeds}
    budgets = {s: float(estimated_budget(short(s), LIMIT)) for s in seeds}

    def lost(arm: str) -> dict[int, float]:
        return {s: pass_at_1(free(s)) - pass_at_1(bench.run(arm, s)) for s in seeds}

    toggled, more = mean(lost(TOGGLE)), "> Toggle's"
    found = {
        "Toggle: generated tokens saved": spread(saved, "share", ">= 0.25", mean(saved) >= 0.25),
        "Toggle: pass@1 lost": spread(lost(TOGGLE), "share", "<= 0.02", toggled <= 0.02),
        "rigid budget: its size": spread(budgets, "tokens"),
    }
    for arm in RIGID_ARMS:
        overfit = lost(arm + LIFTED)
        name = f"{arm}: pass@1 lost when it is lifted"
        found[name] = spread(overfit, "share", more, mean(overfit) > toggled)
    return found


def ptx(bench: Bench, seeds: Sequence[int]) -> dict[str, Figure]:
    """With PTX and without: how much less likely demonstrations of held-out tasks become."""
    kept, free = (
        {s: forgetting(bench.run(arm, s), bench.start(s)) for s in seeds} for arm in (WITH, BASE)
    )
    gap = {s: last_reward(bench.run(WITH, s)) - last_reward(bench.run(BASE, s)) for s in seeds}
    return {
        "PTX: held-out nll rise with it": spread(
            kept, "nat/token", "< 0.1 x without", mean(kept) < 0.1 * mean(free)
        ),
        "PTX: held-out nll rise without it": spread(free, "nat/token"),
        "PTX: reward, with - without": spread(gap, "reward", ">= -0.02", mean(gap) >= -0.02),
    }


COMPARED = {"toggle": toggle, "retries": toggle, "ptx": ptx}


def last_reward(run: Path) -> float:
    """Mean training reward of the last five steps."""
    reward: float = json.loads((run / "summary.json").read_text())["reward"]["last5"]
    return reward


def mean(by_seed: Mapping[int, float]) -> float:
    """Over the seeds."""
    return statistics.fmean(by_seed.values())


if __name__ == "__main__":
    main()
