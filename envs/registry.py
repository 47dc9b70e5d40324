"""Every environment by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.environments`` whose name is the environment's
name and whose value is a subclass of ``Env``, or a function with the same arguments. A name such as
``verifiers:NAME`` is one of another project, played by an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from palestra.envs.adapters.openenv import openenv
from palestra.envs.adapters.verifiers import verifiers
from palestra.envs.base import Env
from palestra.envs.complete import Complete
from palestra.envs.faithfulness.env import Faithfulness
from palestra.envs.harbor_env import Harbor
from palestra.envs.instructions.env import Instructions
from palestra.envs.logic.env import Logic
from palestra.envs.math.env import Math
from palestra.envs.repair import Repair
from palestra.envs.safety.env import Safety
from palestra.envs.swe import SWE, SWEBash, SWEKimi
from palestra.envs.tool_use.env import ToolUse
from palestra.rl.errors import UserError
from palestra.rl.plugins import Registry
from palestra.rl.types import CheckRunner


class EnvFactory(Protocol):
    """Makes an environment; the constructor of an ``Env`` is one."""

    def __call__(self, run_checks: CheckRunner, *, system_prompt: str | None = None) -> Env: ...


ENVIRONMENTS: Registry[EnvFactory] = Registry(
    "environment",
    "palestra.environments",
    {
        env.name: env
        for env in (
            *(Repair, Complete, SWE, SWEBash, SWEKimi, Harbor),
            *(Math, Logic, Instructions, ToolUse, Faithfulness, Safety),
        )
    },
)


ADAPTERS: Mapping[str, Callable[[str], EnvFactory]] = {"verifiers": verifiers, "openenv": openenv}
"""What makes the environment ``KIND:ADDRESS`` of another project of its address."""


def make(name: str, run_checks: CheckRunner, *, system_prompt: str | None = None) -> Env:
    """The environment called ``name``; raises ``UserError`` when there is none."""
    kind, _, address = name.partition(":")
    found = ADAPTERS[kind](address) if kind in ADAPTERS else ENVIRONMENTS.find(name)
    return found(run_checks, system_prompt=system_prompt)


def make_player(
    name: str, home: str, run_checks: CheckRunner, *, system_prompt: str | None = None
) -> Env:
    """The environment called ``name`` (empty: ``home``) for tasks of the environment ``home``.

    Raises ``UserError`` when there is none, or when it cannot play them.
    """
    env = make(name or home, run_checks, system_prompt=system_prompt)
    if home not in (env.name, env.plays):
        raise UserError(f"{env.name} does not play tasks of {home}; choose that one")
    return env
