"""Which tasks a run uses."""

from __future__ import annotations

from pydantic import Field

from palestra.rl.settings import Settings


class TasksConfig(Settings):
    """Where tasks come from and how they are cut."""

    source: str = "repair:"
    """`format:path`, the name of a registered environment, or `module:Class` of one of yours."""
    env: str = ""
    """The environment that plays them; empty: the source's. Another one says in `plays` that
    it can, as `palestra/SWEBash-v0` and `palestra/SWEKimi-v0` do for tasks of `palestra/SWE-v0`."""
    seed: int = 0
    """Seed of the splits and of the mutations."""
    mutations: int = Field(default=1, ge=1)
    """Bugs per task (difficulty)."""
    max_lines: int = Field(default=8, ge=1)
    """Longest function used."""
    show_failing_tests: bool = False
    """`repair-repo:`: leave the tests that a bug breaks in the agent's folder."""
    limit: int = Field(default=0, ge=0)
    """Use at most so many training tasks; 0 means all."""
    gate: bool = True
    """Grade every task before training, and leave out those whose reference fails or that doing
    nothing solves; what was found is remembered. Tasks that were made by running them pass."""
    system_prompt: str | None = None
    """Replaces the environment's own system prompt; an empty string drops it."""
