"""From `rl.objective` to a policy loss: every name, what stands around it, and plugins."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, get_args

import pytest

from palestra.rl import plugins
from palestra.rl.config import RLConfig
from palestra.rl.errors import UserError
from palestra.rl.objectives.config import AdvEstimator, LossAggMode
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.kl import KlPenalty
from palestra.rl.objectives.mirror_descent import MirrorDescent
from palestra.rl.objectives.mismatch import Correction
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.objectives.ppo_clip import PpoClip
from palestra.rl.objectives.registry import OURS, policy_loss
from palestra.rl.objectives.tokens import Loss, Tokens
from palestra.rl.presets import PUBLISHED, rule


def made(**config: Any) -> PolicyLoss:
    return policy_loss(RLConfig(**config))


def test_without_a_name_it_is_what_it_always_was() -> None:
    expected = K25(alpha=0.5, beta=2.0, tau=0.01, mask_reg=False)
    assert made() == PolicyLoss(objective=expected, mismatch_limit=0.1)
    assert made(objective={"alpha": 0.7}).objective == K25(alpha=0.7, beta=2.0, tau=0.01)


@pytest.mark.parametrize("name", OURS)
def test_every_name_makes_a_loss_that_travels_and_has_a_published_rule(name: str) -> None:
    loss = made(objective={"name": name})
    assert pickle.loads(pickle.dumps(loss)) == loss
    published = rule(RLConfig(objective={"name": name}))
    assert published.adv_estimator in get_args(AdvEstimator)
    assert published.loss_agg_mode in get_args(LossAggMode)
    assert published.loss_agg_mode == PUBLISHED[name].loss_agg_mode
    assert loss.reset_optimizer is (name == "k15")


def test_what_the_configuration_says_goes_before_what_is_published() -> None:
    given = rule(
        RLConfig(
            objective={"name": "grpo"},
            adv_estimator="leave_one_out",
            norm_adv_by_std=False,
            loss_agg_mode="token-mean",
            loss_scale_factor=9,
        )
    )
    assert (given.adv_estimator, given.norm_adv_by_std) == ("leave_one_out", False)
    assert (given.loss_agg_mode, given.scale_factor) == ("token-mean", 9)
    assert rule(RLConfig(objective={"name": "k15", "tau": 0.4})).tau == 0.4


def test_the_settings_arrive() -> None:
    dapo = made(objective={"name": "dapo", "clip_ratio_c": 3.0})
    assert dapo.objective == PpoClip(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=3.0)
    k2 = made(objective={"name": "k2", "tau": 0.4, "reset_optimizer": True})
    assert k2.objective == MirrorDescent(tau=0.4) and k2.reset_optimizer
    around = made(
        old_logprobs="learner",
        kl={"coef": 0.3, "type": "k2"},
        mismatch={"correction": "icepop", "level": "sequence", "low": 0.4, "high": 5.0}
        | {"limit": 0, "on_limit": "skip"},
    )
    assert around.correction == Correction(name="icepop", level="sequence", low=0.4, high=5.0)
    assert around.kl == KlPenalty(coef=0.3, type="k2")
    assert (around.mismatch_limit, around.on_mismatch) == (None, "skip")
    assert around.old_logprobs == "learner"


def test_where_the_kl_penalty_stands() -> None:
    in_loss, in_reward = (made(kl={"coef": 0.3, "where": where}) for where in ("loss", "reward"))
    assert (in_loss.kl, in_loss.kl_in_reward) == (KlPenalty(coef=0.3, type="k3"), False)
    assert (in_reward.kl, in_reward.kl_in_reward) == (None, True)
    assert made(kl={"where": "reward"}) == made()
    config = RLConfig(kl={"coef": 0.3, "where": "reward"})
    assert (config.kl.estimator, rule(config).zero_variance_filter) == ("k1", False)
    with pytest.raises(ValueError, match="zero_variance_filter finds no equal rewards"):
        RLConfig(kl={"coef": 0.3, "where": "reward"}, zero_variance_filter=True)


@dataclass(frozen=True)
class Mine:
    """An objective of a user's."""

    strength: float

    def __call__(self, tokens: Tokens) -> Loss:
        return -self.strength * tokens.advantages * tokens.logprobs, {}


def test_a_plugin_is_called_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda point: Mine)
    found = [EntryPoint("mine", "their.package:Mine", "palestra.objectives")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)

    def chosen(plugin: str, **settings: Any) -> PolicyLoss:
        return made(objective={"name": "plugin", "plugin": plugin, "settings": settings})

    assert chosen("mine", strength=2.0).objective == Mine(strength=2.0)
    with pytest.raises(UserError, match=r"rl.objective.settings of mine: .*strenght"):
        chosen("mine", strenght=2.0)
    with pytest.raises(UserError, match=r"no objective 'yours'; there are: k25, .*mine"):
        chosen("yours")
