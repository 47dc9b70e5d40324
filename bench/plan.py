"""What ``palestra plan`` foretells of a learner's memory beside what a step takes on CPU.

    .venv/bin/python bench/plan.py

Writes bench/results/plan.json: for a toy of 34 million parameters, the peak memory that building
a learner and two steps (forward, backward, AdamW) add in a process of their own, and the plan's sum
of states and activations; with all activations kept and with layers computed again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from logprobs import figure, peak, sample
from report import machine_of, write_report

from palestra.deploy.plan.memory import GIB, activations, states
from palestra.policies.config import LearnerConfig, LoraConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.shape import ModelShape, shape_of
from palestra.policies.tiny import build
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch

RESULT = Path(__file__).resolve().parent / "results" / "plan.json"
TOKENS = 4096
TOY = TinyConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1536,
    layers=8,
    heads=8,
    kv_heads=4,
    head_dim=64,
    max_position_embeddings=TOKENS,
)


def main() -> None:
    figures: dict[str, dict[str, object]] = {}
    # Freed memory goes back at once, as a GPU's does within torch; else the peak counts it, too.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), TOY, ["def add(a, b):\n    return a + b\n"], [], seed=0)
        config = json.loads((Path(folder) / "config.json").read_text())
        shape = shape_of(config, LoraConfig())
        for name, again in (("all kept", False), ("layers computed again", True)):
            learner = LearnerConfig(gradient_checkpointing=again, logprob_chunk=256)
            foretold, measured = planned(shape, learner), step_alone(folder, learner)
            ratio = foretold / measured
            figures[f"{name}: measured"] = figure(measured, "GiB")
            figures[f"{name}: planned"] = figure(foretold, "GiB")
            figures[f"{name}: planned / measured"] = figure(
                ratio, "", "0.9 to 1.1", 0.9 <= ratio <= 1.1
            )
    write_report(RESULT, figures, "bench/plan.py", machine_of())


def planned(shape: ModelShape, learner: LearnerConfig) -> float:
    """GiB of a rank alone, before the allowance for fragments."""
    held = sum(states(shape, learner, 1, lora=False).values())
    return (held + activations(shape, learner, TOKENS)) / GIB


def step_alone(folder: str, learner: LearnerConfig) -> float:
    """GiB that a learner and its step add to the peak of a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=step, args=(folder, learner, theirs))
    process.start()
    theirs.close()
    found: float = ours.recv()
    process.join()
    return found


def step(folder: str, learner: LearnerConfig, answer: Connection) -> None:
    with tempfile.TemporaryDirectory() as small:
        # What libraries take once, whatever the model.
        build(Path(small), TinyConfig(), ["def add(a, b):\n    return a + b\n"], [], seed=0)
        started(small, learner).learn(batch(16))
    before = peak()
    ours = started(folder, learner)
    for _ in range(2):  # the first has no moments yet
        ours.learn(batch(TOKENS))
    answer.send(peak() - before)


def started(folder: str, learner: LearnerConfig) -> DeepSpeedLearner:
    return DeepSpeedLearner(
        folder, learner, PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.01))
    )


def batch(tokens: int) -> Batch:
    return Batch(step=1, samples=(sample([n % 300 for n in range(tokens)], 4),))


if __name__ == "__main__":
    main()
