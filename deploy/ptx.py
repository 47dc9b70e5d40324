"""Where the supervised samples beside RL come from: demonstrations and files, by weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.deploy.warm_start import ptx_samples
from palestra.envs.base import Env
from palestra.rl.ptx import InMemory, Source
from palestra.rl.ptx_file import PtxFile
from palestra.rl.types import Task
from palestra.rollout.tokens import Chat


def ptx_sources(
    config: RunConfig, env: Env, chat: Chat, train: Sequence[Task], folder: Path, console: Console
) -> list[Source]:
    """The sources that have samples; none when their weight in the loss is 0. ``folder`` is the
    run's, where copies of files lie while it goes on."""
    ptx = config.rl.ptx
    if not ptx.coef:
        return []
    demonstrations = ptx_samples(config, env, chat, train) if ptx.demonstrations else []
    sources = [Source(rows=InMemory(demonstrations), weight=ptx.demonstrations)]
    for name, weight in ptx.files.items():
        rows = PtxFile(
            Path(name),
            chat,
            folder=folder,
            max_tokens=config.rollout.max_context_length,
            say=console.say,
        )
        console.say(f"ptx: {name}: {len(rows)} rows, {rows.left_out} left out")
        sources.append(Source(rows=rows, weight=weight))
    return [source for source in sources if source.weight and len(source.rows)]
