"""Every reward function by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.rewards`` that names one function
``async (Trajectory, Sandbox | None) -> float``.
"""

from __future__ import annotations

from palestra.rewards.budget import submitted
from palestra.rewards.format import well_formed
from palestra.rewards.tests_pass import tests_fraction, tests_pass
from palestra.rewards.verifier import verifier
from palestra.rl.plugins import Registry
from palestra.rl.types import RewardFn

REWARDS: Registry[RewardFn] = Registry(
    "reward",
    "palestra.rewards",
    {
        "tests_pass": tests_pass,
        "tests_fraction": tests_fraction,
        "well_formed": well_formed,
        "submitted": submitted,
        "verifier": verifier,
    },
)
