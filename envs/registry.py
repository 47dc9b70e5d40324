"""Every environment by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.environments`` whose name is the environment's
name and whose value is a subclass of ``Env``, or a function with the same arguments. A subclass
that no package offers is called ``module:Class``. A name such as ``verifiers:NAME`` is one of
another project, played by an adapter.
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
from palestra.rl.plugins import Registry, import_named
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
    return _factory(name)(run_checks, system_prompt=system_prompt)


def _factory(name: str) -> EnvFactory:
    kind, colon, address = name.partition(":")
    if kind in ADAPTERS:
        return ADAPTERS[kind](address)
    return _class(name) if colon else ENVIRONMENTS.find(name)


def _class(spec: str) -> type[Env]:
    found = import_named("environment", spec)
    if not (isinstance(found, type) and issubclass(found, Env)):
        raise UserError(f"environment {spec}: is no subclass of palestra.envs.base.Env")
    return found


def make_player(
    name: str, home: str, run_checks: CheckRunner, *, system_prompt: str | None = None
) -> Env:
    """The environment called ``name`` (empty: ``home``) for tasks of the environment ``home``.

    Raises ``UserError`` when there is none, or when it cannot play them.
    """
    env = make(name or home, run_checks, system_prompt=system_prompt)
    if name not in ("", home) and home not in (env.name, env.plays):
        raise UserError(f"{env.name} does not play tasks of {home}; choose that one")
    return env
