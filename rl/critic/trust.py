"""Whether the critic's opinions may count: as long as it is right about what is verified."""

from __future__ import annotations

from palestra.rl.journal import Journal

ACCURACY = "critic/accuracy"


def is_trusted(step: int, journal: Journal, min_accuracy: float) -> bool:
    """Do rubric rewards count in ``step``? They do until a held-out accuracy below the limit is
    measured, and again when one is measured that is not."""
    return accurate(last_accuracy(step, journal), min_accuracy)


def accurate(accuracy: float | None, min_accuracy: float) -> bool:
    """Is an accuracy high enough? One that nobody knows is."""
    return accuracy is None or accuracy >= min_accuracy


def last_accuracy(step: int, journal: Journal) -> float | None:
    """What was measured last before ``step``; None before the first time."""
    return journal.last_metric(ACCURACY, before=step)


def change_of_trust(step: int, before: float | None, now: float, min_accuracy: float) -> str:
    """One line where a new accuracy changes what counts; empty where it does not."""
    trusted = accurate(now, min_accuracy)
    if trusted == accurate(before, min_accuracy):
        return ""
    return (
        f"step {step}: the critic is right about {now:.0%} of the held-out pairs, "
        f"{'at least' if trusted else 'less than'} {min_accuracy:.0%} (rl.critic.min_accuracy): "
        f"rubric rewards {'count again' if trusted else 'are switched off'}"
    )
