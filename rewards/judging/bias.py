"""What a judge prefers for reasons that are none: the place, the length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from palestra.rewards.judging.questions import FIRST, TIE
from palestra.rewards.judging.ranking import Comparison


def position_bias(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """``first_frac``: how often the response shown first was chosen, of all choices but ties. Every
    pair is shown in both orders, so a judge who does not mind the place has 0.5.
    ``contradiction_frac``: share of pairs whose result changes with the order. Empty without
    choices."""
    asked = [c.choices for c in comparisons if c.choices is not None]
    chosen = [choice for choices in asked for choice in choices if choice != TIE]
    if not chosen:
        return {}
    consistent = sum(
        one == other == TIE or (one != other and TIE not in (one, other)) for one, other in asked
    )
    return {
        "judge/first_frac": chosen.count(FIRST) / len(chosen),
        "judge/contradiction_frac": 1 - consistent / len(asked),
    }


def length_bias(results: Sequence[tuple[float, int]]) -> dict[str, float]:
    """``length_corr``: Pearson's correlation, over comparisons, of the left response's points and
    of the characters by which it is longer. Empty where either never differs."""
    won = [points for points, _ in results]
    longer = [float(difference) for _, difference in results]
    if len(set(won)) < 2 or len(set(longer)) < 2:
        return {}
    correlation = statistics.correlation(won, longer)
    return {"judge/length_corr": correlation} if math.isfinite(correlation) else {}
