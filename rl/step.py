"""One synchronous RL step, top to bottom: draw, play, compare, learn, save, publish.

Consumes tasks, produces weights. Everything that it needs was built by ``deploy`` and comes in
``Run``; nothing here knows Ray, vLLM, DeepSpeed or a sandbox.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palestra.rl.advantage import samples
from palestra.rl.config import RLConfig
from palestra.rl.journal import Journal
from palestra.rl.lost import ensure_enough
from palestra.rl.metrics import rollout_metrics
from palestra.rl.problem_budgets import ProblemBudgets, toggle_metrics
from palestra.rl.shaping import shaped, shapers, shaping_metrics
from palestra.rl.temperature import temperature_of
from palestra.rl.types import LOST, Batch, Group, Sample, Task, Trainer, Trajectory
from palestra.rollout.episode import Ticket, World, play_all


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: what is fixed over all of its steps."""

    config: RLConfig
    seed: int
    tasks: Sequence[Task]
    ptx: Sequence[Sample]
    world: World
    trainer: Trainer
    journal: Journal
    checkpoints: Path
    on_episode: Callable[[], None] = lambda: None

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """The kind of every task, by its id."""
        return {task.id: task.kind for task in self.tasks}

    def limit_of(self, task_id: str) -> int:
        """Tokens that an episode of the task may generate."""
        return self.world.budget_of(self.kinds[task_id])

    @cached_property
    def budgets(self) -> ProblemBudgets:
        """Toggle's budget of each problem."""
        return ProblemBudgets(
            journal=self.journal, config=self.config.toggle, limit_of=self.limit_of
        )


async def rl_step(step: int, run: Run) -> dict[str, float]:
    """Do step ``step`` (from 1) and return its metrics; nothing of it is done twice after a crash.

    Episodes already in the journal are not played again, and a step that is in the journal but not
    in a checkpoint is learned again from the very same tokens.
    """
    started = time.perf_counter()
    meter = run.world.meter
    meter.restart()

    trajectories = await play_step(step, run)
    metrics = rollout_metrics(trajectories)
    ensure_enough(
        step,
        trajectories,
        max_infra_failures=run.config.max_infra_failures,
        tasks=len(run.tasks),
    )

    for trajectory in trajectories:
        run.journal.add_trajectory(trajectory)
    groups = shape(step, grouped(trajectories), run)
    metrics |= shaping_metrics(groups)
    if run.config.toggle.enable:
        metrics |= toggle_metrics(step, groups, run.budgets)
    run.journal.add_shaped(step, groups)

    policy_samples = [
        sample for group in groups for sample in samples(group, by_std=run.config.norm_adv_by_std)
    ]
    batch = Batch(step=step, samples=(*policy_samples, *draw_ptx(step, run)))
    with meter.busy("learn"):
        metrics |= await run.trainer.learn(batch)
    with meter.busy("checkpoint"):
        if step % run.config.save_freq == 0 or step == run.config.steps:
            await run.trainer.save(str(run.checkpoints / f"step-{step}"))
    with meter.busy("sync"):
        metrics |= await run.trainer.publish(step)

    lanes = meter.read()
    metrics |= timing(lanes, trajectories, wall_s=time.perf_counter() - started)
    run.journal.finish_step(step, metrics)
    return metrics


async def play_step(step: int, run: Run) -> list[Trajectory]:
    """All episodes of a step, in order of their ids: from the journal, or played now."""
    done = {trajectory.id: trajectory for trajectory in run.journal.trajectories(step)}
    tickets = [ticket for ticket in draw(step, run) if ticket.id not in done]

    def finished(trajectory: Trajectory) -> None:
        # What was lost is played again after a restart; it is recorded once the step goes on.
        if trajectory.outcome not in LOST:
            run.journal.add_trajectory(trajectory)
        done[trajectory.id] = trajectory
        run.on_episode()

    await play_all(tickets, run.world, finished)
    return [done[key] for key in sorted(done)]


def shape(step: int, played: Sequence[Group], run: Run) -> list[Group]:
    """The groups with the rewards that the step learns from."""
    on = shapers(step, run.config, run.limit_of, run.budgets)
    return [shaped(group, on) for group in played]


def draw(step: int, run: Run) -> list[Ticket]:
    """The episodes of a step: the next tasks of an epoch's permutation, a group each."""
    size = run.config.train_batch_size
    first = (step - 1) * size
    tickets: list[Ticket] = []
    for place in range(size):
        epoch, index = divmod(first + place, len(run.tasks))
        order = list(range(len(run.tasks)))
        random.Random(f"{run.seed}/tasks/{epoch}").shuffle(order)
        tickets += [
            Ticket(
                task=run.tasks[order[index]],
                group_id=f"{step:05d}/{place:04d}",
                sample=sample,
                step=step,
                seed=run.seed,
                temperature=temperature_of(
                    step, run.config.temperature, run.config.temperature_decay
                ),
            )
            for sample in range(run.config.n_samples_per_prompt)
        ]
    return tickets


def draw_ptx(step: int, run: Run) -> list[Sample]:
    """The supervised samples of a step; none when their weight is 0."""
    if not run.config.ptx.coef or not run.ptx:
        return []
    rng = random.Random(f"{run.seed}/ptx/{step}")
    return rng.sample(list(run.ptx), min(run.config.ptx.samples_per_step, len(run.ptx)))


def grouped(trajectories: Sequence[Trajectory]) -> list[Group]:
    """Siblings together, in order of their group ids."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.group_id, []).append(trajectory)
    return [
        Group(id=key, task_id=members[0].task_id, trajectories=tuple(members))
        for key, members in sorted(groups.items())
    ]


def timing(
    lanes: Mapping[str, float], trajectories: Sequence[Trajectory], *, wall_s: float
) -> dict[str, float]:
    """Seconds by lane beside the step's own wall time, and generated tokens per second of play."""
    playing = sum(lanes.get(lane, 0.0) for lane in ("generate", "grade", "environment", "idle"))
    tokens = sum(t.generated for t in trajectories if t.outcome not in LOST)
    return {f"timing_s/{lane}": seconds for lane, seconds in lanes.items()} | {
        "timing_s/step": wall_s,
        "perf/throughput": tokens / playing if playing else 0.0,
        "perf/total_num_tokens": float(tokens),
    }
