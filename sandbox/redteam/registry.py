"""Every attack by name, and what of the table is not an attack on a grade.

Attacks are data: their programs are text that only ever runs in boxes.
"""

from __future__ import annotations

from collections.abc import Mapping

from palestra.sandbox.redteam.at_import import AT_IMPORT
from palestra.sandbox.redteam.attack import Attack
from palestra.sandbox.redteam.files import FILES
from palestra.sandbox.redteam.git import GIT
from palestra.sandbox.redteam.interpreter import INTERPRETER
from palestra.sandbox.redteam.output import OUTPUT
from palestra.sandbox.redteam.probes import PROBES
from palestra.sandbox.redteam.processes import PROCESSES
from palestra.sandbox.redteam.programs import PROGRAMS
from palestra.sandbox.redteam.resources import RESOURCES
from palestra.sandbox.redteam.values import VALUES

FAMILIES: Mapping[str, Mapping[str, Attack]] = {
    "at_import": AT_IMPORT,
    "values": VALUES,
    "interpreter": INTERPRETER,
    "output": OUTPUT,
    "files": FILES,
    "processes": PROCESSES,
    "resources": RESOURCES,
    "programs": PROGRAMS,
    "git": GIT,
    "probes": PROBES,
}

ATTACKS: Mapping[str, Attack] = {
    name: attack for family in FAMILIES.values() for name, attack in family.items()
}
"""Name to attack; names are unique over all families."""

NO_ATTACK: Mapping[int, str] = {
    20: "no environment has a tool that grades, and the verdict's text never reaches the policy",
    21: "no model judges in this version",
}
"""Rows of the table that there is nothing to run for, and why."""
