"""Where the supervised samples beside RL come from: demonstrations and files, by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from palestra.deploy.config import RunConfig
from palestra.deploy.console import Console
from palestra.deploy.warm_start import left_out, variation
from palestra.envs.base import Env
from palestra.rl.ptx import Source
from palestra.rl.ptx_file import PtxFile, Rendered
from palestra.rl.types import Sample, Task
from palestra.rollout.dialects import Inexpressible
from palestra.rollout.tokens import Chat

EPOCHS = 16
"""How often every task is demonstrated, each time otherwise: a few hundred texts would be known by
heart before RL is over, and the loss would no longer say what is forgotten. Our default."""


class Demonstrations:
    """Implements ``rl.ptx.Rows``: the environment's careful demonstrations (K2 wants this set to be
    of high quality), varied as in the supervised stage, and tokenised when they are drawn."""

    def __init__(
        self, config: RunConfig, env: Env, chat: Chat, train: Sequence[Task], console: Console
    ) -> None:
        sft = config.policy.sft
        self._bad: set[int] = set()
        self._tools = env.tools
        self._chat = chat
        self._say = cache(console.say)
        self._demos = [
            demo
            for epoch in range(EPOCHS)
            for demo in env.demonstrations(
                train, variation(config, epoch), mistakes=sft.mistakes, recites=sft.recites
            )
        ]

    @property
    def left_out(self) -> int:
        """Those among the drawn ones that the dialect cannot write."""
        return len(self._bad)

    def __len__(self) -> int:
        return len(self._demos)

    def sample(self, index: int) -> Sample | None:
        """The sample of a demonstration; None for one that the dialect cannot write."""
        demo = self._demos[index]
        try:
            return self._chat.demonstration(demo, self._tools)
        except Inexpressible as error:
            self._bad.add(index)
            self._say(left_out(demo, error))
            return None


def ptx_files(config: RunConfig, folder: Path, console: Console) -> dict[str, PtxFile]:
    """The files that are drawn from, read. ``folder`` is the run's, where copies of them lie while
    it goes on. Raises ``UserError`` for one with nothing to learn from."""
    ptx = config.rl.ptx
    found: dict[str, PtxFile] = {}
    for name, weight in ptx.files.items() if ptx.coef else ():
        if weight:
            found[name] = file = PtxFile(Path(name), folder=folder, say=console.say)
            console.say(f"ptx: {name}: {len(file)} rows, {file.left_out} left out")
    return found


def ptx_sources(
    config: RunConfig,
    env: Env,
    chat: Chat,
    train: Sequence[Task],
    files: Mapping[str, PtxFile],
    console: Console,
) -> list[Source]:
    """The sources that have samples; none when their weight in the loss is 0."""
    ptx = config.rl.ptx
    if not ptx.coef:
        return []
    sources = [
        Source(rows=Rendered(file, chat, config.rollout.max_context_length), weight=ptx.files[name])
        for name, file in files.items()
    ]
    if ptx.demonstrations:
        rows = Demonstrations(config, env, chat, train, console)
        sources.insert(0, Source(rows=rows, weight=ptx.demonstrations))
    return [source for source in sources if len(source.rows)]
