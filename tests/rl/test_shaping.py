"""Shaping: what each rule puts on the rewards of siblings, and that the raw ones stay readable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rewards.length import length_rewards
from palestra.rl.budget import budget_of, overlong, penalised
from palestra.rl.config import BudgetConfig, LengthPenaltyConfig, OverlongConfig, RLConfig
from palestra.rl.length_penalty import weight_of
from palestra.rl.shaping import Rule, Shaper, shaped, shapers, shaping_metrics
from palestra.rl.types import Group, Outcome, Reward, Stop, Trajectory, Turn

Make = Callable[..., Trajectory]


def group(*trajectories: Trajectory) -> Group:
    return Group(id="g", task_id="task-g", trajectories=trajectories)


@pytest.fixture
def episode(make_trajectory: Make, make_turn: Callable[..., Turn]) -> Make:
    """Makes episodes of a number of generated tokens; a reward of 1 is a correct one."""

    def make(
        length: int, reward: float | None = 1.0, name: str = "a", **given: object
    ) -> Trajectory:
        reply = replace(make_turn(), token_ids=(5,) * length, logprobs=(-0.1,) * length)
        return make_trajectory(name, reward=reward, turns=(reply,), **given)

    return make


def test_the_budget_depends_on_the_kind() -> None:
    config = BudgetConfig(default=100, by_kind={"repair": 7})
    assert (budget_of(config, "repair"), budget_of(config, "other")) == (7, 100)


@pytest.mark.parametrize("stop", list(Stop))
@pytest.mark.parametrize(
    ("mode", "reward", "after"),
    [("add", 1.0, 0.75), ("add", 0.0, -0.25), ("replace", 1.0, -0.25), ("replace", 0.0, -0.25)],
)
def test_only_running_over_the_budget_costs(
    episode: Make, stop: Stop, mode: str, reward: float, after: float
) -> None:
    config = BudgetConfig.model_validate({"penalty": 0.25, "penalty_mode": mode})
    expected = after if stop is Stop.OVER_BUDGET else reward
    assert penalised([episode(3, reward, stop=stop)], [reward], config) == [expected]


def test_a_budget_may_replace_the_reward_by_nothing(episode: Make) -> None:
    """Without a penalty of its own, `replace` takes what was earned."""
    config = RLConfig.model_validate({"budget": {"penalty_mode": "replace"}})
    on = shapers(1, config, lambda _: 9, lambda _: 9.0)
    cut = shaped(group(episode(9, 1.0, stop=Stop.OVER_BUDGET)), on).trajectories[0]
    assert cut.reward is not None
    assert (cut.reward.total, cut.reward.shaping) == (0.0, {"over_budget": -1.0})


def test_the_length_penalty_of_k15(episode: Make) -> None:
    """The unit vector of section 2.3.3: short and right gains, long and right loses, a short wrong
    answer gains nothing."""
    siblings = [episode(10), episode(20), episode(30), episode(10, 0.0)]
    assert length_rewards(siblings) == [0.5, 0.0, -0.5, 0.0]
    assert length_rewards([episode(10), episode(30, 0.0)]) == [0.5, -0.5]
    assert length_rewards([episode(10), episode(10, 0.0)]) == [0.0, 0.0]
    assert length_rewards([]) == []


def test_the_length_penalty_starts_after_its_warm_up() -> None:
    config = LengthPenaltyConfig(coef=0.2, warmup_steps=3)
    assert [weight_of(step, config) for step in range(1, 7)] == [0.0] * 3 + [0.2] * 3
    assert weight_of(1, LengthPenaltyConfig(coef=0.2)) == 0.2


def test_overlong_shaping_falls_over_the_last_tokens(episode: Make) -> None:
    config = OverlongConfig(buffer_len=10, penalty_factor=0.5)
    lengths = (0, 90, 91, 95, 100, 120)
    found = overlong([episode(length) for length in lengths], 100, config)
    assert found == pytest.approx([0, 0, -0.05, -0.25, -0.5, -0.5])


amounts = st.lists(st.floats(-3, 3), min_size=5, max_size=5)


def adding(amounts: list[float]) -> Rule:
    return lambda _, rewards: [r + a for r, a in zip(rewards, amounts, strict=True)]


@given(by_name=st.dictionaries(st.sampled_from("abc"), amounts))
def test_every_amount_is_on_the_total_and_in_its_place(by_name: dict[str, list[float]]) -> None:
    base = Trajectory(
        id="",
        group_id="g",
        task_id="t",
        step=1,
        prompt=(),
        turns=(),
        stop=Stop.SUBMITTED,
        outcome=Outcome.GRADED,
        temperature=1.0,
    )
    raw = Reward(total=0.5, parts={"tests_pass": 1.0})
    lost = replace(base, id="lost", outcome=Outcome.INFRA_FAILURE)
    siblings = [replace(base, id=str(i), reward=raw) for i in range(5)]
    given_group = group(siblings[0], lost, *siblings[1:])
    chain = [Shaper(name=name, rule=adding(amounts)) for name, amounts in by_name.items()]
    found = shaped(given_group, chain)
    assert [t.id for t in found.trajectories] == [t.id for t in given_group.trajectories]
    assert found.trajectories[1] == lost
    for i, played in enumerate(found.trainable):
        assert played.reward is not None
        assert played.reward.parts == raw.parts
        assert played.reward.shaping == pytest.approx(
            {n: a[i] for n, a in by_name.items() if n in played.reward.shaping}, abs=1e-12
        )
        total = raw.total + sum(a[i] for a in by_name.values())
        assert played.reward.total == pytest.approx(total, abs=1e-12)
        assert replace(played, reward=raw) == siblings[i]
    means = shaping_metrics([found])
    for name, amounts in by_name.items():
        mean = means.get(f"shaping/{name}/mean", 0.0)
        assert mean == pytest.approx(sum(amounts) / 5, abs=1e-12)


def test_shapers_are_off_by_default_and_each_sees_what_came_before(episode: Make) -> None:
    assert shapers(1, RLConfig(), lambda _: 9, lambda _: 9.0) == []
    config = RLConfig.model_validate(
        {
            "toggle": {"enable": True, "period": 2},
            "length_penalty": {"coef": 0.1},
            "overlong": {"buffer_len": 4},
            "budget": {"penalty": 0.5, "penalty_mode": "replace"},
        }
    )
    names = [
        [s.name for s in shapers(step, config, lambda _: 9, lambda _: 5.0)] for step in (1, 2, 3)
    ]
    rest = ["length", "overlong", "over_budget"]
    assert names == [["toggle", *rest], ["toggle", *rest], rest]
    short, long = episode(5, name="a"), episode(9, name="b", stop=Stop.OVER_BUDGET)
    on = shapers(1, config, lambda _: 9, lambda _: 5.0)
    good, cut = (t.reward for t in shaped(group(short, long), on).trajectories)
    assert good is not None and cut is not None
    assert good.shaping == pytest.approx({"length": 0.05}) and good.total == 1.05
    # 1 for the tests, all of it taken by Toggle, then 0.05 and 1 for its length; replaced by -0.5.
    assert cut.shaping == pytest.approx(
        {"toggle": -1.0, "length": -0.05, "overlong": -1.0, "over_budget": 0.55}
    )
    assert cut.total == -0.5


def test_what_is_replaced_is_exactly_equal(episode: Make) -> None:
    """Rewards that differ by rounding alone would look like a signal."""
    settings = {"length_penalty": {"coef": 0.1}, "budget": {"penalty": 0.1}}
    settings["budget"] |= {"penalty_mode": "replace"}
    on = shapers(1, RLConfig.model_validate(settings), lambda _: 9, lambda _: 5.0)
    lengths = (1, 3, 7, 8, 9)
    cut = [episode(n, 1.0, name=str(n), stop=Stop.OVER_BUDGET) for n in lengths]
    assert {t.reward.total for t in shaped(group(*cut), on).trajectories if t.reward} == {-0.1}
