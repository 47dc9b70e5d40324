"""The environment ``palestra/Faithfulness-v0``: say what a document says, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from palestra.envs.answer import Answer
from palestra.envs.faithfulness.documents import document_task
from palestra.envs.puzzle import slots
from palestra.rl.types import Task

KIND = "faithfulness"


class Faithfulness(Answer):
    """Every sentence is held against the facts that the document is made of (Kimi K2 section
    3.2.1 has a trained judge do this)."""

    name: ClassVar[str] = "palestra/Faithfulness-v0"

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``slots``."""
        return [document_task(self.name, KIND, slot) for slot in slots(KIND, "people", seed)]
