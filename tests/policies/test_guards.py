"""Each guard lets sound numbers pass and stops the others."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from palestra.policies import guards
from palestra.policies.guards import ASLEEP_SLACK_BYTES, MismatchError
from palestra.rl.errors import EngineError, UserError

SEGMENTS = "PYTORCH_CUDA_ALLOC_CONF"


@pytest.mark.parametrize(
    "sound",
    [
        lambda: guards.same_device(["a"], ["a"]),
        lambda: guards.same_device(["b", "a"], ["a", "b"]),
        lambda: guards.same_device(["a"], ["a", "b"]),
        lambda: guards.export_allowed({}),
        lambda: guards.export_allowed({SEGMENTS: "expandable_segments:False"}),
        lambda: guards.same_names(["w", "v"], ["v", "w"]),
        lambda: guards.same_names(["w"], ["w", "head"], tied=["head"]),
        lambda: guards.fits_buffer(10, 10),
        lambda: guards.asleep(ASLEEP_SLACK_BYTES + 5, 5),
        lambda: guards.same_version(3, 3),
    ],
)
def test_sound_numbers_pass(sound: Callable[[], None]) -> None:
    sound()


@pytest.mark.parametrize(
    ("kind", "says", "wrong"),
    [
        (EngineError, "IPC", lambda: guards.same_device(["a"], ["b"])),
        (EngineError, "IPC", lambda: guards.same_device(["a", "a"], ["a", "b"])),
        (EngineError, "IPC", lambda: guards.same_device(["a", "c"], ["a", "b"])),
        (
            UserError,
            "expandable_segments",
            lambda: guards.export_allowed({SEGMENTS: "x:1,Expandable_Segments:True"}),
        ),
        (EngineError, r"missing=\['v'\]", lambda: guards.same_names(["w"], ["v", "w"])),
        (EngineError, r"extra=\['u'\]", lambda: guards.same_names(["w", "u"], ["w"])),
        (EngineError, r"missing=\['v'\]", lambda: guards.same_names(["w"], ["v", "w"], tied=["h"])),
        (EngineError, "11 bytes", lambda: guards.fits_buffer(11, 10)),
        (EngineError, "leaks", lambda: guards.asleep(ASLEEP_SLACK_BYTES + 6, 5)),
        (EngineError, "weights 2, expected 3", lambda: guards.same_version(2, 3)),
    ],
)
def test_wrong_numbers_stop(kind: type[Exception], says: str, wrong: Callable[[], None]) -> None:
    with pytest.raises(kind, match=says):
        wrong()


def test_agreement_is_measured() -> None:
    found = guards.agree([-1.0, -2.0, -3.0], [-1.0, -2.5, -3.25], 0.25)
    assert found == {"mismatch/probe_mean": 0.25, "mismatch/probe_max": 0.5}
    assert guards.agree([], [], 0.1) == {"mismatch/probe_mean": 0.0, "mismatch/probe_max": 0.0}


@pytest.mark.parametrize("bad", [-1.3, -0.7, math.nan, math.inf, -math.inf])
def test_disagreement_stops(bad: float) -> None:
    with pytest.raises(MismatchError, match="disagree"):
        guards.agree([-1.0, -1.0], [-1.0, bad], 0.1)


def test_sides_of_different_length_are_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="shorter"):
        guards.agree([-1.0, -2.0], [-1.0], 1.0)
