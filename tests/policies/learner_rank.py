"""One of several learner ranks, as a process: ``learner_rank.py POLICIES OUT RANK SIZE PORT``.

For every case, rank 0 writes to OUT the metrics of each step (``NAME.json``), an export after them
(``NAME/``), and one after another step and a return to a checkpoint (``NAME-again/``). Every rank
writes what it hears of a checkpoint that the last one cannot write (``NAME.refused-RANK``).
"""

from __future__ import annotations

import json
import random
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from palestra.policies.config import LearnerConfig, QatConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.process_group import Ranks
from palestra.policies.routing import record_of
from palestra.rl.errors import CheckpointError
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Routing, Sample

STEPS = 3
FOUR_BITS = QatConfig(enabled=True)
CASES: dict[str, dict[str, Any]] = {
    **{f"dense-{how}-{stage}": {} for how in ("adamw", "muon") for stage in (1, 2, 3)},
    "experts-adamw-1": {"router_replay": True, "qat": FOUR_BITS},
    "experts-muon-3": {"router_replay": True, "qat": FOUR_BITS},
    "latent-muon-2": {},
    "latent-adamw-3": {"router_replay": True, "gradient_checkpointing": True},
}
"""By policy, optimizer and ZeRO stage: settings beyond those of all."""
SIZES: dict[str, tuple[int, ...]] = {"adamw": (), "muon": (3, 4)}
LOSSES = {
    "adamw": PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05)),
    # Sequences as wholes, several updates, a reference: what a share of the rows could break.
    "muon": PolicyLoss(
        objective=Gspo(clip_ratio_low=0.5, clip_ratio_high=0.5),
        old_logprobs="learner",
        kl=KlPenalty(coef=0.1, type="k3"),
        on_mismatch="skip",
        mismatch_limit=10.0,
    ),
}


def batch(seed: int, sizes: tuple[int, ...], *, routed: bool) -> Batch:
    """Rows of one, two and three samples, of unlike lengths; of a mini-batch an odd number, so that
    a rank has none."""
    rng = random.Random(seed)
    samples = []
    for size in (30, 28, 14, 15, 9, 9, 10):
        policy = [t > 2 and rng.random() < 0.7 for t in range(size)]
        samples.append(
            Sample(
                token_ids=tuple(rng.randrange(400) for _ in range(size)),
                loss_mask=tuple(policy),
                logprobs=tuple(-6.0 if p else 0.0 for p in policy),
                advantages=tuple(rng.uniform(-1, 1) if p else 0.0 for p in policy),
                ptx=tuple(0.0 if p or t < 3 else 1.0 for t, p in enumerate(policy)),
                # One has no record, and shares its row with one that has.
                routing=any_experts(size, seed) if routed and size != 10 else None,
            )
        )
    return Batch(step=seed, samples=tuple(samples), mini_batches=sizes)


def any_experts(size: int, seed: int) -> Routing:
    """Two of four experts of one layer for every token but the last."""
    rng = np.random.default_rng([size, seed])
    chosen = rng.permuted(np.tile(np.arange(4, dtype=np.uint8), (size - 1, 1, 1)), axis=-1)
    return record_of(chosen[..., :2])


def main() -> None:
    policies, out = Path(sys.argv[1]), Path(sys.argv[2])
    rank, size, port = map(int, sys.argv[3:])
    for name, settings in CASES.items():
        learn(name, settings, policies, out / name, Ranks(rank=rank, size=size, port=port))


def learn(name: str, settings: dict[str, Any], policies: Path, out: Path, ranks: Ranks) -> None:
    policy, optimizer, stage = name.split("-")
    config = LearnerConfig(
        optimizer=optimizer,  # type: ignore[arg-type]
        zero_stage=int(stage),  # type: ignore[arg-type]
        lr=3e-3,
        eps=1e-4,
        weight_decay=0.1,
        row_tokens=30,
        micro_batch_tokens=30,
        logprob_chunk=5,  # ranks have unlike numbers of chunks
        qk_clip=True,
        qk_clip_tau=1.5,
        threads=1,
        **settings,
    )
    folder, loss = str(policies / policy), LOSSES[optimizer]
    batches = [batch(seed, SIZES[optimizer], routed=policy != "dense") for seed in range(STEPS + 1)]
    learner = DeepSpeedLearner(folder, config, loss, ptx_coef=0.3, ranks=ranks)
    metrics = [dict(learner.learn(batch)) for batch in batches[:STEPS]]
    learner.export(str(out))
    last = ranks.rank == ranks.size - 1
    refused = save_in_vain(learner, out.with_name("in-vain"), on_me=last)
    out.with_suffix(f".refused-{ranks.rank}").write_text(refused)
    learner.save(str(out.with_name("checkpoint")))
    learner.learn(batches[STEPS])
    learner.load(str(out.with_name("checkpoint")))
    learner.export(f"{out}-again")
    if ranks.rank == 0:
        out.with_suffix(".json").write_text(json.dumps(metrics))


def save_in_vain(learner: DeepSpeedLearner, folder: Path, *, on_me: bool) -> str:
    """What is said of a checkpoint while one rank can write small files only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000 if on_me else soft, hard))
    try:
        learner.save(str(folder))
    except CheckpointError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return ""


if __name__ == "__main__":
    main()
