"""How parts become one number, and what a recipe makes of an environment's rewards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palestra.rewards.assemble import assemble
from palestra.rewards.compose import first_failing, gated, minimum, weighted
from palestra.rewards.config import RewardsConfig
from palestra.rewards.registry import REWARDS
from palestra.rewards.score import RewardError, Scheme, Weighted, score
from palestra.rl.errors import UserError
from palestra.rl.types import Sandbox, Trajectory

MakeTrajectory = Callable[..., Trajectory]
NAMES = "abcd"
ROOT = Path(__file__).resolve().parents[2]

shares = st.floats(0, 1)
values = st.dictionaries(st.sampled_from(NAMES), shares)
weights = st.fixed_dictionaries({name: st.floats(0, 4) for name in NAMES})
SOLVED: Any = REWARDS.find("tests_pass")
FORMED: Any = REWARDS.find("well_formed")


@given(values=values, weights=weights)
def test_rules_by_their_definitions(values: dict[str, float], weights: dict[str, float]) -> None:
    products = [value * weights[name] for name, value in values.items()]
    assert weighted(values, weights) == (sum(products) if values else None)
    assert minimum(values, weights) == (min(products) if values else None)
    short = next((i for i, value in enumerate(values.values(), 1) if value < 1), len(values))
    assert first_failing(values, weights) == (sum(products[:short]) if values else None)
    everything = gated(list(values))(values, weights)
    assert everything == weighted(values, weights)


@given(values=values, weights=weights, gates=st.sets(st.sampled_from(NAMES), min_size=1))
def test_what_fails_a_gate_is_worth_no_more_than_what_passes_it(
    values: dict[str, float], weights: dict[str, float], gates: set[str]
) -> None:
    rule = gated(gates)
    passed = {name: 1.0 if name in gates else values.get(name, 0.0) for name in NAMES}
    total, best = rule(values, weights), rule(passed, weights)
    assert best == pytest.approx(sum(passed[name] * weights[name] for name in NAMES))
    assert best is not None and (total is None or total <= best + 1e-9)
    assert (total is None) == (not gates & values.keys())
    if total is not None and any(values.get(gate, 0.0) < 1 for gate in gates):
        said = [values[name] * weights[name] for name in values if name in gates]
        assert total == sum(said), "style alone cannot move it"


def test_a_total_that_is_no_number_is_no_reward(make_trajectory: MakeTrajectory) -> None:
    async def huge(trajectory: Trajectory, box: Sandbox | None) -> float:
        return 1e308

    scheme = Scheme({"x": Weighted(reward=huge, weight=10.0)})
    with pytest.raises(RewardError, match="make inf, which is not a finite number"):
        asyncio.run(score(make_trajectory(), None, scheme))


def test_a_late_reward_of_ours_is_an_error(make_trajectory: MakeTrajectory) -> None:
    async def waits(trajectory: Trajectory, box: Sandbox | None) -> float:
        await asyncio.Event().wait()
        return 1.0

    scheme = Scheme({"waits": Weighted(reward=waits, deadline=0.01)})
    with pytest.raises(RewardError, match="reward waits: timed out"):
        asyncio.run(score(make_trajectory(), None, scheme))


def test_a_recipe_adds_replaces_and_weighs_what_the_environment_names() -> None:
    named = {"tests_pass": Weighted(reward=SOLVED), "form": Weighted(reward=FORMED, weight=0.1)}

    def parts(**config: Any) -> dict[str, tuple[Any, float, float | None]]:
        scheme = assemble(RewardsConfig.model_validate(config), named, {})
        return {n: (p.reward, p.weight, p.deadline) for n, p in scheme.parts.items()}

    both = {"tests_pass": (SOLVED, 1.0, 60.0), "form": (FORMED, 0.1, 60.0)}
    assert parts() == both
    assert list(parts(use={"submitted": {}})) == ["tests_pass", "form", "submitted"]
    assert parts(use={"form": {"weight": 0.5}})["form"] == (FORMED, 0.5, 60.0)
    twice = parts(use={"tests_pass": {"function": "well_formed", "deadline": 2}}, deadline=9)
    assert twice == {"tests_pass": (FORMED, 1.0, 2.0), "form": (FORMED, 0.1, 9.0)}
    assert list(parts(environment=False, use={"submitted": {}})) == ["submitted"]
    for config, says in (
        ({"environment": False}, "leaves no reward"),
        ({"use": {"fast": {}}}, "no reward 'fast'; there are: tests_pass"),
        ({"rule": "gated", "gates": ["fast"]}, "no part 'fast'; there are: tests_pass, form"),
        ({"use": {"form": {"options": {"a": 1}}}}, "own reward has no options"),
        ({"use": {"submitted": {"options": {"a": 1}}}}, "no option 'a'; it has: none"),
    ):
        with pytest.raises(UserError, match=says):
            parts(**config)


SIGNATURES = """
from palestra.rewards.score import Weighted
from palestra.rl.types import GroupRewardFn, Reward, RewardFn, Sandbox, Trajectory

async def one(trajectory: Trajectory, box: Sandbox | None, *, most: int = 3) -> float:
    return 1.0

async def group(trajectories: list[Trajectory]) -> list[Reward]:
    return []

async def text(trajectory: Trajectory, box: Sandbox | None) -> str:
    return "1.0"

async def no_box(trajectory: Trajectory) -> float:
    return 1.0

def at_once(trajectory: Trajectory, box: Sandbox | None) -> float:
    return 1.0

Weighted(reward=one)
Weighted(reward=group)
Weighted(reward=text)  # wrong
Weighted(reward=no_box)  # wrong
Weighted(reward=at_once)  # wrong
"""


def test_mypy_knows_what_a_reward_is(tmp_path: Path) -> None:
    program = tmp_path / "signatures.py"
    program.write_text(SIGNATURES)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(program)],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / ".pkg"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    wrong = [n for n, line in enumerate(SIGNATURES.splitlines(), 1) if line.endswith("# wrong")]
    lines = [line for line in done.stdout.splitlines() if "signatures.py:" in line]
    found = [int(line.split(":")[1]) for line in lines if ": error:" in line]
    assert found == wrong, done.stdout + done.stderr
