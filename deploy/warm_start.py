"""The policy that RL starts from: a given folder, or the tiny one, after its supervised stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from palestra.deploy.cluster import learner_alone
from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.envs.base import Env
from palestra.policies.colocate import LearnerSide
from palestra.policies.routing import has_experts
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.errors import UserError
from palestra.rl.sft import epochs
from palestra.rl.types import Batch, Demonstration, Sample, Task
from palestra.rollout.dialects import DIALECTS, Inexpressible
from palestra.rollout.tokens import Chat, supervised

ADAPTER = "adapter"
"""In the run's folder: the adapter that RL starts from."""


def base_policy(
    config: RunConfig, run: Path, env: Env, train: Sequence[Task], console: Console
) -> Path:
    """The folder before the supervised stage: the user's own, or a freshly built tiny policy."""
    if config.policy.model != "tiny":
        folder = Path(config.policy.model)
        if not (folder / "config.json").is_file():
            raise UserError(f"policy.model: {folder} is not a Hugging Face folder (no config.json)")
        return folder
    folder = run / "base"
    if not (folder / "config.json").is_file():
        console.phase("building the tiny policy and its tokenizer")
        partial = folder.with_name("base.partial")
        shutil.rmtree(partial, ignore_errors=True)
        texts = [*sources_of(train) * 20, *(text for task in train for text in _texts(task))]
        build(partial, config.policy.tiny, texts, env.tools, config.seed)
        partial.rename(folder)
    return folder


async def warm_start(
    config: RunConfig, run: Path, env: Env, train: Sequence[Task], console: Console, *, gpu: bool
) -> Path:
    """The folder that RL starts from; the supervised stage is done once per run, and so is the
    adapter (``ADAPTER`` in the run's folder) where RL trains one."""
    ensure_taught(config, env, train)
    base = base_policy(config, run, env, train, console)
    if config.policy.engine.return_routed_experts and not has_experts(str(base)):
        raise UserError(
            f"policy.engine.return_routed_experts: {base} has no experts; set it to false"
        )
    if config.policy.lora.enable:
        first_adapter(config, base, run / ADAPTER)
    sft = config.policy.sft
    if not sft.steps:
        return base
    folder = run / "sft"
    if (folder / "config.json").is_file():
        return folder
    chat = Chat(HFTokenizer(base), DIALECTS[config.rollout.dialect])
    total = sft.corpus_steps + sft.steps
    console.phase(f"supervised warm start: {total} steps on demonstrations of {len(train)} tasks")
    settings = config.policy.learner.model_copy(
        update={
            "lr": sft.lr,
            "warmup_steps": sft.warmup_steps,
            "decay_steps": total,
            "schedule": "linear",
            "min_lr_ratio": 0.1,
        }
    )
    with console.progress(total, "supervised steps") as advance:
        batches = _batches(config, env, chat, train, console)
        ranks = config.policy.num_gpus
        async with learner_alone(settings, str(base), ranks, gpu=gpu) as learner:
            await _learn(learner, folder, batches, advance)
    return folder


def ensure_taught(config: RunConfig, env: Env, train: Sequence[Task]) -> None:
    """Raise ``UserError`` where the supervised stage is asked for and has nothing to learn from."""
    sft = config.policy.sft
    if not sft.steps:
        return
    if next(env.demonstrations(train, config.seed), None) is None:
        raise UserError(
            f"policy.sft.steps: {env.name} writes no demonstrations of these tasks; set it to 0"
        )
    if sft.corpus_steps and not sources_of(train):
        raise UserError("policy.sft.corpus_steps: these tasks have no references; set it to 0")


def first_adapter(config: RunConfig, model: Path, folder: Path) -> None:
    """Written once: it does not depend on the weights, so before any of them is learned."""
    from palestra.policies.lora import create

    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        create(model, partial, config.policy.lora, config.seed)
        partial.rename(folder)


async def _learn(
    learner: LearnerSide, folder: Path, batches: Iterator[Batch], advance: Callable[[], None]
) -> None:
    for batch in batches:
        await learner.learn(batch)
        advance()
    partial = folder.with_name(folder.name + ".partial")
    await learner.export(str(partial))
    partial.rename(folder)


def _batches(
    config: RunConfig, env: Env, chat: Chat, train: Sequence[Task], console: Console
) -> Iterator[Batch]:
    sft = config.policy.sft
    say_once = cache(console.say)

    def texts(_: int) -> list[Sample]:
        encoded = map(chat.tokenizer.spell, sources_of(train))
        return [supervised(ids, [1.0] * len(ids)) for ids in encoded]

    if sft.corpus_steps:
        yield from epochs(
            texts, steps=sft.corpus_steps, batch_size=sft.batch_size, seed=config.seed
        )
    yield from epochs(
        lambda epoch: demonstrations(config, env, chat, train, epoch, say_once),
        steps=sft.steps,
        batch_size=sft.batch_size,
        seed=config.seed,
    )


def demonstrations(
    config: RunConfig,
    env: Env,
    chat: Chat,
    train: Sequence[Task],
    epoch: int,
    say: Callable[[str], None],
) -> list[Sample]:
    """Demonstrations of the training tasks as samples; every epoch varies them. One that the
    dialect cannot write is named and left out."""
    sft = config.policy.sft
    demos = env.demonstrations(
        train,
        variation(config, epoch),
        mistakes=sft.mistakes,
        careless=sft.careless,
        gives_up=sft.gives_up,
        recites=sft.recites,
    )
    samples: list[Sample] = []
    for demo in demos:
        try:
            samples.append(chat.demonstration(demo, env.tools))
        except Inexpressible as error:
            say(left_out(demo, error))
    return samples


def variation(config: RunConfig, epoch: int) -> int:
    """The seed of an epoch's demonstrations."""
    return config.seed * 1000 + epoch


def left_out(demo: Demonstration, error: Inexpressible) -> str:
    """What is said of a demonstration that cannot be written."""
    return f"left out a demonstration of {demo.task_id}: {error}"


def sources_of(train: Sequence[Task]) -> list[str]:
    """The distinct correct files behind the training tasks: never those of a held-out function."""
    return list(dict.fromkeys(text for task in train for text in task.reference.values()))


def _texts(task: Task) -> list[str]:
    return [task.prompt, task.labels.get("observed", "")]
