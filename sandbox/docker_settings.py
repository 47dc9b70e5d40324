"""How the container of a box is to be: pure functions from a ``BoxSpec`` to what Docker is told.

Nothing is left to defaults of the daemon that could be weaker somewhere else.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from palestra.sandbox.base import BoxSpec, work_folder
from palestra.sandbox.docker_images import Image
from palestra.sandbox.link import BOOT
from palestra.sandbox.owner import Owner

LABEL = "palestra."
BOX = LABEL + "box"
OWNER, EXPIRES, SHAPE = f"{BOX}.owner", f"{BOX}.expires-at", f"{BOX}.shape"
CAPABILITIES = ("KILL", "SETGID", "SETUID")
"""What the supervisor needs to run commands as another user and to end them; they have none."""

FIRST_USER, FIRST_REMAPPED = 1_000_000_000, 10_000
"""Lowest number of a user in boxes; where a daemon maps users, there are only 65,536 of them."""

_SHM = 64 << 20
_INODES = 200_000
_USERS = 50_000


class Plan(NamedTuple):
    """What a container is made of; ``cpus`` is a share of processors, ``runtime`` an OCI runtime
    (empty: the daemon's own), ``first_user`` the lowest number of a user in boxes."""

    name: str
    spec: BoxSpec
    image: Image
    cpus: float
    runtime: str
    first_user: int = FIRST_USER


def user(plan: Plan) -> int:
    """The user and group of commands in a box: hardly ever that of another box, and of nobody on
    the machine, so that what the kernel counts per user is counted per box."""
    digest = hashlib.sha256(plan.name.encode()).hexdigest()
    return plan.first_user + int(digest[:12], 16) % _USERS


def command(seconds: float) -> list[str]:
    """The supervisor: isolated from the image's Python settings, at the latest ``seconds`` long."""
    return ["python3", "-I", "-S", "-X", "utf8", "-c", BOOT, str(int(seconds) + 1)]


def container(plan: Plan) -> dict[str, Any]:
    """Arguments of ``create_container``, but for the ``host_config``."""
    return {
        "name": plan.name,
        "image": plan.image.id,
        "entrypoint": command(plan.spec.ttl),
        "command": [],
        "user": "0:0",
        "working_dir": "/",
        "hostname": "box",
        "stdin_open": True,
        "use_config_proxy": False,
        "healthcheck": {"test": ["NONE"]},
        "labels": labels(plan, time.time()),
    }


def host(plan: Plan) -> dict[str, Any]:
    """Arguments of ``create_host_config``, but for ``log_config``."""
    limits = plan.spec.limits
    memory = limits.memory
    return {
        "auto_remove": True,
        "cap_drop": ["ALL"],
        "cap_add": list(CAPABILITIES),
        "ipc_mode": "private",
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(plan.cpus * 1e9),
        "network_mode": "none",
        "oom_score_adj": 500,
        "pids_limit": limits.pids,
        "privileged": False,
        "read_only": True,
        "restart_policy": {"Name": "no"},
        "runtime": plan.runtime or None,
        "security_opt": ["no-new-privileges"],
        "shm_size": min(_SHM, memory // 8),
        "tmpfs": mounts(plan),
    }


def mounts(plan: Plan) -> dict[str, str]:
    """The folders that can be written to: in memory, of which they leave a quarter to processes,
    and an eighth less for each of ``scratch``.

    Folders that the image declares as volumes would be disk space without a bound: hidden.
    """
    limits, number = plan.spec.limits, user(plan)
    own = f"mode=0700,uid={number},gid={number}"
    base = f"rw,nosuid,nodev,nr_inodes={_INODES}"
    hidden = dict.fromkeys(plan.image.volumes, "ro,noexec,nosuid,nodev,size=4096")
    return hidden | {
        work_folder(plan.spec): f"{base},exec,{own},size={limits.memory * 3 // 8}",
        **dict.fromkeys(plan.spec.scratch, f"{base},exec,{own},size={limits.memory // 8}"),
        "/tmp": f"{base},exec,mode=1777,size={min(limits.tmp, limits.memory // 4)}",
    }


def labels(plan: Plan, now: float) -> dict[str, str]:
    """Whose the container is and until when, for ``list`` and for people with ``docker ps``."""
    spec = plan.spec
    return {
        **{LABEL + name: value for name, value in spec.labels.items()},
        BOX: "1",
        OWNER: str(Owner.me()),
        EXPIRES: f"{now + spec.ttl:.0f}",
        f"{BOX}.key": spec.key,
        SHAPE: shape(plan),
    }


def shape(plan: Plan) -> str:
    """Equal for boxes that may stand for each other: same image, folder, limits and runtime."""
    facts = [
        plan.image.id,
        [plan.spec.folder, *plan.spec.scratch],
        asdict(plan.spec.limits),
        plan.cpus,
        plan.runtime,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def told(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a ``BoxSpec`` among those of its container."""
    return {
        name.removeprefix(LABEL): value
        for name, value in labels.items()
        if name.startswith(LABEL) and name != BOX and not name.startswith(f"{BOX}.")
    }


def discarded(warnings: list[str]) -> str:
    """The first limit that the daemon says it ignores; swap accounting alone is no reason to stop,
    because ``guarantees`` show by trying whether memory is bounded."""
    serious = [w for w in warnings if "swap" not in w.lower() and "discarded" in w.lower()]
    return serious[0] if serious else ""
