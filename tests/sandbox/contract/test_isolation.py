"""Isolation: what code in a box cannot see, reach or change."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from palestra.sandbox.auto import BACKENDS, GRADING
from palestra.sandbox.base import GUARANTEES, Backend, Box, BoxSpec

# Set an attribute by the newest call for it, and flags by one that needs no right to write.
ATTRIBUTES = """
import ctypes, fcntl, os, sys
libc, value = ctypes.CDLL(None), ctypes.create_string_buffer(b"x")
given = (ctypes.c_uint64 * 2)(ctypes.addressof(value), 1)
libc.syscall(463, -100, sys.argv[1].encode(), 0, b"user.palestra", given, 16)
try:
    fd = os.open("/usr/bin/env", os.O_RDONLY)
    fcntl.ioctl(fd, 0x40086602, fcntl.ioctl(fd, 0x80086601, bytes(8)))
    print("changed")
except OSError:
    print("refused")
"""

# What may be done to a process of the same user without a signal.
HANDLING = """
import os, resource, sys
pid = int(sys.argv[1])
for change in (
    lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)),
    lambda: os.setpriority(os.PRIO_PROCESS, pid, 7),
    lambda: os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))}),
):
    try:
        change()
    except OSError:
        continue
"""

# Makes what may not be there yet: shared memory, a semaphore, a queue of messages.
QUEUES = """
import ctypes, sys
libc, key, new = ctypes.CDLL(None), int(sys.argv[1]), 0o1000 | 0o2000 | 0o666
for made in (libc.shmget(key, 4096, new), libc.semget(key, 1, new), libc.msgget(key, new)):
    print("refused" if made < 0 else "made")
