"""How episodes are played."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from palestra.rl.settings import Settings


class RolloutConfig(Settings):
    """Limits of one episode, and how many run at once."""

    dialect: Literal["qwen3_coder", "hermes"] = "hermes"
    """Tool-call format of the policy."""
    max_turns: int = Field(default=0, ge=0)
    """Replies per episode; 0 takes the environment's own limit."""
    max_response_length: int = Field(default=256, ge=1)
    """Tokens per reply."""
    max_context_length: int = Field(default=1024, ge=2)
    """Tokens per episode, prompt included."""
    max_in_flight: int = Field(default=128, ge=1)
    """Episodes played at once."""
    episode_timeout: float = Field(default=120.0, gt=0)
    """Seconds before an episode ends as time_limit."""
    retries: int = Field(default=2, ge=0)
    """How often an episode is played again after an infrastructure failure."""
