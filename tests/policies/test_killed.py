"""A learner that was killed goes on from its checkpoint as if nothing had been.

As a program, ``test_killed.py FOLDER OUT`` is the learner that dies: for every kind it learns
``SAVED`` steps and saves ``OUT/KIND``; then it begins another step and kills itself after the first
of its updates.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.types import Batch, Sample

SAVED, STEPS = 2, 4
KINDS = {
    # Moments that a resume must not bring back, beside a learning rate that counts updates.
    "adamw": PolicyLoss(
        objective=MirrorDescent(tau=0.3), old_logprobs="learner", reset_optimizer=True
    ),
    # Momentum that it must bring back, for matrices and for the rest; a reference that stays.
    "muon": PolicyLoss(
        objective=PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.2),
        kl=KlPenalty(coef=0.1, type="k3"),
    ),
}


def learner(folder: str, kind: str) -> DeepSpeedLearner:
    config = LearnerConfig(
        optimizer=kind,  # type: ignore[arg-type]
        lr=3e-3,
        warmup_steps=4,
        decay_steps=20,
        weight_decay=0.1,
        threads=1,
        row_tokens=64,
        micro_batch_tokens=128,
    )
    return DeepSpeedLearner(folder, config, KINDS[kind])


def batch(step: int) -> Batch:
    """Three updates."""
    rng = random.Random(step)
    samples = []
    for _ in range(8):
        size = rng.randrange(5, 25)
        mask = [t > 2 and rng.random() < 0.7 for t in range(size)]
        samples.append(
            Sample(
                token_ids=tuple(rng.randrange(400) for _ in range(size)),
                loss_mask=tuple(mask),
                logprobs=tuple(-6.0 if m else 0.0 for m in mask),
                advantages=tuple(rng.uniform(-1, 1) if m else 0.0 for m in mask),
                ptx=(0.0,) * size,
            )
        )
    return Batch(step=step, samples=tuple(samples), mini_batches=(3, 3, 2))


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture(scope="module")
def left(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process wrote before it killed itself between two updates."""
    out = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, __file__, str(tiny), str(out)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_mini_batches_resets_and_muon_go_on_bit_for_bit(tiny: Path, left: Path, kind: str) -> None:
    whole, resumed = (learner(str(tiny), kind) for _ in range(2))
    expected = [dict(whole.learn(batch(step))) for step in range(STEPS)]
    resumed.load(str(left / kind))
    later = range(SAVED, STEPS)
    assert [dict(resumed.learn(batch(step))) for step in later] == expected[SAVED:]
    weights = dict(whole.named_weights())
    assert all(torch.equal(weights[name], now) for name, now in resumed.named_weights())
    assert resumed.steps == whole.steps == 3 * STEPS


def main() -> None:
    folder, out = sys.argv[1], Path(sys.argv[2])
    for kind in KINDS:
        made = learner(folder, kind)
        for step in range(SAVED):
            made.learn(batch(step))
        made.save(str(out / kind))
    update = made._update

    def die_after_it(*args: object, **kwargs: object) -> object:
        update(*args, **kwargs)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    made._update = die_after_it  # type: ignore[method-assign, assignment]
    made.learn(batch(SAVED))


if __name__ == "__main__":
    main()
