"""What the parts of the recipe do to a whole run: Toggle, PTX, temperature decay, objectives.

    .venv/bin/python bench/recipe.py [toggle] [ptx] [algorithms] [--seeds 0 1 2] [--jobs 2]

The arms of a seed start from one supervised policy, and differ in nothing but what ``ARMS`` says;
`--set KEY=VALUE` goes to all of them. A part is a comparison of some arms. Every arm is a whole
`palestra train` in a process of its own. A run that is over is not started again, so an interrupted
bench goes on where it was. Writes bench/results/recipe.json and recipe_algorithms.png after every
arm.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
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
from report import machine_of, write_report

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "recipe.json"
PICTURE = RESULT.with_name("recipe_algorithms.png")

LIMIT = 192
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
    f"rl.budget.by_kind={{repair = {LIMIT}}}",
    "rl.steps=25",
    "rl.train_batch_size=12",
    "rl.ptx.coef=0",
    'rl.eval.splits=["heldout_mutations"]',
    "rl.eval.limit=100",
    "rl.eval.samples=4",
)
RETRIES_LIMIT = 256
# Half of the demonstrations go on after an attempt that failed, and there are turns to do so: where
# more tokens are no use, a policy that never learned to use them loses nothing.
RETRIES = (
    "policy.sft={corpus_steps = 10, steps = 150, batch_size = 48, mistakes = 0.5, recites = 0.75}",
    "rollout.max_turns=6",
    "rollout.max_context_length=896",
    f"rl.budget.by_kind={{repair = {RETRIES_LIMIT}}}",
)
BASE, WITH, DECAY = "k25", "k25 with PTX", "k25 with temperature decay"
FREE, TOGGLE, RIGID, LIFTED = "free length", "toggle", "rigid budget", "rigid budget lifted"
ARMS: Mapping[str, Sequence[str]] = {
    FREE: (),
    # At the start few problems are solved half of the time.
    TOGGLE: ("rl.toggle.enable=true", "rl.toggle.min_accuracy=0.3", "rl.toggle.percentile=30"),
    BASE: (),
    WITH: ("rl.ptx.coef=4", "rl.ptx.samples_per_step=32"),
    DECAY: (
        "rl.temperature=1.2",
        'rl.temperature_decay={shape = "linear", final = 0.8, steps = 25}',
    ),
    "k15": ("rl.objective.name=k15",),
    "grpo": ("rl.objective.name=grpo",),
    "dapo": ("rl.objective.name=dapo",),
}


@dataclass(frozen=True)
class Part:
    """A comparison: its arms, what its runs are told besides ``SETTING``, and their folder."""

    arms: Sequence[str]
    setting: tuple[str, ...] = ()
    folder: str = "."


PARTS: Mapping[str, Part] = {
    "toggle": Part((FREE, TOGGLE, RIGID, LIFTED), RETRIES, "retries"),
    "ptx": Part((WITH, BASE)),
    "algorithms": Part((BASE, DECAY, "k15", "grpo", "dapo")),
}
Figure = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "tiny.toml"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-recipe")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    benches = {
        name: Bench(args.recipe, args.runs / part.folder, (*SETTING, *part.setting, *args.set))
        for name, part in PARTS.items()
    }
    # A run that two parts share is made once.
    wanted = dict.fromkeys(
        (benches[name], arm)
        for name in args.parts or PARTS
        for arm in PARTS[name].arms
        if arm in ARMS
    )
    for seed in args.seeds:
        for bench in {bench for bench, _ in wanted}:
            bench.start(seed)
        with ThreadPoolExecutor(args.jobs) as pool:
            for done in as_completed([pool.submit(bench.play, arm, seed) for bench, arm in wanted]):
                done.result()
                report(benches, args.seeds)


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
            train(self.recipe, run, [*self.setting, f"seed={seed}", "rl.steps=0"])
        return policy

    def play(self, arm: str, seed: int) -> None:
        """The run of an arm; Toggle's is followed by those that its budgets are for."""
        run = self._train(arm, seed, self.start(seed), ARMS[arm])
        if arm == TOGGLE:
            self._lifted(seed, estimated_budget(run, RETRIES_LIMIT))

    def _lifted(self, seed: int, budget: int) -> None:
        """Trained under one budget for all problems, and played without it."""
        tight = f"rl.budget.by_kind={{repair = {budget}}}"
        rigid = self._train(RIGID, seed, self.start(seed), [tight])
        self._train(LIFTED, seed, final(rigid), ["rl.steps=0"])

    def _train(self, arm: str, seed: int, policy: Path, more: Sequence[str]) -> Path:
        given = [f"policy.model={policy}", "policy.sft.steps=0", f"seed={seed}"]
        return train(self.recipe, self.run(arm, seed), [*self.setting, *given, *more])


