"""Whole runs as the arms of a comparison: started, found again, and read."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from palestra.deploy.boxes import cache_folder
from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.tasks import workshop
from palestra.deploy.warm_start import demonstrations
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.journal import Journal
from palestra.rl.problem_budgets import KEY
from palestra.rl.train import last_checkpoint
from palestra.rl.types import Sample
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.tokens import Chat

PALESTRA = str(Path(sys.executable).with_name("palestra"))
SPLIT = "heldout_mutations"


def train(recipe: str, run: Path, overrides: Sequence[str]) -> Path:
    """A whole run, or what is left of it: a finished one is not started again."""
    if finished(run):
        return run
    command = [PALESTRA, "train", recipe, "--run", str(run)]
    for override in overrides:
        command += ["--set", override]
    print("$", " ".join(command), flush=True)
    run.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return run


def finished(run: Path) -> bool:
    """Whether the run is over and has been evaluated."""
    summary = run / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] == "done"


def metrics(run: Path, name: str) -> list[float]:
    """A metric of every step that has it."""
    return list(metrics_by_step(run, name).values())


def metrics_by_step(run: Path, name: str) -> dict[int, float]:
    """The same, by the number of the step."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        return {step: values[name] for step, values in journal.steps() if name in values}


def final(run: Path) -> Path:
    """The last checkpoint of a finished run."""
    found = last_checkpoint(run / "checkpoints")
    assert found is not None, f"{run} has no checkpoint"
    return found


def generated(run: Path) -> float:
    """Mean generated tokens of the run's last evaluation."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        episodes = journal.eval_trajectories(journal.last_step() or 0, SPLIT)
    return statistics.fmean(t.generated for t in episodes)


def pass_at_1(run: Path, after: int | None = None) -> float:
    """Share of the episodes of the evaluation after so many steps (by default the last) that solved
    their task."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        rows = journal.evals(journal.last_step() or 0 if after is None else after, SPLIT)
    return statistics.fmean(row.solved for row in rows)


def replayed(run: Path) -> float:
    """Share of the tokens of all training episodes that have a record of their experts, which is
    what the learner replays."""
    known = tokens = 0
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        for step, _ in journal.steps():
            for turn in (turn for t in journal.trajectories(step) for turn in t.turns):
                known += turn.routing.tokens if turn.routing else 0
                tokens += len(turn.context_ids) + len(turn.token_ids)
    return known / tokens


def estimated_budget(run: Path, limit: int) -> int:
    """Mean of the budgets that Toggle estimated from correct episodes; problems that nobody had
    solved got ``limit``, which is no estimate."""
    with Journal(run / "journal.sqlite", read_only=True) as journal:
        tasks = {group.task_id for group in journal.groups()}
        budgets = [journal.get_meta(KEY + task) for task in tasks]
    return round(statistics.fmean(b for b in budgets if isinstance(b, float) and b < limit))


def forgetting(run: Path, start: Path) -> float:
    """How much less likely the demonstrations of held-out tasks have become since ``start``, in nat
    per taught token. Computed once, and kept in the run's folder."""
    kept = run / "forgetting.json"
    if not kept.exists():
        samples = asyncio.run(_heldout_demonstrations(run, start))
        before, after = nll(start, samples), nll(final(run), samples)
        kept.write_text(json.dumps({"before": before, "after": after}) + "\n")
    both: dict[str, float] = json.loads(kept.read_text())
    return both["after"] - both["before"]


async def _heldout_demonstrations(run: Path, start: Path) -> list[Sample]:
    """What the supervised stage would have learned from the held-out tasks."""
    config = load_recipe(run / "config.toml").config
    with Console(stream=sys.stderr) as console:
        async with workshop(config, cache_folder() / "validation", console) as shop:
            tasks = shop.tasks.split(SPLIT)
            chat = Chat(HFTokenizer(start), DIALECTS[config.rollout.dialect])
            return demonstrations(config, shop.env, chat, tasks, 0, console.say)


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
