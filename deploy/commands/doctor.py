"""``palestra doctor``: what works on this machine, found out by trying."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from palestra.deploy.table import aligned
from palestra.deploy.versions import module_version
from palestra.rl.errors import PalestraError

GIB = 1 << 30
MIN_DISK, MIN_SHM = 2 * GIB, GIB // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried; only a ``needed`` one that is not ``ok`` is a problem.

    Example: ``Finding(name="ray", ok=True, needed=True, detail="2.60.0")``
    """

    name: str
    ok: bool
    needed: bool
    detail: str


def run(args: Namespace) -> int:
    """Try everything and print the findings; 1 when something needed does not work."""
    findings = list(examine())
    missing = [finding.name for finding in findings if finding.needed and not finding.ok]
    if args.json:
        print(json.dumps({"ok": not missing, "findings": [asdict(f) for f in findings]}, indent=2))
        return 1 if missing else 0
    rows = [(_mark(finding), finding.name, finding.detail) for finding in findings]
    print("\n".join(aligned(rows)))
    print(f"needed and missing: {', '.join(missing)}" if missing else "ready to train")
    return 1 if missing else 0


def examine() -> Iterator[Finding]:
    """Every finding, in the order of printing."""
    yield _python()
    yield _machine()
    yield _module("torch", _torch)
    yield _gpu()
    yield _module("vllm")
    yield _module("deepspeed")
    yield _module("transformers")
    yield _module("ray", _ray)
    yield from _sandboxes()
    yield _space("disk", Path.cwd(), MIN_DISK)
    yield _space("shared memory", Path("/dev/shm"), MIN_SHM)


def _mark(finding: Finding) -> str:
    return "ok" if finding.ok else "MISSING" if finding.needed else "no"


def _python() -> Finding:
    version = platform.python_version()
    detail = f"{version} ({sys.executable})"
    return Finding(name="python", ok=sys.version_info >= (3, 11), needed=True, detail=detail)


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    detail = f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB memory, {platform.platform()}"
    return Finding(name="machine", ok=True, needed=True, detail=detail)


def _module(name: str, probe: Callable[[], None] | None = None) -> Finding:
    """A library by its version; with ``probe`` it is imported as well."""
    found = module_version(name)
    if found is None:
        detail = "not installed; run make install"
        return Finding(name=name, ok=False, needed=True, detail=detail)
    try:
        if probe:
            probe()
    except Exception as error:  # noqa: BLE001 - a broken native library may raise anything
        detail = f"{found}, but it cannot be imported: {type(error).__name__}: {error}"
        return Finding(name=name, ok=False, needed=True, detail=detail)
    return Finding(name=name, ok=True, needed=True, detail=found)


def _torch() -> None:
    importlib.import_module("torch")


def _ray() -> None:
    importlib.import_module("ray")


def _gpu() -> Finding:
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count()
        devices = [torch.cuda.get_device_properties(index) for index in range(count)]
        names = [f"{d.name} ({d.total_memory / GIB:.0f} GiB)" for d in devices]
    except Exception as error:  # noqa: BLE001 - a broken driver may raise anything
        return Finding(
            name="gpu", ok=False, needed=False, detail=f"{type(error).__name__}: {error}"
        )
    detail = ", ".join(names) or "none; everything runs on the CPU"
    return Finding(name="gpu", ok=bool(names), needed=False, detail=detail)


def _sandboxes() -> Iterator[Finding]:
    from palestra.sandbox.auto import BACKENDS, choose, probe

    for name in BACKENDS:
        found = probe(name)
        detail = found.problem or ", ".join(sorted(found.guarantees))
        yield Finding(name=f"sandbox {name}", ok=not found.problem, needed=False, detail=detail)
    try:
        yield Finding(name="sandbox", ok=True, needed=True, detail=f"uses {choose().name}")
    except PalestraError as error:
        yield Finding(name="sandbox", ok=False, needed=True, detail=str(error))


def _space(name: str, path: Path, least: int) -> Finding:
    try:
        free = shutil.disk_usage(path).free
    except OSError as error:
        return Finding(name=name, ok=False, needed=True, detail=f"{path}: {error.strerror}")
    detail = f"{free / GIB:.1f} GiB free in {path}"
    if free < least:
        detail += f"; make room for {least / GIB:.2g} GiB at least"
    return Finding(name=name, ok=free >= least, needed=True, detail=detail)
