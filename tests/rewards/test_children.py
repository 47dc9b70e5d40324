"""Children that stop answering: what is said of how they ended."""

from __future__ import annotations

import asyncio
import sys

import pytest

from palestra.rewards import children
from palestra.rewards.children import Children, Died, NoAnswer

CLOSES = """
import os, signal, time
print("ready", flush=True)
input()
os.close(1)
"""


def asked(then: str) -> NoAnswer:
    """What is raised by a child that closes its output when it is asked, and goes on with this."""

    async def ask() -> None:
        child = Children([sys.executable, "-c", CLOSES + then], seconds=60.0, children=1)
        try:
            await child.ask(b"hello")
        finally:
            await child.close()

    with pytest.raises(NoAnswer) as raised:
        asyncio.run(ask())
    return raised.value


def test_a_child_that_closes_its_output_first_has_its_own_exit_code() -> None:
    died = asked("time.sleep(0.3)\nos._exit(7)")
    assert isinstance(died, Died) and died.code == 7
    died = asked("time.sleep(0.3)\nos.kill(os.getpid(), signal.SIGXCPU)")
    assert str(died) == "its process was ended by SIGXCPU"


def test_a_child_that_closes_its_output_and_goes_on_has_not_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "ENDING_S", 0.1)
    assert str(asked("signal.pause()")) == "it closed its output and went on"
