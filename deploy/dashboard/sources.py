"""What the routes read from, put together once per server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from palestra.deploy.dashboard import groups, models, query
from palestra.deploy.dashboard.runs import Runs
from palestra.deploy.dashboard.steps import StepCache
from palestra.deploy.dashboard.tail import Tail
from palestra.deploy.token_text import TokenPieces, load_tokenizer, pieces, tokenizer_files
from palestra.rl.journal import Journal


@dataclass
class Sources:
    """Runs, their metrics and their indexes; safe to use from several threads.

    Example: ``Sources(runs=Runs(Path("runs")), tail=tail)``
    """

    runs: Runs
    tail: Tail

    @cached_property
    def steps(self) -> StepCache:
        """Metrics of runs."""
        return StepCache(self.runs)

    @contextmanager
    def index(self, name: str) -> Iterator[sqlite3.Connection]:
        """A connection to the index of a run, brought up to date as far as that is quick."""
        with closing(self.tail.want(name).connect()) as connection:
            yield connection

    def progress(self, name: str, journal: Journal) -> models.Progress:
        """How far the index of a run is."""
        return models.Progress(indexed=self.tail.done(name), recorded=sum(journal.counts()))

    def groups(self, name: str, step: int) -> models.GroupList:
        """The groups of a step of training, with advantages."""
        how = groups.rule_of(self.runs.config(name))
        with self.runs.journal(name) as journal, self.index(name) as index:
            found = groups.groups_of(query.rows_of_groups(index, step), journal.shaped(step), how)
            return groups.list_of(step, how, found, self.progress(name, journal))

    def advantage(self, name: str, step: int, trajectory: str) -> float | None:
        """The advantage of a training episode, if it has one."""
        everyone = (s for group in self.groups(name, step).groups for s in group.siblings)
        return next((s.advantage for s in everyone if s.episode.id == trajectory), None)

    def decoder(self, name: str) -> TokenPieces | None:
        """Decodes tokens with the newest tokenizer in the run's folder that can be loaded."""
        root = self.runs.root
        inside = (
            path
            for path in tokenizer_files(self.runs.path(name))
            if path.resolve().is_relative_to(root)
        )
        decoders = (_decoder(path, path.stat().st_mtime_ns) for path in inside)
        return next(filter(None, decoders), None)

    def fingerprints(self) -> dict[str, str]:
        """Changes where a run has changed, or its index has come further."""
        return {
            name: f"{self.runs.fingerprint(name)} {self.tail.done(name)}"
            for name in self.runs.names()
        }


@lru_cache(maxsize=8)
def _decoder(path: Path, written: int) -> TokenPieces | None:
    tokenizer = load_tokenizer([path])
    return None if tokenizer is None else pieces(tokenizer)
