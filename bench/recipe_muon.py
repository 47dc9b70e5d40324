"""Do attention logits explode under Muon, and does QK-Clip hold them?

    .venv/bin/python bench/recipe_muon.py [--steps 120]

A toy without norms on queries and keys (Llama, two layers, four heads) learns to repeat random
sequences with a learning rate far too high, four times from the same weights: Muon and AdamW, each
with QK-Clip and without. Writes bench/results/recipe_muon.json: the largest attention logit of the
last ten steps, and the loss, of each.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from report import machine_of, write_report

from palestra.policies.config import LearnerConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.tiny import build
from palestra.rl.types import Batch, Sample

RESULT = Path(__file__).resolve().parent / "results" / "recipe_muon.json"
TAU = 100.0
VOCABULARY = 300
COMMON: dict[str, Any] = {"qk_clip": True, "threads": 1, "row_tokens": 256}
SETTINGS: dict[str, dict[str, Any]] = {
    "Muon with QK-Clip": {"optimizer": "muon", "qk_clip_tau": TAU},
    "Muon": {"optimizer": "muon", "qk_clip_tau": 1e30},
    "AdamW with QK-Clip": {"optimizer": "adamw", "qk_clip_tau": TAU},
    "AdamW": {"optimizer": "adamw", "qk_clip_tau": 1e30},
}
"""With a threshold out of reach QK-Clip only measures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toy(Path(folder))
        runs = {
            name: train(folder, LearnerConfig(lr=args.lr, **COMMON | setting), args.steps)
            for name, setting in SETTINGS.items()
        }
    write_report(RESULT, figures(runs), f"bench/recipe_muon.py --steps {args.steps}", machine_of())


def toy(folder: Path) -> None:
    """Tokenizer of the tiny policy, and a Llama with plain queries and keys."""
    from transformers import LlamaConfig, LlamaForCausalLM

    build(folder, TinyConfig(vocab_size=VOCABULARY, layers=1), ["def add(a, b):\n"], [], seed=0)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)


def train(folder: str, config: LearnerConfig, steps: int) -> list[dict[str, float]]:
    """Metrics of every step."""
    learner = DeepSpeedLearner(folder, config, None)
    return [dict(learner.learn(batch(step))) for step in range(steps)]


def batch(step: int) -> Batch:
    """Sixteen sequences of sixteen random tokens, each twice; only the second time is learned."""
    rng = random.Random(step)
    samples = []
    for _ in range(16):
        half = tuple(rng.randrange(3, VOCABULARY) for _ in range(16))
        samples.append(
            Sample(
                token_ids=half + half,
                loss_mask=(False,) * 32,
                logprobs=(0.0,) * 32,
                advantages=(0.0,) * 32,
                ptx=(0.0,) * 16 + (1.0,) * 16,
            )
        )
    return Batch(step=step, samples=tuple(samples))


def figures(runs: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, object]]:
    """Measured before each step, so a clipped head may stand a little above tau."""
    found: dict[str, dict[str, object]] = {}
    for name, steps in runs.items():
        clipped = SETTINGS[name]["qk_clip_tau"] == TAU
        last = [step["actor/max_logit"] for step in steps[-10:]]
        found[f"{name}: largest attention logit, last 10 steps"] = {
            "value": max(last),
            "unit": "",
            "target": f"< {1.5 * TAU:g}" if clipped else f"> {3 * TAU:g}",
            "met": max(last) < 1.5 * TAU if clipped else max(last) > 3 * TAU,
        }
        loss = sum(step["ptx/nll"] for step in steps[-10:]) / 10
        found[f"{name}: loss, last 10 steps"] = {"value": loss, "unit": "nats", "target": ""}
    return found


if __name__ == "__main__":
    main()
