"""What the parts of the recipe do to a whole run: Toggle against a rigid budget, PTX against none.

    .venv/bin/python bench/recipe.py [toggle] [ptx] [--seeds 0 1 2] [--set KEY=VALUE]

Every arm is a whole `palestra train` in a process of its own, the arms of a seed one after the
other: six minutes each on two cores. `--set` goes to all of them. Writes bench/results/recipe.json;
with parts named, only their figures are replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from report import machine_of, write_report

from palestra.deploy.boxes import cache_folder
from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.tasks import workshop
from palestra.deploy.warm_start import demonstrations, ptx_samples
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.journal import Journal
from palestra.rl.train import last_checkpoint
from palestra.rl.types import Sample
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.tokens import Chat

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "recipe.json"
PALESTRA = str(Path(sys.executable).with_name("palestra"))
SPLIT = "heldout_mutations"
# Room for half a dozen attempts: what an episode generates is up to the policy.
LONG = (
    "rollout.max_turns=14",
    "rollout.max_context_length=768",
    "rl.budget.by_kind={repair = 256}",
)
Figures = dict[str, dict[str, object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "tiny.toml"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-recipe")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    figures: Figures = {}
    if RESULT.exists() and args.parts:
        figures = json.loads(RESULT.read_text())["figures"]
    for part in args.parts or PARTS:
        figures |= PARTS[part](args)
    how = "bench/recipe.py, recipe " + Path(args.recipe).name
    write_report(RESULT, figures, how, machine_of())


def toggle(args: argparse.Namespace) -> Figures:
    """Free length, Toggle, and a rigid budget as large as Toggle's: tokens, and pass@1 when every
    arm may generate as much as the free one."""
    tokens: dict[str, list[float]] = {"free": [], "toggle": []}
    passes: dict[str, list[float]] = {"free": [], "toggle": [], "rigid": []}
    for seed in args.seeds:
        free = train(args, f"toggle-free-{seed}", seed, LONG)
        short = train(args, f"toggle-on-{seed}", seed, [*LONG, "rl.toggle.enable=true"])
        budget = round(statistics.fmean(metrics(short, "toggle/budget/mean")))
        tight = [*LONG, f"rl.budget.by_kind={{repair = {budget}}}"]
        rigid = train(args, f"toggle-rigid-{seed}", seed, tight)
        for arm, run in (("free", free), ("toggle", short), ("rigid", rigid)):
            passes[arm].append(pass_at_1(run))
            if arm in tokens:
                tokens[arm].append(generated(run))
    saved = 1 - statistics.fmean(tokens["toggle"]) / statistics.fmean(tokens["free"])
    mean = {arm: statistics.fmean(values) for arm, values in passes.items()}
    lost = {arm: mean["free"] - mean[arm] for arm in ("toggle", "rigid")}
    return {
        "Toggle: generated tokens saved": figure(saved, "share", ">= 0.25", saved >= 0.25),
        "Toggle: pass@1 lost": figure(lost["toggle"], "share", "<= 0.02", lost["toggle"] <= 0.02),
        "rigid budget: pass@1 lost when it is lifted": figure(
            lost["rigid"], "share", "> Toggle's", lost["rigid"] > lost["toggle"]
        ),
        **{f"pass@1, {arm}": figure(value, "share") for arm, value in mean.items()},
        **{
            f"generated tokens per episode, {arm}": figure(statistics.fmean(values), "tokens")
            for arm, values in tokens.items()
        },
    }


def ptx(args: argparse.Namespace) -> Figures:
    """With PTX and without: how much less likely demonstrations of held-out tasks become."""
    rise: dict[str, list[float]] = {"with": [], "without": []}
    mixed: dict[str, list[float]] = {"with": [], "without": []}
    reward: dict[str, list[float]] = {"with": [], "without": []}
    for seed in args.seeds:
        for arm, more in (("with", []), ("without", ["rl.ptx.coef=0.0"])):
            run = train(args, f"ptx-{arm}-{seed}", seed, more)
            careful, whole = asyncio.run(heldout_demonstrations(run))
            rise[arm].append(nll(final(run), careful) - nll(run / "sft", careful))
            mixed[arm].append(nll(final(run), whole) - nll(run / "sft", whole))
            reward[arm].append(json.loads((run / "summary.json").read_text())["reward"]["last5"])
    mean = {arm: statistics.fmean(values) for arm, values in rise.items()}
    rewards = {arm: statistics.fmean(values) for arm, values in reward.items()}
    gap = rewards["with"] - rewards["without"]
    kept = mean["with"] < 0.1 * mean["without"]
    return {
        "PTX: held-out nll rise with it": figure(
            mean["with"], "nat/token", "< 0.1 x without", kept
        ),
        "PTX: held-out nll rise without it": figure(mean["without"], "nat/token"),
        "PTX: reward, with - without": figure(gap, "reward", ">= -0.02", gap >= -0.02),
        **{
            f"PTX: nll rise on the whole SFT mixture, {arm}": figure(
                statistics.fmean(values), "nat/token"
            )
            for arm, values in mixed.items()
        },
    }


def figure(
    value: float, unit: str, target: str = "reported", met: bool | None = None
) -> dict[str, object]:
    return {"value": value, "unit": unit, "target": target, "met": met}


def train(args: argparse.Namespace, name: str, seed: int, more: Iterable[str]) -> Path:
    """One whole run in a fresh folder."""
    run: Path = args.runs / name
    shutil.rmtree(run, ignore_errors=True)
    command = [PALESTRA, "train", args.recipe, "--run", str(run), "--set", f"seed={seed}"]
    for override in (*more, *args.set):
        command += ["--set", override]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)
    return run


def metrics(run: Path, name: str) -> list[float]:
    """A metric of every step that has it."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        return [values[name] for _, values in journal.steps() if name in values]


