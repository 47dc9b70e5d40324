"""The environment ``palestra/Harbor-v0``: a shell, judged by a task's own verifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from palestra.envs.swe import SUBMIT, SWE
from palestra.envs.tools.bash import BASH
from palestra.rewards.score import Weighted
from palestra.rewards.verifier import verifier
from palestra.rl.types import Tool


class Harbor(SWE):
    """Tools ``bash`` and ``submit``; the reward is the mean of those that the verifier wrote."""

    name: ClassVar[str] = "palestra/Harbor-v0"
    tools: ClassVar[tuple[Tool, ...]] = (BASH, SUBMIT)
    rewards: ClassVar[Mapping[str, Weighted]] = {"verifier": Weighted(reward=verifier)}
