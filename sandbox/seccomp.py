"""A hand-built seccomp filter: system calls that no agent needs and kernels get broken through."""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
_LOAD, _AND, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEW_NAMESPACE = 0x7E020000
_AF_UNIX = 1
# FIONREAD and what terminals are asked: all of these, and none that changes a file, are 0x54..
_IOCTL_KIND, _IOCTL_PLAIN = 0xFFFFFF00, 0x5400

# Audit architecture of a machine, and the column of the tables below that holds its numbers.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# name:x86_64:aarch64, with 0 for a call that the machine does not have.
_DENIED = """
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 kcmp:312:272
pidfd_getfd:438:438 process_madvise:440:440 perf_event_open:298:241 bpf:321:280
userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426 io_uring_register:427:427
add_key:248:217 request_key:249:218 keyctl:250:219 unshare:272:97 setns:308:268
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 open_tree:428:428
move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433
mount_setattr:442:442 open_tree_attr:467:467 name_to_handle_at:303:264
open_by_handle_at:304:265 swapon:167:224
swapoff:168:225 quotactl:179:60 acct:163:89 syslog:103:116 reboot:169:142
kexec_load:246:104 kexec_file_load:320:294 init_module:175:105 finit_module:313:273
delete_module:176:106 settimeofday:164:170 clock_settime:227:112 adjtimex:159:171
"""
_SOCKET = "socket:41:198"
_OWN_LIMITS = """
prlimit64:302:261 sched_setscheduler:144:119 sched_setparam:142:118 sched_setattr:314:274
sched_setaffinity:203:122
"""
_OWN_PRIORITY = "setpriority:141:140"
_IO_PRIORITY = "ioprio_set:251:30"
_SHARED = """
shmget:29:194 shmat:30:196 shmctl:31:195 semget:64:190 semop:65:193 semtimedop:220:192
semctl:66:191 msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187 mq_open:240:180
mq_unlink:241:181 inotify_add_watch:254:27 fanotify_init:300:262
"""
_METADATA = """
chmod:90:0 fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92:0 fchown:93:55
lchown:94:0 fchownat:260:54 utime:132:0 utimes:235:0 futimesat:261:0 utimensat:280:88
setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7 setxattrat:463:463 removexattr:197:14
lremovexattr:198:15 fremovexattr:199:16 removexattrat:466:466 file_setattr:469:469
"""
_IOCTL = "ioctl:16:29"
_NESTING = "unshare:272:97 setns:308:268 mount:165:40"
_CLONE = "clone:56:220"
_CLONE3 = 435


def available(machine: str = "") -> bool:
    """Whether we know the system call numbers of ``machine`` (empty: this one)."""
    return (machine or platform.machine()) in _MACHINES


def build(
    *, machine: str = "", shared_user: bool = False, bare: bool = False, nesting: bool = False
) -> bytes:
    """The filter for ``machine`` (empty: this one) as an array of ``struct sock_filter``.

    ``shared_user`` is for commands that run as the user of others that they must not touch: limits
    and priorities are set for oneself only, and sockets are Unix sockets. ``bare`` is that for
    commands without namespaces: there is no ``socket()`` (``socketpair`` still works), no shared
    memory or queue that would outlive them, no watching of files; chmod, chown, utime and setxattr
    succeed and do nothing, and of ioctl only what terminals and pipes know is left.
    ``nesting`` lets pass what makes namespaces and mounts: for a supervisor that has the power, and
    whose children have lost it.
    """
    arch, column = _MACHINES[machine or platform.machine()]
    program = [(_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NR), (_JGE, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    # clone3 hides its flags behind a pointer; with ENOSYS every libc falls back to clone.
    program += _refuse(_CLONE3, _ERRNO | errno.ENOSYS)
    kept = _numbers(_NESTING, column) if nesting else []
    for number in _numbers(_DENIED + (_SOCKET + _SHARED if bare else ""), column):
        program += [] if number in kept else _refuse(number, _ERRNO | errno.EPERM)
    for number in _numbers(_METADATA if bare else "", column):
        program += _refuse(number, _ERRNO)
    if shared_user or bare:
        for table, wanted in (
            (_SOCKET, {_ARG0: _AF_UNIX}),
            (_OWN_LIMITS, {_ARG0: 0}),
            (_OWN_PRIORITY, {_ARG0: 0, _ARG1: 0}),
        ):
            for number in _numbers(table, column):
                program += _only(number, wanted)
        for number in _numbers(_IO_PRIORITY, column):
            program += _refuse(number, _ERRNO | errno.EPERM)
    for number in _numbers(_IOCTL if bare else "", column):
        program += [(_JEQ, 0, 5, number), (_LOAD, 0, 0, _ARG1), (_AND, 0, 0, _IOCTL_KIND)]
        program += [(_JEQ, 0, 1, _IOCTL_PLAIN), (_RETURN, 0, 0, _ALLOW)]
        program += [(_RETURN, 0, 0, _ERRNO | errno.ENOTTY)]
    [clone] = _numbers(_CLONE, column)
    program += [(_JEQ, 0, 3, clone), (_LOAD, 0, 0, _ARG0), (_JSET, 0, 1, _NEW_NAMESPACE)]
    program += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def _numbers(table: str, column: int) -> list[int]:
    found = [int(entry.split(":")[1 + column]) for entry in table.split()]
    return [number for number in found if number]


def _refuse(number: int, verdict: int) -> list[tuple[int, int, int, int]]:
    return [(_JEQ, 0, 1, number), (_RETURN, 0, 0, verdict)]


def _only(number: int, wanted: Mapping[int, int]) -> list[tuple[int, int, int, int]]:
    """Let a call pass only if its arguments, by their place, have these values."""
    size = 2 * len(wanted)
    lines = [(_JEQ, 0, size + 2, number)]
    for at, (argument, value) in enumerate(wanted.items(), 1):
        lines += [(_LOAD, 0, 0, argument), (_JEQ, 0, size - 2 * at + 1, value)]
    return [*lines, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
