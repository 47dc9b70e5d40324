"""Memory of a training step on one long sample, beside what all logits or all scores would take.

    .venv/bin/python bench/long_samples.py [--tokens 8192 32768] [--vocabulary 151936]
        [--architectures qwen3 qwen3_moe deepseek_v3]

Writes bench/results/long_samples.json: the peak memory of a learner's step (forward, backward,
AdamW) on one sample of a toy policy of each architecture, each length in a process of its own, less
what a step on a sample of 16 tokens took there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

from logprobs import figure, peak, sample
from report import machine_of, write_report

from palestra.policies.config import LearnerConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.tiny import build
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch

RESULT = Path(__file__).resolve().parent / "results" / "long_samples.json"
SHORT = 16
ARCHITECTURES = get_args(TinyConfig.model_fields["architecture"].annotation)
Figure = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs=2, default=[8192, 32_768])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    args = parser.parse_args()
    figures: dict[str, Figure] = {}
    for name in args.architectures:
        with tempfile.TemporaryDirectory() as folder:
            toy(Path(folder), name, args.vocabulary, max(args.tokens))
            gib = {tokens: step_alone(folder, tokens) for tokens in sorted(args.tokens)}
        found = compared(gib, args.vocabulary)
        figures |= {f"{name}, {what}": measured for what, measured in found.items()}
    write_report(RESULT, figures, "bench/long_samples.py", machine_of())


def compared(gib: Mapping[int, float], vocabulary: int) -> dict[str, Figure]:
    """Of two lengths and the memory of each: how it grows, and what it is a share of."""
    (less, short), (more, long) = gib.items()
    slope = (long - short) / (more - less)
    logits = more * vocabulary * 4 / 2**30
    scores = more * more * 4 / 2**30
    return {
        f"{less} tokens: peak memory of a step": figure(short, "GiB"),
        f"{more} tokens: peak memory of a step": figure(long, "GiB"),
        "growth over growth of length": figure(
            long / short / (more / less), "", "<= 1", long / short <= more / less
        ),
        "growth per token": figure(slope * 2**20, "KiB"),
        "share of all logits in float32": figure(long / logits, "", "<= 0.125", long <= logits / 8),
        "one head's scores in float32": figure(scores, "GiB", "not reached", long < scores),
    }


def toy(folder: Path, architecture: str, vocabulary: int, tokens: int) -> None:
    """Two layers, 64 wide; ids above those of its tokenizer are never used."""
    shape = TinyConfig(
        architecture=architecture,
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=32,
        max_position_embeddings=tokens,
    )
    build(folder, shape, ["def add(a, b):\n    return a + b\n"], [], seed=0)


def step_alone(folder: str, tokens: int) -> float:
    """GiB that the step added to the peak; in a fresh process, as none forgets its peak."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=step, args=(folder, tokens, theirs))
    process.start()
    theirs.close()
    found: float = ours.recv()
    process.join()
    return found


def step(folder: str, tokens: int, answer: Connection) -> None:
    loss = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.01))
    learner = DeepSpeedLearner(folder, LearnerConfig(logprob_chunk=128), loss)
    learner.learn(batch(SHORT))
    before = peak()
    learner.learn(batch(tokens))
    answer.send(peak() - before)


def batch(tokens: int) -> Batch:
    return Batch(step=1, samples=(sample([n % 300 for n in range(tokens)], 4),))


if __name__ == "__main__":
    main()
