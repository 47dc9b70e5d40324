"""Before step 1: what the policy that RL starts from solves, and which tasks are worth training on.

Every task is played a number of times (K1.5 section 2.1: 10); its pass rate is its difficulty. With
the episodes come Toggle's budgets. A second pass looks for tasks that can be guessed (K1.5: right
within 8 attempts without reasoning). All of it is in the journal as step 0, and is played once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from palestra.rl.config import SamplingConfig
from palestra.rl.errors import UserError
from palestra.rl.lost import ensure_enough
from palestra.rl.play import grouped, play_missing
from palestra.rl.run import Run
from palestra.rl.sampling import Rates
from palestra.rl.temperature import temperature_of
from palestra.rl.types import Group, Task
from palestra.rl.visits import ESTIMATION, record_visits, success_rates
from palestra.rollout.episode import Ticket, World

DONE, GUESSED = "estimated", "guessed"
Announce: TypeAlias = Callable[[str, int], Callable[[], None]]
"""(what is played, episodes) -> what to call after each episode."""


async def with_chosen_tasks(run: Run, announce: Announce) -> Run:
    """The run on the tasks that are worth training on. Raises ``UserError`` when none is."""
    config = run.config.sampling
    if config.estimate_samples and not run.journal.get_meta(DONE):
        groups = await _played(run, "estimate", config.estimate_samples, run.world, announce)
        for group in groups:
            run.budgets(group)
        record_visits(ESTIMATION, groups, run.journal)
        run.journal.set_meta(DONE, True)
    if config.guesses and run.journal.get_meta(GUESSED) is None:
        world = guessing(run.world, config.guess_tokens)
        groups = await _played(run, "guess", config.guesses, world, announce)
        hacked = [g.task_id for g in groups if any(t.solved for t in g.trainable)]
        run.journal.set_meta(GUESSED, hacked)
    guessed: Any = run.journal.get_meta(GUESSED, [])
    rates = success_rates(range(ESTIMATION, ESTIMATION + 1), run.journal)
    tasks = chosen(run.tasks, rates, set(guessed), config)
    if not tasks:
        raise UserError(
            f"none of {len(run.tasks)} tasks is left to learn from: widen "
            "rl.sampling.min_pass_rate and max_pass_rate, or set rl.sampling.guesses = 0"
        )
    return replace(run, tasks=tasks)


def chosen(
    tasks: Sequence[Task], rates: Rates, guessed: Collection[str], config: SamplingConfig
) -> list[Task]:
    """Tasks whose pass rate is within the bounds and that nobody guessed; one without a rate, as
    its episodes were lost, stays."""
    return [
        task
        for task in tasks
        if task.id not in guessed
        and config.min_pass_rate <= rates.get(task.id, config.min_pass_rate) <= config.max_pass_rate
    ]


def guessing(world: World, tokens: int) -> World:
    """The world of a guess, as we read "without reasoning" for coding tasks: one reply, in which
    nothing can be observed, of at most ``tokens`` generated tokens; what it leaves is graded."""
    return replace(
        world,
        config=world.config.model_copy(update={"max_turns": 1}),
        budget_of=lambda kind: min(tokens, world.budget_of(kind)),
    )


async def _played(
    run: Run, name: str, samples: int, world: World, announce: Announce
) -> list[Group]:
    config = run.config
    tickets = [
        Ticket(
            task=task,
            group_id=f"{name}/{task.id}",
            sample=sample,
            step=ESTIMATION,
            seed=run.seed,
            temperature=temperature_of(1, config.temperature, config.temperature_decay),
        )
        for task in run.tasks
        for sample in range(samples)
    ]
    earlier = {t.id: t for t in run.journal.trajectories(ESTIMATION)}
    played = {ticket.id: earlier[ticket.id] for ticket in tickets if ticket.id in earlier}
    on_episode = announce(f"training tasks ({name})", len(tickets) - len(played))
    await play_missing(tickets, replace(run, world=world, on_episode=on_episode), played)
    ensure_enough(
        ESTIMATION,
        list(played.values()),
        max_infra_failures=config.max_infra_failures,
        tasks=len(run.tasks),
    )
    return grouped(played[key] for key in sorted(played))
