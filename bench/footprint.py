"""What boxes leave on this machine: processes, mounts, control groups and folders, by their marks.

A mark is a word that occurs in whatever belongs to a box: its name, the id of its container or Pod.
Marks are taken while the box lives, from Docker's and Kubernetes' own clients, and looked for
later. Only what is on this machine is found: daemon and node must run here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
KINDS = ("processes", "mounts", "cgroups", "folders")


@dataclass
class Footprint:
    """Marks of boxes, and folders that exist because of them.

    Example: ``left = Footprint(); left.note(backend, box.name); ...; left.count()["processes"]``
    """

    marks: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def note(self, backend: Any, name: str) -> None:
        """Take the marks of a box that lives."""
        own = {name}
        if backend.name == "docker":
            facts = backend.daemon.api.inspect_container(name)
            layer = Path(facts["GraphDriver"]["Data"]["MergedDir"]).parent
            own |= {facts["Id"], layer.name}
            self.folders.add(str(layer))
        elif backend.name == "kubernetes":
            own.add(_pods().read_namespaced_pod(name, _namespace()).metadata.uid)
            own |= _containers(own)
        else:
            self.folders.add(str(backend.root / name))
        self.marks |= own
        for path in mounted(own):
            if place := _up_to(path, own):
                self.folders.add(place)

    def count(self) -> dict[str, int]:
        """How many of each kind there are now."""
        found = (
            processes(self.marks),
            mounted(self.marks),
            groups(self.marks),
            (path for path in self.folders if Path(path).exists()),
        )
        return {kind: sum(1 for _ in some) for kind, some in zip(KINDS, found, strict=True)}

    def dump(self) -> str:
        """One line that ``load`` reads."""
        return json.dumps([sorted(self.marks), sorted(self.folders)])

    @classmethod
    def load(cls, line: str | bytes) -> Footprint:
        """What ``dump`` wrote."""
        marks, folders = json.loads(line)
        return cls(set(marks), set(folders))


def processes(marks: Iterable[str]) -> Iterator[str]:
    """Processes in a control group of a box, or started with its mark; zombies too."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                told = (entry / "cgroup").read_text() + (entry / "cmdline").read_text("latin1")
                if any(mark in told for mark in marks):
                    yield entry.name


def mounted(marks: Iterable[str]) -> Iterator[str]:
    """Where something of a box is mounted, as this process sees it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if any(mark in line for mark in marks):
            yield line.split()[4]


def groups(marks: Iterable[str]) -> Iterator[Path]:
    """Control groups of boxes, in every hierarchy.

    But for a unified one beside those of version 1, which bounds nothing: nodes never clean it.
    """
    for path, folders, _ in os.walk(CGROUPS):  # which passes over those that end meanwhile
        if Path(path) == CGROUPS / "unified":
            folders.clear()
        yield from (Path(path, name) for name in folders if any(mark in name for mark in marks))


def _containers(marks: Iterable[str]) -> set[str]:
    """Ids of the containers of a Pod, from the groups below its own."""
    return {below.name for group in groups(marks) for below in group.glob("*/")}


def _up_to(path: str, marks: Iterable[str]) -> str:
    """The folder of a path whose name is a mark."""
    for parent in (Path(path), *Path(path).parents):
        if parent.name in marks:
            return str(parent)
    return ""


def _pods() -> Any:
    from kubernetes import client, config

    config.load_kube_config()
    return client.CoreV1Api()


def _namespace() -> str:
    from kubernetes import config

    _, active = config.list_kube_config_contexts()
    return str(active["context"].get("namespace", "default"))
