"""A hand-built seccomp filter: system calls that no agent needs and kernels get broken through."""

from __future__ import annotations

import errno
import platform
import struct

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEW_NAMESPACE = 0x7E020000

# Per machine: audit architecture, clone, the calls always refused, those that reach the network,
# and those that change the metadata of files (which Landlock does not cover).
_MACHINES: dict[str, tuple[int, int, list[int], list[int], list[int]]] = {
    "x86_64": (
        0xC000003E,
        56,
        [101, 103, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 175, 176, 179, 227, 246, 248]
        + [249, 250, 272, 298, 303, 304, 308, 310, 311, 312, 313, 320, 321, 323, 425, 426, 427]
        + [428, 429, 430, 431, 432, 433, 438, 440, 442],
        [41],
        [90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452],
    ),
    "aarch64": (
        0xC00000B7,
        220,
        [39, 40, 41, 51, 60, 89, 97, 104, 105, 106, 112, 116, 117, 142, 170, 171, 217, 218, 219]
        + [224, 225, 241, 264, 265, 268, 270, 271, 272, 273, 280, 282, 294, 425, 426, 427]
        + [428, 429, 430, 431, 432, 433, 438, 440, 442],
        [198],
        [5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 88, 452],
    ),
}
_CLONE3 = 435


def available() -> bool:
    """Whether we know the system call numbers of this machine."""
    return platform.machine() in _MACHINES


def build(*, deny_sockets: bool = False, fake_metadata: bool = False) -> bytes:
    """The filter as an array of ``struct sock_filter``.

    ``deny_sockets`` refuses ``socket()`` altogether (``socketpair`` still works);
    ``fake_metadata`` turns chmod, chown, utime and setxattr into successes that do nothing.
    """
    arch, clone, denied, sockets, metadata = _MACHINES[platform.machine()]
    program = [(_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NR), (_JGE, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    # clone3 hides its flags behind a pointer; with ENOSYS every libc falls back to clone.
    program += _refuse(_CLONE3, _ERRNO | errno.ENOSYS)
    for number in denied + (sockets if deny_sockets else []):
        program += _refuse(number, _ERRNO | errno.EPERM)
    for number in metadata if fake_metadata else []:
        program += _refuse(number, _ERRNO)
    program += [(_JEQ, 0, 3, clone), (_LOAD, 0, 0, _ARG0), (_JSET, 0, 1, _NEW_NAMESPACE)]
    program += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def _refuse(number: int, verdict: int) -> list[tuple[int, int, int, int]]:
    return [(_JEQ, 0, 1, number), (_RETURN, 0, 0, verdict)]
