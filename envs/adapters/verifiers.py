"""An environment of the package ``verifiers``: ``verifiers:NAME[?argument=value&...]``.

NAME is what that package calls it: an installed module with ``load_environment`` (its classic
interface, v0: 0.1 to 0.3) or with a taskset (v1: 0.3 and later). Arguments are JSON where they can
be read as such, else text. Its code runs in our process, as the package itself would run it.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from palestra.envs.adapters.verifiers_v0 import classic_env
from palestra.envs.adapters.verifiers_v1 import taskset_env
from palestra.envs.base import Env
from palestra.rl.errors import UserError
from palestra.rl.types import Json

BROKEN = (
    *(ImportError, AssertionError, AttributeError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError),
)
"""What loading somebody's environment may raise."""


@lru_cache
def verifiers(address: str) -> type[Env]:
    """The environment at ``NAME[?argument=value&...]``; raises ``UserError`` when there is none."""
    name, _, query = address.partition("?")
    if not name:
        raise UserError("verifiers: needs a name, for example verifiers:gsm8k")
    arguments = {key: _value(text) for key, text in urllib.parse.parse_qsl(query)}
    try:
        importlib.import_module("verifiers")
    except ImportError as error:
        raise UserError(
            f"verifiers:{address}: the package verifiers cannot be imported ({error}); "
            "run: pip install verifiers"
        ) from error
    try:
        with _signal_handlers_kept():
            if _is_classic(name):
                return classic_env(address, name, arguments)
            return taskset_env(address, name, arguments)
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"verifiers:{address}: {type(error).__name__}: {reason}") from error


def _is_classic(name: str) -> bool:
    module = name.rsplit("/", 1)[-1].replace("-", "_")
    if importlib.util.find_spec(module) is None:
        return False  # it may be a taskset that comes with the package
    return hasattr(importlib.import_module(module), "load_environment")


def _value(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """A v0 environment takes SIGINT and SIGTERM for itself, and a run could not be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
