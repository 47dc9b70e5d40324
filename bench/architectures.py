"""Do the embedded policy's other architectures train end to end: experts, and latent attention?

    .venv/bin/python bench/architectures.py [--architectures qwen3_moe deepseek_v3]

Each is a whole `palestra train` of the tiny recipe on the CPU, with every choice of experts
recorded and replayed, after a supervised stage that leaves some tasks half solved. A run that is
over is not started again. Writes bench/results/architectures.json, and fails where no step had a
policy gradient, or engine and learner differ by more than `GAP`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from recipe_runs import metrics_by_step, pass_at_1, replayed, train
from report import machine_of, spread, write_report

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "architectures.json"
RECIPE = ROOT / "recipes" / "tiny.toml"
ARCHITECTURES = ("qwen3_moe", "deepseek_v3")
GROUPS = 8
SETTING = (
    "policy.engine.return_routed_experts=true",
    "policy.learner.router_replay=true",
    "tasks.max_lines=3",
    "policy.sft={corpus_steps = 5, steps = 80, batch_size = 32, mistakes = 0.15}",
    "policy.learner.warmup_steps=0",
    "policy.learner.threads=1",
    "rollout.max_turns=3",
    "rollout.episode_timeout=3600",  # on a busy machine an episode that is late would be cut
    "rl.steps=4",
    f"rl.train_batch_size={GROUPS}",
    "rl.ptx.coef=0",  # what is learned from is sampled
    'rl.eval.splits=["heldout_mutations"]',
)
GAP = 1e-4
"""Nats between engine and learner for a sampled token, in float32."""
OTHERWISE = 0.01
"""Share of the choices of experts that the learner's own routers would make otherwise."""

Figure = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-architectures")
    args = parser.parse_args()
    figures: dict[str, Figure] = {}
    for name in args.architectures:
        overrides = (f"policy.tiny.architecture={name}", f"seed={args.seed}", *SETTING)
        run = train(str(RECIPE), args.runs / f"{name}-{args.seed}", overrides)
        figures |= {f"{name}: {what}": figure for what, figure in of_run(run).items()}
        write_report(RESULT, figures, f"bench/architectures.py --seed {args.seed}", machine_of())
    sys.exit(any(figure["met"] is False for figure in figures.values()))


def of_run(run: Path) -> dict[str, Figure]:
    """What a run learned from, and how far apart its engine and learner were."""
    by_step = partial(metrics_by_step, run)
    gradients = by_step("actor/grad_norm")
    signals = {s: GROUPS * (1 - equal) for s, equal in by_step("sampling/uniform_frac").items()}
    learned = [step for step, groups in signals.items() if groups and gradients[step]]
    if not learned:
        sys.exit(f"{run}: no step had a policy gradient")
    found = {
        "reward": over_steps(by_step("reward/mean"), "reward"),
        f"groups of {GROUPS} with a signal": over_steps(signals, "groups"),
        "steps with a policy gradient": number(len(learned), "steps"),
        "norm of the gradient": over_steps(gradients, ""),
        "tokens whose recorded experts were replayed": number(replayed(run), "share"),
        "pass@1 before": number(pass_at_1(run, 0), "share"),
        "pass@1 after": number(pass_at_1(run), "share"),
    }
    bounds = {
        "mismatch/probe_max": ("largest gap after an update", "nat", GAP),
        "mismatch/logprob_abs_diff_max": ("largest gap of a token learned from", "nat", GAP),
        "mismatch/router_diff_frac": ("experts chosen otherwise", "share", OTHERWISE),
        "mismatch/router_logprob_gap": ("router gap of a choice", "nat", GAP),
    }
    for metric, (what, unit, bound) in bounds.items():
        values = by_step(metric)
        found[what] = over_steps(values, unit, f"<= {bound:g}", max(values.values()) <= bound)
    return found


over_steps = partial(spread, over="steps")


def number(value: float, unit: str, target: str = "reported", met: bool | None = None) -> Figure:
    return {"value": value, "unit": unit, "target": target, "met": met}


if __name__ == "__main__":
    main()
