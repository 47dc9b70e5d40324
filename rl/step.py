"""One synchronous RL step, top to bottom: draw, play, compare, learn, save, publish.

Consumes tasks, produces weights. Everything that it needs was built by ``deploy`` and comes in
``Run``; nothing here knows Ray, vLLM, DeepSpeed or a sandbox.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

from palestra.rl.batch import batch_of
from palestra.rl.critic.loop import study
from palestra.rl.hacking import ensure_honest, hacking_metrics
from palestra.rl.kl_reward import kl_metrics, kl_penalties, less_kl
from palestra.rl.lost import ensure_enough
from palestra.rl.metrics import cost_metrics, rollout_metrics
from palestra.rl.play import grouped, play_step, shape
from palestra.rl.presets import rule
from palestra.rl.problem_budgets import toggle_metrics
from palestra.rl.ptx import draw, ptx_metrics
from palestra.rl.run import Run
from palestra.rl.sampling import sampling_metrics
from palestra.rl.shaping import shaping_metrics
from palestra.rl.token_ratios import keep_learner_logprobs
from palestra.rl.types import LOST, Sample, Trajectory
from palestra.rl.visits import record_visits

PLAYING = ("generate", "grade", "environment", "reward", "idle")
"""Lanes in which episodes are played."""


async def rl_step(step: int, run: Run) -> dict[str, float]:
    """Do step ``step`` (from 1) and return its metrics; nothing of it is done twice after a crash.

    Episodes already in the journal are not played again, and a step that is in the journal but not
    in a checkpoint is learned again from the very same tokens.
    """
    started = time.perf_counter()
    meter = run.world.meter
    meter.restart()

    trajectories = await play_step(step, run)
    metrics = {**rollout_metrics(trajectories), **run.world.box_metrics()}
    metrics |= run.world.judge_metrics(step)
    ensure_enough(
        step,
        trajectories,
        max_infra_failures=run.config.max_infra_failures,
        tasks=len(run.tasks),
    )

    for trajectory in trajectories:
        if trajectory.outcome in LOST:  # the others are there since they were played
            run.journal.put_trajectory(trajectory)
    groups = shape(step, grouped(trajectories), run)
    metrics |= sampling_metrics(groups, run.tasks)
    if run.config.toggle.enable:
        metrics |= toggle_metrics(step, groups, run.budgets)
    with meter.busy("learn"):
        lessons = await study(
            step, trajectories, run.critic, run.journal, run.trainer, rule(run.config)
        )
    metrics |= lessons.metrics
    with meter.busy("learn"):
        await keep_learner_logprobs(step, groups, run)
        penalties = await kl_penalties(groups, run.config.kl, run.trainer)
    groups = less_kl(groups, penalties)
    metrics |= shaping_metrics(groups) | kl_metrics(penalties, run.config.kl)
    run.journal.add_shaped(step, groups)
    record_visits(step, groups, run.journal)
    splits = run.config.eval.splits
    metrics |= hacking_metrics(step, trajectories, run.by_id, run.journal, splits)
    ensure_honest(step, metrics, run.config.hacking)

    ptx = draw_ptx(step, run)
    metrics |= ptx_metrics(run.ptx, ptx)
    batch = batch_of(
        step,
        groups,
        ptx,
        rule(run.config),
        mini_batches=run.config.mini_batches,
        penalties=penalties,
        lessons=lessons,
    )
    with meter.busy("learn"):
        metrics |= await run.trainer.learn(batch)
    with meter.busy("checkpoint"):
        if step % run.config.save_freq == 0 or step == run.config.steps:
            await run.trainer.save(str(run.checkpoints / f"step-{step}"))
    with meter.busy("sync"):
        metrics |= await run.trainer.publish(step)

    lanes = meter.read()
    metrics |= timing(lanes, trajectories, wall_s=time.perf_counter() - started)
    metrics |= cost_metrics(trajectories, metrics)
    run.journal.finish_step(step, metrics)
    return metrics


def draw_ptx(step: int, run: Run) -> list[Sample]:
    """The supervised samples of a step; none when their weight is 0."""
    if not run.config.ptx.coef or not run.ptx:
        return []
    rng = random.Random(f"{run.seed}/ptx/{step}")
    return draw(run.ptx, run.config.ptx.samples_per_step, rng)


def timing(
    lanes: Mapping[str, float], trajectories: Sequence[Trajectory], *, wall_s: float
) -> dict[str, float]:
    """Seconds by lane beside the step's own wall time, and generated tokens per second of play."""
    playing = sum(lanes.get(lane, 0.0) for lane in PLAYING)
    tokens = sum(t.generated for t in trajectories if t.outcome not in LOST)
    return {f"timing_s/{lane}": seconds for lane, seconds in lanes.items()} | {
        "timing_s/step": wall_s,
        "perf/throughput": tokens / playing if playing else 0.0,
        "perf/total_num_tokens": float(tokens),
    }
