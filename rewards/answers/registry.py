"""Every answer verifier by name: ours, and those that installed packages offer as plugins.

A plugin is an entry point of the group ``palestra.verifiers`` that names one function
``async (text: str, expected: str) -> str``; see ``rl.types.Verifier``.
"""

from __future__ import annotations

from palestra.rewards.answers.constraints import constraints
from palestra.rewards.answers.faithful import answered, supported
from palestra.rewards.answers.numeric import numeric
from palestra.rewards.answers.puzzles import cryptarithm, sudoku, target
from palestra.rewards.answers.safe import helped, kept
from palestra.rewards.answers.symbolic import symbolic
from palestra.rewards.answers.tables import changes_made, nothing_else
from palestra.rewards.answers.text import choice, exact
from palestra.rl.plugins import Registry
from palestra.rl.types import Verifier

VERIFIERS: Registry[Verifier] = Registry(
    "answer verifier",
    "palestra.verifiers",
    {
        "exact": exact,
        "choice": choice,
        "numeric": numeric,
        "symbolic": symbolic,
        "target": target,
        "sudoku": sudoku,
        "cryptarithm": cryptarithm,
        "constraints": constraints,
        "changes_made": changes_made,
        "nothing_else": nothing_else,
        "supported": supported,
        "answered": answered,
        "kept": kept,
        "helped": helped,
    },
)
