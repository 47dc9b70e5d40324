"""Who made a box: a process, told apart from a later one of the same number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A driver: process ``pid`` that began ``started`` clock ticks after the boot of ``host``.

    ``host`` names a boot of a machine and a process namespace: elsewhere the number says nothing.

    Example: ``Owner.parse(str(Owner.me())).alive``
    """

    pid: int
    started: int
    host: str

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(pid=os.getpid(), started=_started(os.getpid()) or 0, host=_host())

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The owner that ``str`` gave ``text``; raises ``ValueError``."""
        pid, started, host = text.split(".", 2)
        return cls(pid=int(pid), started=int(started), host=host)

    def __str__(self) -> str:
        return f"{self.pid}.{self.started}.{self.host}"

    @property
    def alive(self) -> bool:
        """False when this process is certainly dead; on another machine nothing is certain."""
        return self.host != _host() or _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None for none and for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    words = text.rpartition(")")[2].split()
    return None if words[0] in ("Z", "X") else int(words[19])


@cache
def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