"""


def test_every_backend_is_accounted_for(any_name: str, absent: str) -> None:
    if absent:
        pytest.skip(absent)
    assert any_name in BACKENDS


def test_what_is_promised_is_defined_and_enough_for_grading(backend: Backend) -> None:
    assert GRADING <= backend.guarantees <= set(GUARANTEES)


async def test_there_is_no_network(box: Box, backend: Backend, listener: int) -> None:
    """Not to a listener on any address of this machine, which are all we may try."""
    assert "no_net" in backend.guarantees
    code = (
        "import socket, sys\n"
        "for address in sys.argv[2:]:\n"
        "    try:\n"
        "        socket.create_connection((address, int(sys.argv[1])), 0.5)\n"
        "        print('reached', address)\n"
        "    except OSError:\n"
        "        print('refused')\n"
        "try:\n"
        "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
        "    print('routed')\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    addresses = _own_addresses()
    for address in addresses:
        socket.create_connection((address, listener), 5).close()
    ended = await box.exec(["python3", "-c", code, str(listener), *addresses], timeout=60)
    assert ended.stdout == b"refused\n" * (len(addresses) + 1), ended.stderr


async def test_there_are_no_abstract_sockets_of_others(box: Box) -> None:
    name = f"\0palestra-{secrets.token_hex(6)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({name!r})"
        assert (await box.exec(["python3", "-c", code])).exit_code == 1


async def test_nothing_is_written_outside(box: Box) -> None:
    name = f"palestra-{secrets.token_hex(6)}"
    folders = ["/", "/usr", "/usr/lib", "/etc", "/bin", "/lib", "/dev", "/var", "/root", "/proc"]
    script = f'for d in {" ".join(folders)}; do (: > "$d/{name}") && echo "$d"; done'
    assert (await box.exec(["sh", "-c", script])).stdout == b""
    assert not any(os.access(f"{folder}/{name}", os.F_OK) for folder in folders)


async def test_kernel_settings_are_not_writable(box: Box) -> None:
    names = "kernel/core_pattern kernel/hostname vm/overcommit_memory"
    ended = await box.exec(f"for n in {names}; do (: >> /proc/sys/$n) && echo $n; done; echo end")
    assert ended.stdout == b"end\n"


async def test_metadata_of_system_files_is_not_changed(box: Box, tmp_path: Path) -> None:
    shown = "stat -c '%a %Y %u' /usr/bin/env"
    before = (await box.exec(shown)).stdout
    await box.exec("chmod 0777 /usr/bin/env; touch /usr/bin/env; chown 1234 /usr/bin/env")
    assert (await box.exec(shown)).stdout == before != b""
    outside = tmp_path / "outside"
    outside.touch()
    ended = await box.exec(["python3", "-c", ATTRIBUTES, str(outside)])
    assert ended.stdout == b"refused\n", ended.stderr
    assert os.listxattr(outside) == []


async def test_what_happens_outside_cannot_be_watched(box: Box, tmp_path: Path) -> None:
    code = "import ctypes, sys; libc = ctypes.CDLL(None); watch = libc.inotify_init()\n"
    code += "print(libc.inotify_add_watch(watch, sys.argv[1].encode(), 0x100))"
    assert (await box.exec(["python3", "-c", code, str(tmp_path)])).stdout == b"-1\n"


async def test_files_of_the_host_are_not_readable(box: Box, tmp_path: Path, marker: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(marker)
    for path in (str(secret), __file__, "/etc/shadow", "/root/.bashrc"):
        assert (await box.exec(["cat", path])).stdout == b"", path


async def test_processes_of_the_host_are_neither_seen_nor_reached(
    box: Box, backend: Backend, marker: str, victim: subprocess.Popen[bytes]
) -> None:
    assert {"signals"} <= backend.guarantees
    ended = await box.exec(
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; ls -l /proc/[0-9]*/fd",
        max_output=1 << 20,
    )
    assert marker.encode() not in ended.stdout
    before = _handling(victim.pid)
    await box.exec(["python3", "-c", HANDLING, str(victim.pid)])
    assert _handling(victim.pid) == before
    await box.exec(f"kill -9 {victim.pid}; kill -9 -{victim.pid}; kill -9 {os.getpid()}")
    assert victim.poll() is None


async def test_there_are_no_powers(box: Box, backend: Backend) -> None:
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.unshare(0x10000000))\n"
        "print(libc.prctl(39, 0, 0, 0, 0), libc.ptrace(0, 0, 0, 0), os.getuid())\n"
        "header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()\n"
        "print(libc.capget(header, sets), *sets)\n"
    )
    ended = await box.exec(["python3", "-c", code])
    lines = [[int(word) for word in line.split()] for line in ended.stdout.decode().splitlines()]
    assert lines[0] == [-1, -1]
    assert lines[2] == [0] * 7, "capabilities are left"
    no_new_privs, ptrace, user = lines[1]
    if "no_new_privs" in backend.guarantees:
        assert no_new_privs == 1
    if "seccomp" in backend.guarantees:
        assert ptrace == -1
    if "user" in backend.guarantees:
        assert user not in (0, os.getuid())


async def test_boxes_do_not_see_each_other(
    backend: Backend, spec: Callable[..., BoxSpec], marker: str
) -> None:
    async with backend.open(spec()) as one, backend.open(spec()) as two:
        await one.write("mine", marker.encode())
        await one.exec("cp mine $TMPDIR/mine; cp mine /dev/shm/mine")
        running = asyncio.create_task(one.exec(["sleep", marker], timeout=300))
        where = (await one.exec(["pwd"])).stdout.decode().strip()
        ended = await two.exec(
            f"cat {where}/mine mine $TMPDIR/mine /dev/shm/mine; cat /proc/[0-9]*/cmdline"
        )
        assert marker.encode() not in ended.stdout
        running.cancel()
        await asyncio.wait([running])


async def test_shared_memory_and_queues_end_with_their_box(
    backend: Backend, spec: Callable[..., BoxSpec]
) -> None:
    key = str(secrets.randbelow(1 << 30))
    async with backend.open(spec()) as one, backend.open(spec()) as two:
        for box in (one, two):
            ended = await box.exec(["python3", "-c", QUEUES, key])
            assert ended.stdout in (b"made\n" * 3, b"refused\n" * 3), "found, or in part"
    assert key not in _shared_by_all()


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a server on every address of this machine."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as server:
        yield server.getsockname()[1]


def _handling(pid: int) -> tuple[object, ...]:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return limits, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid)


def _shared_by_all() -> set[str]:
    """What stands in the tables of shared memory, semaphores and queues of this machine."""
    tables = [Path(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg")]
    return {word for table in tables for word in table.read_text().split()}


def _own_addresses() -> list[str]:
    text = Path("/proc/net/fib_trie").read_text()
    return sorted(set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", text)))
