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
    """Replies whose sentences a document has to bear out, each one (Kimi K2 section 3.2.1).

    The report has a trained judge for this; our documents are made of facts that code knows.
    """

    name: ClassVar[str] = "palestra/Faithfulness-v0"

    def tasks(self, seed: int) -> Sequence[Task]:
        """See ``slots``."""
        return [document_task(self.name, KIND, slot) for slot in slots(KIND, "people", seed)]
