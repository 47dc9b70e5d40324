"""Reward by step of several arms, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from palestra.deploy.plot import smooth

COLORS = ("#1f5fa8", "#c4661f", "#2e7d4f", "#8e3b8e", "#b8860b", "#5b6770")


def reward_curves(arms: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Draw a PNG: per arm the mean over its seeds, and the range between them pale. ``arms`` maps a
    name to the reward of every step, by seed; all are smoothed over about five steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for color, (name, seeds) in zip(COLORS, arms.items(), strict=False):
        by_step = list(zip(*map(smooth, seeds), strict=True))
        steps = range(1, len(by_step) + 1)
        low, high = [min(at) for at in by_step], [max(at) for at in by_step]
        axes.fill_between(steps, low, high, color=color, alpha=0.1, linewidth=0)
        axes.plot(steps, [fmean(at) for at in by_step], color=color, linewidth=2, label=name)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training reward")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if arms:
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, format="png")
