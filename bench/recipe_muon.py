"""Do attention logits explode under Muon, and does QK-Clip hold them?

    .venv/bin/python bench/recipe_muon.py [--seeds 0 1 2] [--steps 200]

A toy without norms on queries and keys (Llama, two layers, four heads) learns to repeat random
sequences with a learning rate far too high, four times from the weights of each seed: Muon and
AdamW, each with QK-Clip and without. Writes bench/results/recipe_muon.json: the largest attention
logit of the last ten steps and of all since the first clip, and the loss, of each.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from report import machine_of, spread, write_report

from palestra.policies.config import LearnerConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.tiny import build
from palestra.rl.types import Batch, Sample

RESULT = Path(__file__).resolve().parent / "results" / "recipe_muon.json"
TAU = 100.0
HELD, EXPLODED = 1.5 * TAU, 3 * TAU
VOCABULARY = 300
COMMON: dict[str, Any] = {"qk_clip": True, "threads": 1, "row_tokens": 256}
OUT_OF_REACH = 1e30
"""With such a threshold QK-Clip only measures."""
ARMS: dict[str, dict[str, Any]] = {
    "Muon with QK-Clip": {"optimizer": "muon", "qk_clip_tau": TAU},
    "Muon": {"optimizer": "muon", "qk_clip_tau": OUT_OF_REACH},
    "AdamW with QK-Clip": {"optimizer": "adamw", "qk_clip_tau": TAU},
    "AdamW": {"optimizer": "adamw", "qk_clip_tau": OUT_OF_REACH},
}
Steps = Sequence[Mapping[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=0.05, help="of Muon")
    parser.add_argument("--adamw-lr", type=float, default=0.02)
    args = parser.parse_args()
    rates = {"muon": args.lr, "adamw": args.adamw_lr}
    runs: dict[str, dict[int, Steps]] = {arm: {} for arm in ARMS}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            toy(Path(folder), seed)
            for arm, setting in ARMS.items():
                config = LearnerConfig(lr=rates[setting["optimizer"]], **COMMON | setting)
                runs[arm][seed] = train(folder, config, args.steps, seed)
    figures = {name: f for arm, found in runs.items() for name, f in of_arm(arm, found).items()}
    how = f"bench/recipe_muon.py --steps {args.steps} --lr {args.lr} --adamw-lr {args.adamw_lr}"
    write_report(RESULT, figures, how, machine_of())


def toy(folder: Path, seed: int) -> None:
    """Tokenizer of the tiny policy, and a Llama with plain queries and keys."""
    from transformers import LlamaConfig, LlamaForCausalLM

    build(folder, TinyConfig(vocab_size=VOCABULARY, layers=1), ["def add(a, b):\n"], [], seed=seed)
    torch.manual_seed(seed)
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


def train(folder: str, config: LearnerConfig, steps: int, seed: int) -> Steps:
    """Metrics of every step."""
    learner = DeepSpeedLearner(folder, config, None)
    return [
        dict(learner.learn(batch(step, random.Random(f"{seed}/{step}")))) for step in range(steps)
    ]


def batch(step: int, rng: random.Random) -> Batch:
    """Sixteen sequences of sixteen random tokens, each twice; only the second time is learned."""
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


def of_arm(arm: str, runs: Mapping[int, Steps]) -> dict[str, dict[str, object]]:
    """Logits are measured before each step, so a clipped head may stand a little above tau."""
    clips = ARMS[arm]["qk_clip_tau"] == TAU
    last = {seed: max(logits(steps)[-10:]) for seed, steps in runs.items()}
    peak = {seed: max(since_the_first_clip(logits(steps))) for seed, steps in runs.items()}
    loss = {seed: nll(steps[-10:]) for seed, steps in runs.items()}
    return {
        f"{arm}: largest attention logit, last 10 steps": (
            spread(last, "", f"< {HELD:g}", max(last.values()) < HELD)
            if clips
            else spread(last, "", f"> {EXPLODED:g}", min(last.values()) > EXPLODED)
        ),
        f"{arm}: largest attention logit since the first clip": (
            spread(peak, "", f"< {HELD:g}", max(peak.values()) < HELD)
            if clips
            else spread(peak, "")
        ),
        f"{arm}: loss, last 10 steps": spread(loss, "nats"),
    }


def logits(steps: Steps) -> list[float]:
    """The largest attention logit of every step."""
    return [step["actor/max_logit"] for step in steps]


def since_the_first_clip(found: Sequence[float]) -> Sequence[float]:
    """All after the first that is above tau, where a clip acts or would."""
    first = next((n for n, logit in enumerate(found) if logit > TAU), len(found) - 1)
    return found[first + 1 :] or found[-1:]


def nll(steps: Steps) -> float:
    """Mean loss."""
    return statistics.fmean(step["ptx/nll"] for step in steps)


if __name__ == "__main__":
    main()
