"""One of several learner ranks, as a process: ``learner_rank.py FOLDER OUT RANK SIZE PORT``.

Rank 0 writes to OUT, for every optimizer and ZeRO stage: the metrics of each step
(``NAME.json``) and an export after them (``NAME/``).
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.process_group import Ranks
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

STEPS = 3
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


def batch(seed: int, sizes: tuple[int, ...] = ()) -> Batch:
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
            )
        )
    return Batch(step=seed, samples=tuple(samples), mini_batches=sizes)


def main() -> None:
    folder, out = sys.argv[1], Path(sys.argv[2])
    rank, size, port = map(int, sys.argv[3:])
    ranks = Ranks(rank=rank, size=size, port=port)
    for optimizer in ("adamw", "muon"):
        for stage in (1, 2, 3):
            config = LearnerConfig(
                optimizer=optimizer,  # type: ignore[arg-type]
                zero_stage=stage,  # type: ignore[arg-type]
                lr=3e-3,
                eps=1e-4,
                weight_decay=0.1,
                row_tokens=30,
                micro_batch_tokens=30,
                logprob_chunk=5,  # ranks have unlike numbers of chunks
                qk_clip=True,
                qk_clip_tau=1.5,
                threads=1,
            )
            loss = LOSSES[optimizer]
            learner = DeepSpeedLearner(folder, config, loss, ptx_coef=0.3, ranks=ranks)
            metrics = [dict(learner.learn(batch(seed, SIZES[optimizer]))) for seed in range(STEPS)]
            name = out / f"{optimizer}-{stage}"
            learner.export(str(name))
            if rank == 0:
                name.with_suffix(".json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
