"""Several updates, references, resets and alarms on a real DeepSpeed engine against plain torch."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from palestra.policies.config import LearnerConfig
from palestra.policies.guards import MismatchError
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.optimizers import reset
from palestra.rl.objectives.gspo import Gspo
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.objectives.tokens import Tokens
from palestra.rl.types import Batch, Sample

Tensors: TypeAlias = dict[str, torch.Tensor]
MakeLearner: TypeAlias = Callable[..., DeepSpeedLearner]
GradientsOf: TypeAlias = Callable[[DeepSpeedLearner, Batch], tuple[Tensors, dict[str, float]]]
PPO = PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.2)
LR = 3e-3


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture
def make_learner(tiny: Path) -> MakeLearner:
    def make(loss: PolicyLoss, **config: Any) -> DeepSpeedLearner:
        known = {"lr": LR, "threads": 1, "row_tokens": 64, "micro_batch_tokens": 128}
        return DeepSpeedLearner(str(tiny), LearnerConfig(**known | config), loss)

    return make


def sample(rng: random.Random, recorded: float = -6.0) -> Sample:
    """Random ids; engine log-probabilities near those of the random model (-6)."""
    size = rng.randrange(5, 25)
    mask = [t > 2 and rng.random() < 0.7 for t in range(size)]
    advantage = rng.uniform(-1, 1)
    return Sample(
        token_ids=tuple(rng.randrange(400) for _ in range(size)),
        loss_mask=tuple(mask),
        logprobs=tuple(recorded + rng.uniform(-0.3, 0.3) if m else 0.0 for m in mask),
        advantages=tuple(advantage if m else 0.0 for m in mask),
        ptx=(0.0,) * size,
        weight=rng.uniform(0.5, 2),
    )


def batch(sizes: tuple[int, ...] = (), *, recorded: float = -6.0, seed: int = 0) -> Batch:
    rng = random.Random(seed)
    made = tuple(sample(rng, recorded) for _ in range(8))
    return Batch(step=1, samples=made, mini_batches=sizes)


def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)


def scored(model: Any, s: Sample) -> torch.Tensor:
    """Log-probabilities of the generated tokens, by a forward pass of this sample alone."""
    ids = torch.tensor([s.token_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    every = torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])[:, 0]
    return every[torch.tensor(s.loss_mask[1:])]


class Plain:
    """The same updates sample by sample in plain torch."""

    def __init__(self, folder: Path, loss: PolicyLoss) -> None:
        self.model = plain_model(folder)
        self.start = plain_model(folder)
        self.loss = loss
        self.optimizer = self.fresh()

    def fresh(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.model.parameters(), lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0
        )

    def gradient(self, samples: tuple[Sample, ...], old: dict[int, torch.Tensor]) -> None:
        self.optimizer.zero_grad()
        total = torch.zeros(())
        for s in samples:
            chosen = torch.tensor(s.loss_mask[1:])
            engine = torch.tensor(s.logprobs[1:])[chosen]
            with torch.no_grad():
                reference = scored(self.start, s)
            tokens = Tokens(
                logprobs=scored(self.model, s),
                engine=engine,
                old=old.get(id(s), engine),
                advantages=torch.tensor(s.advantages[1:])[chosen],
                sample=torch.zeros(len(engine), dtype=torch.long),
                reference=reference,
            )
            total = total + s.weight * self.loss(tokens)[0].sum()
        (total / sum(s.learned for s in samples)).backward()

    def learn(self, what: Batch) -> None:
        with torch.no_grad():
            old = {id(s): scored(self.model, s) for s in what.samples}
        if self.loss.reset_optimizer:
            self.optimizer = self.fresh()
        for samples in what.updates:
            self.gradient(samples, old if self.loss.old_logprobs == "learner" else {})
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


def agree(learner: DeepSpeedLearner, plain: Plain) -> bool:
    """All but a few weights alike: AdamW divides by the gradient's own size, and where that is ~0 a
    rounding error is a step."""
    found = dict(learner.named_weights())
    return all(
        torch.isclose(found[name], parameter, atol=1e-4, rtol=1e-3).float().mean() > 0.98
        for name, parameter in plain.model.named_parameters()
    )


@pytest.mark.parametrize("old", ["engine", "learner"])
def test_mini_batches_are_updates_with_the_old_policy_of_the_first(
    make_learner: MakeLearner, tiny: Path, old: Any
) -> None:
    loss = PolicyLoss(objective=PPO, old_logprobs=old)
    learner, plain = make_learner(loss), Plain(tiny, loss)
    for seed in range(2):
        metrics = learner.learn(batch((3, 3, 2), seed=seed))
        plain.learn(batch((3, 3, 2), seed=seed))
    assert learner.steps == 6
    assert agree(learner, plain)
    assert metrics["actor/ppo_kl"] > 0
    other = Plain(tiny, replace(loss, old_logprobs="engine" if old == "learner" else "learner"))
    for seed in range(2):
        other.learn(batch((3, 3, 2), seed=seed))
    assert not agree(learner, other)


@pytest.mark.parametrize(("row", "micro"), [(16, 16), (256, 4096)])
def test_sequence_ratios_weights_and_a_reference_do_not_depend_on_packing(
    make_learner: MakeLearner, tiny: Path, row: int, micro: int
) -> None:
    loss = PolicyLoss(
        objective=Gspo(clip_ratio_low=0.1, clip_ratio_high=0.2), kl=KlPenalty(coef=0.5, type="k3")
    )
    learner, plain = make_learner(loss, row_tokens=row, micro_batch_tokens=micro), Plain(tiny, loss)
    assert learner.learn(batch())["actor/kl_loss"] == pytest.approx(0.0, abs=1e-6)
    plain.learn(batch())
    assert learner.learn(batch(seed=1))["actor/kl_loss"] > 1e-4, "the reference does not follow"
    plain.learn(batch(seed=1))
    assert agree(learner, plain)


def test_a_reference_for_rewards_scores_generated_tokens_and_leaves_the_loss_alone(
    make_learner: MakeLearner, tiny: Path
) -> None:
    loss = PolicyLoss(objective=PPO)
    plain = make_learner(loss)
    plain.learn(batch())
    model, samples = plain_model(tiny), batch(seed=1).samples
    with torch.no_grad():
        expected = [scored(model, s).tolist() for s in samples]
    for row, micro in ((16, 16), (64, 128), (256, 4096)):
        learner = make_learner(
            replace(loss, kl_in_reward=True), row_tokens=row, micro_batch_tokens=micro
        )
        learner.learn(batch())
        learner.ptx_coef = 0.0  # which leaves samples out that have no policy loss
        silent = replace(samples[0], loss_mask=(False,) * len(samples[0].token_ids))
        nothing, *found = learner.reference_logprobs([silent, *samples])
        assert nothing == []
        for own, wanted in zip(found, expected, strict=True):
            assert own == pytest.approx(wanted, abs=1e-5), "the first weights', in order"
        if row == 64:
            after = weights(learner)
            assert all(torch.equal(after[name], now) for name, now in weights(plain).items())
    with pytest.raises(ValueError, match="made without a reference"):
        plain.reference_logprobs(samples)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_reset_forgets_the_moments(
    make_learner: MakeLearner, tiny: Path, zero_stage: int
) -> None:
    loss = PolicyLoss(objective=MirrorDescent(tau=0.3), reset_optimizer=True)
    learner, plain = make_learner(loss, zero_stage=zero_stage), Plain(tiny, loss)
    kept = Plain(tiny, replace(loss, reset_optimizer=False))
    for seed in range(3):
        learner.learn(batch(seed=seed))
        plain.learn(batch(seed=seed))
        kept.learn(batch(seed=seed))
    assert agree(learner, plain)
    assert not agree(learner, kept)


def test_a_reset_forgets_steps_counted_in_a_plain_number() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight])
    optimizer.state[weight] = {"step": 7, "exp_avg": torch.ones(2)}
    reset(optimizer)
    assert optimizer.state[weight]["step"] == 0
    assert torch.equal(optimizer.state[weight]["exp_avg"], torch.zeros(2))


def weights(learner: DeepSpeedLearner) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in learner.named_weights()}


def test_a_mismatch_above_the_limit_stops_before_anything_is_learned(
    make_learner: MakeLearner,
) -> None:
    learner = make_learner(PolicyLoss(objective=PPO, mismatch_limit=0.5))
    before = weights(learner)
    with pytest.raises(MismatchError, match=r"mean KL .*limit 0\.5 \(rl\.mismatch\.limit\)"):
        learner.learn(batch(recorded=-8.0))
    assert all(torch.equal(before[name], now) for name, now in weights(learner).items())
    assert learner.steps == 0


def test_a_mismatch_above_the_limit_skips_the_step(make_learner: MakeLearner) -> None:
    skip = PolicyLoss(objective=PPO, mismatch_limit=0.5, on_mismatch="skip")
    learner, other = make_learner(skip), make_learner(skip)
    learner.learn(batch())
    before = weights(learner)
    metrics = learner.learn(batch((4, 4), recorded=-8.0, seed=1))
    assert metrics["mismatch/skipped"] == 1.0
    assert metrics["mismatch/kl"] > 0.5 and metrics["actor/grad_norm"] == 0.0
    assert all(torch.equal(before[name], now) for name, now in weights(learner).items())
    assert learner.steps == 3
    assert "mismatch/skipped" not in learner.learn(batch(seed=2))
    for seed in (0, 2):
        other.learn(batch(seed=seed))
    after = weights(other)
    assert all(torch.equal(after[name], now) for name, now in weights(learner).items())


@pytest.mark.parametrize(
    ("name", "level", "skews"),
    [
        ("icepop", "token", (-2.0, 2.0)),
        ("icepop", "sequence", (-2.0, 2.0)),
        ("mis", "token", (-2.0, -2.0)),
    ],
)
def test_an_injected_mismatch_is_masked_as_if_by_hand(
    make_learner: MakeLearner,
    gradients_of: GradientsOf,
    name: Any,
    level: Any,
    skews: tuple[float, float],
) -> None:
    """Records are the learner's own but for some tokens of every other sample."""
    correction = Correction(name=name, level=level, low=0.5, high=2.0)
    loss = PolicyLoss(objective=PPO, old_logprobs="learner", correction=correction)
    learner = make_learner(loss, lr=1e-30)  # which moves no weight
    rng = random.Random(1)
    recorded, by_hand = [], []
    for n, s in enumerate(batch().samples):
        (own,) = learner.logprobs([s.token_ids])
        hit = [m and n % 2 == 0 and rng.random() < 0.4 for m in s.loss_mask]
        skewed = tuple(p + skews[n // 2 % 2] * h for p, h in zip(own, hit, strict=True))
        recorded.append(replace(s, logprobs=skewed))
        spoilt = [any(hit)] * len(hit) if level == "sequence" else hit
        left = tuple(m and not gone for m, gone in zip(s.loss_mask, spoilt, strict=True))
        by_hand.append(replace(s, logprobs=tuple(own), loss_mask=left))
    # The learner divides by the tokens that are there.
    share = sum(s.learned for s in by_hand) / sum(s.learned for s in recorded)
    by_hand = [replace(s, weight=s.weight * share) for s in by_hand]

    found, metrics = gradients_of(learner, Batch(step=1, samples=tuple(recorded)))
    learner.objective = replace(loss, correction=None)
    expected, _ = gradients_of(learner, Batch(step=1, samples=tuple(by_hand)))
    uncorrected, _ = gradients_of(learner, Batch(step=1, samples=tuple(recorded)))
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, atol=1e-6, rtol=1e-4)
    assert metrics["mismatch/masked_frac"] == pytest.approx(1 - share)
    assert 0.1 < share < 0.9
    assert any(not torch.allclose(uncorrected[p], g, atol=1e-4) for p, g in expected.items())
