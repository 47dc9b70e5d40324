"""A whole run from a configuration: the place where tasks, boxes, policy and loop are wired."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from palestra.deploy import cluster, head
from palestra.deploy.actors import gather
from palestra.deploy.boxes import cache_folder
from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.deploy.critic import make_critic, trusting
from palestra.deploy.judge import reachable_judges
from palestra.deploy.loggers import Loggers
from palestra.deploy.placement import ensure_room
from palestra.deploy.plot import learning_curve
from palestra.deploy.plot_toggle import toggle_curve
from palestra.deploy.ptx import ptx_files, ptx_sources
from palestra.deploy.run_folder import AUTO, RunFolder
from palestra.deploy.summary import Status, summarize
from palestra.deploy.tasks import Workshop, workshop
from palestra.deploy.warm_start import ADAPTER, warm_start
from palestra.deploy.world import make_world
from palestra.policies.colocate import Colocated
from palestra.policies.compressed import played_folder
from palestra.rewards.assemble import close
from palestra.rl.errors import PalestraError, UserError
from palestra.rl.journal import Journal
from palestra.rl.objectives.registry import policy_loss
from palestra.rl.ptx import Source
from palestra.rl.run import Run
from palestra.rl.train import last_checkpoint
from palestra.rl.train import train as train_loop
from palestra.rl.types import Task
from palestra.rollout.episode import World
from palestra.rollout.tokens import Chat

PROBES = 4
"""Prompts that both sides score after an update; at least one for each engine."""


def sft(config: RunConfig, run_dir: Path, unsafe_local: bool = False) -> int:
    """Only the supervised stage: the same run without RL steps."""
    rl = config.rl.model_copy(update={"steps": 0})
    return train(config.model_copy(update={"rl": rl}), run_dir, AUTO, unsafe_local)


def train(config: RunConfig, run_dir: Path, resume: str, unsafe_local: bool) -> int:
    """Run or go on with a job; returns the exit code."""
    with RunFolder(run_dir, config, resume=resume) as folder, Console(folder.console) as console:
        console.say(f"run folder: {folder.path}")
        with Journal(folder.journal) as journal:
            job = Job(config, folder, journal, console, unsafe_local)
            return job.execute()


@dataclass(frozen=True)
class Job:
    """One process's share of a run: from opening the folder to writing its summary."""

    config: RunConfig
    folder: RunFolder
    journal: Journal
    console: Console
    unsafe_local: bool

    def execute(self) -> int:
        """Train, and leave a summary whatever happens; Ctrl-C and SIGTERM stop cleanly."""
        started = time.monotonic()
        status: Status = "failed"
        reason = ""
        try:
            asyncio.run(_until_signal(self._train()))
            status = "done"
        except (KeyboardInterrupt, asyncio.CancelledError):
            status = "stopped"
        except Exception as error:
            reason = _reason(error)
            self.console.note(reason)
            raise
        finally:
            earlier = self.journal.get_meta("wall_s", 0.0)
            wall = time.monotonic() - started + (earlier if isinstance(earlier, float) else 0.0)
            self.journal.set_meta("wall_s", wall)
            self._summarize(status, reason, wall)
        self._say_goodbye(status)
        return 0 if status == "done" else 130

    async def _train(self) -> None:
        config, console = self.config, self.console
        files = ptx_files(config, self.folder.path, console)
        console.phase("starting Ray")
        async with AsyncExitStack() as stack:
            gpu = await stack.enter_async_context(head.connected())
            ensure_room(config.policy.num_gpus, gpu=gpu)
            shop = await stack.enter_async_context(self._workshop())
            tasks = training_tasks(config, shop)
            policy = await warm_start(config, self.folder.path, shop.env, tasks, console, gpu=gpu)
            played = played_folder(policy, self.folder.path / "played", config.policy.learner.qat)
            console.phase("starting the engine and the learner")
            adapter = str(self.folder.path / ADAPTER) if config.policy.lora.enable else None
            actors = await stack.enter_async_context(
                cluster.colocated(
                    config,
                    str(policy),
                    policy_loss(config.rl),
                    played=str(played),
                    adapter=adapter,
                    gpu=gpu,
                )
            )
            world = make_world(
                config, shop, policy, actors.engine, self.journal, lambda: trainer.version
            )
            await stack.enter_async_context(reachable_judges(world.scheme))
            stack.push_async_callback(close, world.scheme)
            trainer = self._trainer(shop, tasks, world.chat, actors)
            ptx = ptx_sources(config, shop.env, world.chat, tasks, files, console)
            run = self._run(tasks, world, trainer, ptx)
            await self._loop(run, shop)

    def _workshop(self) -> AbstractAsyncContextManager[Workshop]:
        cache = cache_folder() / "validation"
        return workshop(self.config, cache, self.console, unsafe_local=self.unsafe_local)

    def _trainer(
        self, shop: Workshop, tasks: Sequence[Task], chat: Chat, actors: cluster.Actors
    ) -> Colocated:
        config = self.config
        probed = islice(cycle(tasks), max(PROBES, config.policy.num_gpus))
        return Colocated(
            actors.engine,
            actors.learner,
            probe=[chat.prompt(shop.env.prompt(task), shop.env.tools) for task in probed],
            stop_ids=(chat.tokenizer.eos_id,),
            mismatch_limit=config.rl.mismatch_limit,
            gather=gather,
            say=self.console.say,
        )

    def _run(
        self, tasks: Sequence[Task], world: World, trainer: Colocated, ptx: Sequence[Source]
    ) -> Run:
        config = self.config
        critic = make_critic(config, world, trainer, self.journal, self.console.say)
        world = trusting(world, self.journal, config.rl.critic.min_accuracy)
        return Run(
            config=config.rl,
            seed=config.seed,
            tasks=tasks,
            ptx=ptx,
            world=world,
            trainer=trainer,
            journal=self.journal,
            checkpoints=self.folder.checkpoints,
            critic=critic,
        )

    async def _loop(self, run: Run, shop: Workshop) -> None:
        heldout = {name: shop.tasks.split(name) for name in self.config.rl.eval.splits}
        heldout = {name: tasks for name, tasks in heldout.items() if tasks}
        self.console.phase(
            f"training: {run.config.steps} steps of {run.config.train_batch_size} tasks x "
            f"{run.config.n_samples_per_prompt} episodes"
        )
        names, console = self.config.logger, self.console
        episodes = run.config.train_batch_size * run.config.n_samples_per_prompt
        left = run.config.steps - (self.journal.last_step() or 0)
        with (
            Loggers(names, self.folder.path, self.journal, console) as loggers,
            console.bar(left * episodes, "episodes") as advance,
        ):
            run = replace(run, on_episode=advance)
            await train_loop(run, heldout, loggers.log, partial(_announce, console))

    def _summarize(self, status: Status, reason: str, wall_s: float) -> None:
        last = last_checkpoint(self.folder.checkpoints)
        summary = summarize(
            self.journal, status=status, reason=reason, wall_s=wall_s, checkpoint=str(last or "")
        )
        self.folder.write_summary(summary)
        if self.journal.steps():
            curve = self.folder.path / "learning_curve.png"
            learning_curve(self.journal.steps(), self.journal.evals(), curve)
        if self.journal.steps() and self.config.rl.toggle.enable:
            toggle_curve(self.journal.steps(), self.folder.path / "toggle.png")
        if status == "done":
            self.console.before_after(summary.before, summary.after)

    def _say_goodbye(self, status: Status) -> None:
        path = self.folder.path
        if status == "stopped":
            self.console.say(f"stopped; to go on: {_same_command()}")
            return
        last = last_checkpoint(self.folder.checkpoints)
        if last is not None:
            self.console.say(f"learning curve: {path / 'learning_curve.png'}")
            self.console.say(f"checkpoint:     {last} (an ordinary Hugging Face folder)")
        self.console.say("next:")
        self.console.say(f"  palestra show {path}")
        if last is not None:
            source = shlex.quote(self.config.tasks.source)
            self.console.say(f"  palestra eval {last} --tasks {source} -n 4")
        self.console.say(f"  tensorboard --logdir {path / 'tensorboard'}")


def training_tasks(config: RunConfig, shop: Workshop) -> Sequence[Task]:
    """The split ``train``, or everything when the source has no splits."""
    tasks = shop.tasks.split("train") or shop.tasks.tasks
    if not tasks:
        raise UserError(f"tasks.source {config.tasks.source}: no task is left to learn from")
    return tasks[: config.tasks.limit or None]


def _announce(console: Console, step: int, split: str, episodes: int) -> Callable[[], None]:
    console.say(f"evaluating {split} after {step} steps: {episodes} episodes")
    return lambda: None


async def _until_signal(work: object) -> None:
    """Run a coroutine; SIGINT and SIGTERM cancel it so that everything it opened is closed."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await task


def _reason(error: Exception) -> str:
    """Why a run has failed: a line of ours as it is printed, or whatever nobody expected."""
    said = " ".join(str(error).split())
    return said if isinstance(error, PalestraError) else f"{type(error).__name__}: {said}"[:500]


def _same_command() -> str:
    return shlex.join(["palestra", *sys.argv[1:]])
