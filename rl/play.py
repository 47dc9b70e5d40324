"""The episodes of a step: drawn, played, grouped, shaped; nothing is played twice after a crash."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from palestra.rewards.score import rate
from palestra.rl.errors import PalestraError
from palestra.rl.run import Run
from palestra.rl.sampling import epochs, hard, is_uniform, prioritized
from palestra.rl.shaping import shaped, shapers
from palestra.rl.temperature import temperature_of
from palestra.rl.types import LOST, Group, Task, Trajectory
from palestra.rl.visits import ESTIMATION, success_rates
from palestra.rollout.episode import Ticket, play_all, unrewarded


async def play_step(step: int, run: Run) -> list[Trajectory]:
    """All episodes of a step, in order of their ids: from the journal, or played now.

    With ``sampling.max_gen_batches`` above 1, another task is played for every group that teaches
    nothing, up to that many batches in all (dynamic sampling of DAPO, arXiv 2503.14476).
    """
    most = run.config.train_batch_size * run.config.sampling.max_gen_batches
    played = {trajectory.id: trajectory for trajectory in run.journal.trajectories(step)}
    ids: list[str] = []
    drawn, wanted = 0, run.config.train_batch_size
    while wanted:
        tickets = draw(step, run, drawn, wanted)
        await play_missing(tickets, run, played)
        drawn += wanted
        # The journal may hold pieces of a later round, which is not drawn yet.
        ids += [ticket.id for ticket in tickets]
        complete = [played[key] for key in ids]
        wanted = min(most - drawn, lacking(step, complete, run)) if drawn < most else 0
    return [played[key] for key in sorted(ids)]


def lacking(step: int, played: Iterable[Trajectory], run: Run) -> int:
    """How many groups a full batch still lacks: those that teach nothing do not count."""
    groups = shape(step, grouped(sorted(played, key=lambda t: t.id)), run)
    return max(0, run.config.train_batch_size - sum(not is_uniform(group) for group in groups))


async def play_missing(tickets: Sequence[Ticket], run: Run, played: dict[str, Trajectory]) -> None:
    """Play what ``played`` lacks, and add it there and to the journal."""

    def finished(trajectory: Trajectory) -> None:
        # What was lost is played again after a restart; it is recorded once the step goes on.
        if trajectory.outcome not in LOST:
            run.journal.add_trajectory(trajectory)
        played[trajectory.id] = trajectory
        run.on_episode()

    missing = [ticket for ticket in tickets if ticket.id not in played]
    await play_all(missing, run.world, finished)
    await rate_missing(grouped(played[ticket.id] for ticket in tickets), run, played)


async def rate_missing(groups: Iterable[Group], run: Run, played: dict[str, Trajectory]) -> None:
    """Have siblings judged against each other that have not been, all groups at once; in ``played``
    and the journal their rewards replace what was there."""
    scheme = run.world.scheme

    async def one(siblings: Sequence[Trajectory]) -> None:
        try:
            with run.world.meter.busy("reward"):
                rated = await rate(siblings, scheme)
        except PalestraError as error:
            # As with an episode that is lost, no word of it in the journal yet.
            played.update((t.id, unrewarded(t, error)) for t in siblings)
            return
        for trajectory in rated:
            run.journal.put_trajectory(trajectory)
            played[trajectory.id] = trajectory

    async with asyncio.TaskGroup() as running:
        for group in groups:
            siblings = [t for t in group.trajectories if t.outcome not in LOST]
            if any(map(scheme.lacks, siblings)):
                running.create_task(one(siblings))


def draw(step: int, run: Run, first: int = 0, count: int | None = None) -> list[Ticket]:
    """The episodes of ``count`` tasks of a step, by default a whole batch, a group each; ``first``
    tasks of the step were drawn before."""
    config = run.config
    last = first + (config.train_batch_size if count is None else count)
    temperature = temperature_of(step, config.temperature, config.temperature_decay)
    return [
        Ticket(
            task=task,
            group_id=f"{step:05d}/{place:04d}",
            sample=sample,
            step=step,
            seed=run.seed,
            temperature=temperature,
        )
        for place, task in enumerate(islice(tasks_of(step, run), first, last), first)
        for sample in range(config.n_samples_per_prompt)
    ]


def tasks_of(step: int, run: Run) -> Iterator[Task]:
    """The tasks of a step, endlessly, in the order that the configuration names."""
    config, tasks = run.config.sampling, run.tasks
    difficulty = success_rates(range(ESTIMATION, ESTIMATION + 1), run.journal)
    if 0 < config.hard_from_step <= step:
        tasks = hard(tasks, difficulty, config.hard_below)
    match config.order:
        case "uniform":
            return epochs(tasks, run.seed, drawn_before(step, run))
        case "easy_to_hard":
            return epochs(tasks, run.seed, drawn_before(step, run), easy_first=difficulty)
        case "prioritized":
            success = success_rates(range(ESTIMATION, step), run.journal)
            return prioritized(tasks, success, random.Random(f"{run.seed}/prioritized/{step}"))


def drawn_before(step: int, run: Run) -> int:
    """Tasks that the steps before this one have drawn."""
    if run.config.sampling.max_gen_batches == 1:
        return (step - 1) * run.config.train_batch_size
    return run.journal.count_groups(before=step)


def shape(step: int, played: Sequence[Group], run: Run) -> list[Group]:
    """The groups with the rewards that the step learns from."""
    on = shapers(step, run.config, run.limit_of, run.budgets)
    return [shaped(group, on) for group in played]


def grouped(trajectories: Iterable[Trajectory]) -> list[Group]:
    """Siblings together, in order of their group ids."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.group_id, []).append(trajectory)
    return [
        Group(id=key, task_id=members[0].task_id, trajectories=tuple(members))
        for key, members in sorted(groups.items())
    ]
