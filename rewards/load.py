"""``module:name`` to what it names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast

from palestra.rewards.kinds import AnyReward, RewardFactory
from palestra.rl.errors import UserError


def load(spec: str) -> AnyReward | RewardFactory:
    """The function of ``module:function``, of an installed package or of the current folder; raises
    ``UserError`` when there is none."""
    module, _, name = spec.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: a file of the folder hides nothing that is installed
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UserError(f"reward {spec}: {error}") from error
    if not callable(found):
        raise UserError(f"reward {spec}: cannot be called")
    return cast(RewardFactory, found)