def final(run: Path) -> Path:
    """The last checkpoint of a finished run."""
    found = last_checkpoint(run / "checkpoints")
    assert found is not None, f"{run} has no checkpoint"
    return found


def generated(run: Path) -> float:
    """Mean generated tokens of the evaluation after training."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        episodes = journal.eval_trajectories(journal.last_step() or 0, SPLIT)
    return statistics.fmean(t.generated for t in episodes)


def pass_at_1(run: Path) -> float:
    """pass@1 of the final policy on the held-out tasks, with all the room that ``LONG`` gives."""
    config = load_recipe(run / "config.toml").config
    command = [PALESTRA, "eval", str(final(run)), "--tasks", config.tasks.source, "--json"]
    command += ["--limit", str(config.rl.eval.limit)]
    for override in LONG:
        command += ["--set", override]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    score: float = json.loads(done.stdout)[SPLIT]["pass@1"]
    return score


async def heldout_demonstrations(run: Path) -> tuple[list[Sample], list[Sample]]:
    """Demonstrations of held-out tasks: the careful ones alone, which PTX keeps, and of the quality
    that the supervised stage learned from."""
    config = load_recipe(run / "config.toml").config
    ptx = config.rl.ptx.model_copy(update={"coef": 1.0})
    careful = config.model_copy(update={"rl": config.rl.model_copy(update={"ptx": ptx})})
    with Console(stream=sys.stderr) as console:
        async with workshop(config, cache_folder() / "validation", console) as shop:
            tasks = shop.tasks.split(SPLIT)[: config.rl.eval.limit]
            chat = Chat(HFTokenizer(run / "sft"), DIALECTS[config.rollout.dialect])
            mixture = demonstrations(config, shop.env, chat, tasks, 0, console.say)
            return ptx_samples(careful, shop.env, chat, tasks), mixture


def nll(policy: Path, samples: Sequence[Sample]) -> float:
    """Mean negative log-likelihood of the tokens that the samples teach, in nat."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    total = weight = 0.0
    with torch.no_grad():
        for sample in samples:
            ids = torch.tensor([sample.token_ids])
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
            chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0]
            taught = torch.tensor(sample.ptx[1:])
            total -= float((chosen * taught).sum())
            weight += float(taught.sum())
    return total / weight if weight else math.nan


PARTS: Mapping[str, Callable[[argparse.Namespace], Figures]] = {"toggle": toggle, "ptx": ptx}

if __name__ == "__main__":
    main()
