"""Which tasks a step plays (K1.5 report sections 2.1 and 2.3.4), and which groups teach nothing.

Every order is an endless stream of tasks that depends on the seed and on earlier steps alone: a
resumed run draws what the first one drew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count

from palestra.rl.types import Group, Task

Rates = Mapping[str, float]
"""Task id -> share of its episodes that were correct; tasks that were never played are missing."""


def epochs(
    tasks: Sequence[Task], seed: int, start: int, *, easy_first: Rates | None = None
) -> Iterator[Task]:
    """Every task once per epoch, in an order of the epoch's own, from place ``start`` on.

    With ``easy_first`` an epoch goes from the highest pass rate to the lowest; tasks of one rate,
    and those without, which count as hardest, stay shuffled.
    """
    first, skipped = divmod(start, len(tasks))
    for epoch in count(first):
        order = list(range(len(tasks)))
        random.Random(f"{seed}/tasks/{epoch}").shuffle(order)
        if easy_first is not None:
            order.sort(key=lambda index: -easy_first.get(tasks[index].id, 0.0))
        yield from (tasks[index] for index in order[skipped:])
        skipped = 0


def prioritized(tasks: Sequence[Task], success: Rates, rng: random.Random) -> Iterator[Task]:
    """Independent draws with probability proportional to ``1 - s_i`` (K1.5): a task that always
    succeeds is never drawn, one that was never played counts as never solved. Uniform when every
    task always succeeds."""
    weights = [1.0 - success.get(task.id, 0.0) for task in tasks]
    if not any(weights):
        weights = [1.0] * len(tasks)
    cumulative = list(accumulate(weights))
    while True:
        yield rng.choices(tasks, cum_weights=cumulative)[0]


def hard(tasks: Sequence[Task], difficulty: Rates, below: float) -> Sequence[Task]:
    """The tasks that the policy solved less often than ``below``; all when there is none."""
    return [t for t in tasks if difficulty.get(t.id, 0.0) < below] or tasks


def is_uniform(group: Group) -> bool:
    """True when the rewards of a group are all equal, so that it teaches nothing."""
    return len({t.reward.total for t in group.trainable if t.reward is not None}) < 2


def sampling_metrics(groups: Sequence[Group], tasks: Sequence[Task]) -> dict[str, float]:
    """Tasks that may be drawn, those played in a step, and the share of groups that teach nothing;
    after shaping."""
    return {
        "sampling/tasks": float(len(tasks)),
        "sampling/groups": float(len(groups)),
        "sampling/uniform_frac": sum(map(is_uniform, groups)) / max(1, len(groups)),
    }