def report(benches: Mapping[str, Bench], seeds: Sequence[int]) -> None:
    """Write the figures of the arms that are finished, and the curves."""
    runs = {arm: benches[name].run for name, part in PARTS.items() for arm in part.arms}
    over = {arm: [s for s in seeds if finished(run(arm, s))] for arm, run in runs.items()}
    figures = {
        name: each
        for arm, done in over.items()
        for name, each in of_arm(arm, {seed: runs[arm](arm, seed) for seed in done})
    }
    if compared := shared(over, "toggle"):
        figures |= toggle(benches["toggle"], compared)
    if compared := shared(over, "ptx"):
        figures |= ptx(benches["ptx"], compared)
    curves = {
        arm: [metrics(runs[arm](arm, seed), "reward/mean") for seed in over[arm]]
        for arm in PARTS["algorithms"].arms
        if over[arm]
    }
    reward_curves(curves, PICTURE)
    how = "bench/recipe.py, recipe " + Path(benches["ptx"].recipe).name
    write_report(RESULT, figures, how, machine_of())


def shared(over: Mapping[str, Sequence[int]], part: str) -> list[int]:
    """The seeds for which every arm of a part is finished."""
    first, *others = (over[arm] for arm in PARTS[part].arms)
    return [seed for seed in first if all(seed in seeds for seeds in others)]


def of_arm(arm: str, runs: Mapping[int, Path]) -> Iterator[tuple[str, Figure]]:
    """What an arm comes to for itself."""
    if not runs:
        return
    yield f"pass@1, {arm}", figure({s: pass_at_1(run) for s, run in runs.items()}, "share")
    tokens = {s: generated(run) for s, run in runs.items()}
    yield f"generated tokens per episode, {arm}", figure(tokens, "tokens")
    if arm != LIFTED:
        rewards = {s: last_reward(run) for s, run in runs.items()}
        yield f"reward of the last five steps, {arm}", figure(rewards, "reward")


def toggle(bench: Bench, seeds: Sequence[int]) -> dict[str, Figure]:
    """Free length, Toggle, and a rigid budget as large as Toggle's: tokens, and pass@1 when every
    policy may generate as much as the free one."""
    free, short, lifted = (partial(bench.run, arm) for arm in (FREE, TOGGLE, LIFTED))
    saved = {s: 1 - generated(short(s)) / generated(free(s)) for s in seeds}
    lost = {s: pass_at_1(free(s)) - pass_at_1(short(s)) for s in seeds}
    overfit = {s: pass_at_1(free(s)) - pass_at_1(lifted(s)) for s in seeds}
    budgets = {s: float(estimated_budget(short(s), RETRIES_LIMIT)) for s in seeds}
    return {
        "Toggle: generated tokens saved": figure(saved, "share", ">= 0.25", mean(saved) >= 0.25),
        "Toggle: pass@1 lost": figure(lost, "share", "<= 0.02", mean(lost) <= 0.02),
        "rigid budget: pass@1 lost when it is lifted": figure(
            overfit, "share", "> Toggle's", mean(overfit) > mean(lost)
        ),
        "rigid budget: its size": figure(budgets, "tokens"),
    }


def ptx(bench: Bench, seeds: Sequence[int]) -> dict[str, Figure]:
    """With PTX and without: how much less likely demonstrations of held-out tasks become."""
    kept, free = (
        {s: forgetting(bench.run(arm, s), bench.start(s)) for s in seeds} for arm in (WITH, BASE)
    )
    gap = {s: last_reward(bench.run(WITH, s)) - last_reward(bench.run(BASE, s)) for s in seeds}
    return {
        "PTX: held-out nll rise with it": figure(
            kept, "nat/token", "< 0.1 x without", mean(kept) < 0.1 * mean(free)
        ),
        "PTX: held-out nll rise without it": figure(free, "nat/token"),
        "PTX: reward, with - without": figure(gap, "reward", ">= -0.02", mean(gap) >= -0.02),
    }


def last_reward(run: Path) -> float:
    """Mean training reward of the last five steps."""
    reward: float = json.loads((run / "summary.json").read_text())["reward"]["last5"]
    return reward


def mean(by_seed: Mapping[int, float]) -> float:
    """Over the seeds."""
    return statistics.fmean(by_seed.values())


def figure(
    by_seed: Mapping[int, float], unit: str, target: str = "reported", met: bool | None = None
) -> Figure:
    """The mean over the seeds, its range, and what each of them came to."""
    values = by_seed.values()
    return {
        "value": mean(by_seed),
        "min": min(values),
        "max": max(values),
        "seeds": {str(seed): value for seed, value in by_seed.items()},
        "unit": unit,
        "target": target,
        "met": met,
    }


if __name__ == "__main__":
    main()
