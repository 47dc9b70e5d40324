"""The learning curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palestra.deploy.text import one_line
from palestra.rl.journal import EvalRow
from palestra.rl.metrics import EvalScore, eval_scores

REWARD, PASS = "#1f5fa8", "#c4661f"
SPLITS = ("#2e7d4f", "#8e3b8e", "#5b6770", "#b8860b")
MARKERS = ("D", "s", "o", "^")


def learning_curve(
    steps: Sequence[tuple[int, Mapping[str, float]]],
    evals: Sequence[EvalRow],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw reward and pass rate by step, and evaluations with 95 % intervals, as a PNG.

    ``steps`` and ``evals`` are what the journal returns; the title is the run's name, by default
    that of the picture's folder.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curve(axes, steps, "reward/mean", "training reward", REWARD)
    # Dashed: with one pass-or-fail reward the two curves are the same.
    curve(axes, steps, "pass_rate", "training pass rate", PASS, linestyle=(0, (3, 2)))
    last = max((step for step, _ in steps), default=0)
    _evals(axes, evals, last)
    axes.set_title(
        one_line(title or path.absolute().parent.name), loc="left", weight="bold", parse_math=False
    )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("reward, share of episodes solved")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _limits(axes, last)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def smooth(values: Sequence[float], span: float = 5.0) -> list[float]:
    """Exponential mean over about ``span`` values, without the pull of its start value.

    Example: ``smooth([1.0, 1.0]) == [1.0, 1.0]``
    """
    decay = 1 - 2 / (span + 1)
    total = weight = 0.0
    means = []
    for value in values:
        total = decay * total + value
        weight = decay * weight + 1
        means.append(total / weight)
    return means


def curve(
    axes: Any,
    steps: Sequence[tuple[int, Mapping[str, float]]],
    metric: str,
    name: str,
    color: str,
    **style: Any,
) -> None:
    """Draw a metric by step, pale, and its smoothed course; nothing where no step has it."""
    points = [(step, metrics[metric]) for step, metrics in steps if metric in metrics]
    if not points:
        return
    x, y = [step for step, _ in points], [value for _, value in points]
    axes.plot(x, y, color=color, alpha=0.3, linewidth=1, marker=".", markersize=3)
    axes.plot(x, smooth(y), color=color, linewidth=2.2, label=name, **style)


def _evals(axes: Any, rows: Sequence[EvalRow], last: int) -> None:
    by_step: dict[int, list[EvalRow]] = {}
    for row in rows:
        by_step.setdefault(row.step, []).append(row)
    splits = sorted({row.split for row in rows})
    scores = {step: eval_scores(group) for step, group in sorted(by_step.items())}
    for index, split in enumerate(splits):
        points = [(step, score[split]) for step, score in scores.items() if split in score]
        # Side by side, so that intervals at the same step stay readable.
        shift = (index - (len(splits) - 1) / 2) * max(last, 1) * 0.012
        _points(axes, points, split, shift, index)


def _points(
    axes: Any, points: Sequence[tuple[int, EvalScore]], split: str, shift: float, index: int
) -> None:
    rates = [score.pass_at_1 for _, score in points]
    below = [score.pass_at_1 - score.ci95[0] for _, score in points]
    above = [score.ci95[1] - score.pass_at_1 for _, score in points]
    axes.errorbar(
        [step + shift for step, _ in points],
        rates,
        yerr=[[max(0.0, v) for v in below], [max(0.0, v) for v in above]],
        color=SPLITS[index % len(SPLITS)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=7,
        linestyle=":",
        linewidth=1,
        capsize=4,
        zorder=3,
        label=f"pass@1 {one_line(split)}",
    )


def _limits(axes: Any, last: int) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high, 0.1))
    axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))
