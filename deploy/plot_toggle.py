"""Toggle's two phases as a picture: lengths, budgets and pass rate by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from palestra.deploy.plot import PASS, REWARD, curve
from palestra.deploy.text import one_line

Steps = Sequence[tuple[int, Mapping[str, float]]]
BUDGET, LIMITED = "#8e3b8e", "#5b6770"


def toggle_curve(steps: Steps, path: Path, *, title: str = "") -> None:
    """Draw a PNG with the limited phases shaded; ``steps`` is what the journal returns, the title
    by default the name of the picture's folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    lengths, passes = figure.subplots(2, sharex=True)
    curve(lengths, steps, "response_length/mean", "tokens per episode", REWARD)
    curve(lengths, steps, "toggle/budget/mean", "budget of the problem", BUDGET)
    curve(passes, steps, "pass_rate", "training pass rate", PASS)
    curve(passes, steps, "toggle/over_budget_frac", "share over the budget", BUDGET)
    name = one_line(title or path.absolute().parent.name)
    lengths.set_title(f"{name}: Toggle", loc="left", weight="bold", parse_math=False)
    lengths.set_ylabel("generated tokens")
    passes.set_ylabel("share of episodes")
    passes.set_xlabel("optimizer step")
    passes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (lengths, passes):
        _finish(axes, steps)
    figure.savefig(path, format="png")


def limited_phases(steps: Steps) -> Iterator[tuple[int, int]]:
    """First and last step of each limited phase.

    Example: phases 0, 0, 1, 0 of steps 1 to 4 give (1, 2) and (4, 4).
    """
    known = [(step, m["toggle/phase"]) for step, m in steps if "toggle/phase" in m]
    for phase, run in groupby(known, key=lambda entry: entry[1]):
        numbers = [step for step, _ in run]
        if phase == 0:
            yield numbers[0], numbers[-1]


def _finish(axes: Any, steps: Steps) -> None:
    for number, (first, last) in enumerate(limited_phases(steps)):
        label = "" if number else "limited phase"
        axes.axvspan(first - 0.5, last + 0.5, color=LIMITED, alpha=0.12, lw=0, label=label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
