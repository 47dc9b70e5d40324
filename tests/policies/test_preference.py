"""The critic's preference loss in a real learner, against autograd of the formula as printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from palestra.policies.components import preference_loss
from palestra.policies.config import LearnerConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.rl.critic.preference import Verdicts, loss, margins, preference_samples
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

OBJECTIVE = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.05))
BETA, ANCHOR, COEF = 1.5, 0.4, 0.7
ASKED = [
    Verdicts(prompt=(5, 6, 7), right=(8, 9, 1), wrong=(10, 9, 1)),
    Verdicts(prompt=(5, 7, 7, 6), right=(10, 9, 1), wrong=(8, 1)),
]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Takes back what the learner puts into the environment of its process."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture
def learner(tiny: Path) -> DeepSpeedLearner:
    config = LearnerConfig(lr=1e-3, threads=1, row_tokens=64, micro_batch_tokens=64)
    return DeepSpeedLearner(str(tiny), config, OBJECTIVE, ptx_coef=0.0)


def scored(learner: DeepSpeedLearner) -> list[float]:
    return margins(ASKED, learner.logprobs([ids for one in ASKED for ids in one.sequences]))


def as_printed(folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """``coef * mean(-log sigma(beta m) - anchor * mean log pi(right))`` by plain PyTorch, and its
    gradient."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = torch.zeros(())
    for one in ASKED:
        sums = []
        for ids in one.sequences:
            table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(one.prompt), len(ids))
            sums.append(sum(table[at - 1, ids[at]] for at in places))
        total = total - torch.nn.functional.logsigmoid(BETA * (sums[0] - sums[1]))
        total = total - ANCHOR * sums[0] / len(one.right)
    total = COEF * total / len(ASKED)
    total.backward()
    return float(total.detach()), {n: p.grad for n, p in model.named_parameters()}


def as_printed_of(learner: DeepSpeedLearner) -> float:
    """The same value, from the learner's log-probabilities."""
    right = learner.logprobs([one.sequences[0] for one in ASKED])
    likely = [fmean(own[len(one.prompt) :]) for own, one in zip(right, ASKED, strict=True)]
    printed = zip(scored(learner), likely, strict=True)
    return COEF * fmean(loss(m, BETA) - ANCHOR * own for m, own in printed)


def test_value_and_gradient_are_those_of_the_formula(
    learner: DeepSpeedLearner, tiny: Path, gradients_of: Callable[..., Any]
) -> None:
    found = scored(learner)
    value, wanted = as_printed(tiny)
    assert as_printed_of(learner) == pytest.approx(value, abs=1e-6)
    samples = tuple(preference_samples(ASKED, found, beta=BETA, anchor=ANCHOR, coef=COEF))
    given, _ = gradients_of(learner, Batch(step=1, samples=samples))
    assert given.keys() == wanted.keys()
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-3
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, atol=1e-6, rtol=0)
    # The pairs pull in opposite ways on the same verdicts: the loss falls, not every margin rises.
    assert as_printed_of(learner) < value


def test_tokens_without_a_preference_have_no_gradient_at_all(learner: DeepSpeedLearner) -> None:
    played = Sample(
        token_ids=(5, 6, 9, 9),
        loss_mask=(False, False, True, True),
        logprobs=(0.0, 0.0, -6.0, -6.0),
        advantages=(0.0, 0.0, 1.0, 1.0),
        ptx=(0.0,) * 4,
    )
    samples = [played, *preference_samples(ASKED, [0.3, -2.0], beta=BETA, anchor=0.0, coef=COEF)]
    (micro,) = learner._pack(samples)
    logprobs = torch.randn(len(micro.target), requires_grad=True)
    (gradient,) = torch.autograd.grad(preference_loss(micro, logprobs), logprobs)
    assert torch.equal(gradient, -micro.preference)
    assert not gradient[micro.policy].any() and int(micro.policy.sum()) == 2
    assert gradient[~micro.policy].all()
