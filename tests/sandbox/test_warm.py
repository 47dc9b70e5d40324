# ruff: noqa: E501 - programs in strings
"""Warm boxes: nothing passes from one candidate to the next, and nothing reaches the zygote."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from palestra.envs.corpus_loader import shipped_functions
from palestra.envs.mutate import mutants
from palestra.envs.programs import Function
from palestra.rl.errors import SandboxError
from palestra.rl.types import CallCheck, CheckJob, CheckResult, Outcome, Task, UnitCheck, Verdict
from palestra.sandbox import warm as warm_module
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, judged, make_grader
from palestra.sandbox.keeper import reap
from palestra.sandbox.memo import accidental
from palestra.sandbox.unsafe import UnsafeLocal
from palestra.sandbox.warm import Warm, problem_of, warm
from palestra.sandbox.warm_box import Zygote

HONEST = "def f(): return 'fine'"


@pytest.fixture
def boxes(tmp_path: Path) -> Bubblewrap:
    try:
        backend = Bubblewrap(root=tmp_path)
        problem = problem_of(backend)
    except SandboxError as error:
        problem = str(error)
    if problem:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem)
    return backend


@pytest.fixture
def one(boxes: Bubblewrap) -> Iterator[Warm]:
    """Warm boxes of which one is ever used: every run follows the last in the same zygote."""
    found = Warm(boxes)
    yield found
    asyncio.run(found.close())
    assert list(boxes.root.iterdir()) == []


def ran(runner: Warm, code: str, *, expected: object = "fine", **options: float) -> CheckResult:
    check = CallCheck(id="c", module="solution", function="f", args="()", expected=repr(expected))
    job = CheckJob(files={"solution.py": code}, checks=(check,))
    [[result]] = asyncio.run(runner.run([job], **options))
    return result


def told(runner: Warm, code: str) -> object:
    """What ``f`` of ``code`` returns, which is plain data."""
    got = ran(runner, code, expected=["x" * 4000]).got
    return ast.literal_eval(got)


def zygote_of(runner: Warm) -> Zygote:
    [zygote] = runner._idle
    return zygote


def same_zygote(runner: Warm, act: Callable[[], object]) -> None:
    """``act`` leaves the zygote in use, and the next candidate is graded by it."""
    assert ran(runner, HONEST).passed
    before = zygote_of(runner)
    act()
    assert ran(runner, HONEST).passed
    assert zygote_of(runner) is before


def below(pid: int) -> Iterator[int]:
    """Children of a process, and theirs."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                yield child
                yield from below(child)


def members() -> int:
    """How many processes are below this one."""
    return len(list(below(os.getpid())))


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


LEAVES = """
import builtins, ctypes, os, sys, random
libc = ctypes.CDLL(None)
for folder in ("/tmp", "/workspace", "/dev/shm"):
    os.makedirs(folder + "/trace")
    open(folder + "/trace.py", "w").write("x = 1")
os.environ["TRACE"] = "1"
sys.trace = builtins.trace = 1
sys.path.insert(0, "/tmp")
random.random = len = lambda *a: 4
shm = libc.shmget(0x7ACE, 4096, 0o1666)
sem = libc.semget(0x7ACE, 1, 0o1666)
queue = libc.mq_open(b"/trace", os.O_RDWR | os.O_CREAT, 0o666, None)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    import socket
    s = socket.socket(socket.AF_UNIX)
    s.bind("\\0trace")
    s.listen()
    while True:
        s.accept()
os.wait()
def f(): return "fine" if min(shm, sem, queue) >= 0 else [shm, sem, queue]
"""
LOOKS = """
import builtins, ctypes, os, sys, random, socket
libc = ctypes.CDLL(None)
found = [os.path.join(d, n) for top in ("/tmp", "/workspace", "/dev/shm")
         for d, ds, ns in os.walk(top) for n in ds + ns if "trace" in n]
found += [n for n in os.environ if n == "TRACE"]
found += [m.__name__ for m in (sys, builtins) if hasattr(m, "trace")]
found += ["random"] if random.random() == 4 else []
found += ["shm"] if libc.shmget(0x7ACE, 0, 0) >= 0 else []
found += ["sem"] if libc.semget(0x7ACE, 0, 0) >= 0 else []
found += ["queue"] if libc.mq_open(b"/trace", os.O_RDWR) >= 0 else []
try:
    socket.socket(socket.AF_UNIX).connect("\\0trace")
    found += ["socket"]
except OSError:
    pass
found += [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
def f(): return found
"""


def test_what_a_candidate_leaves_is_gone(one: Warm) -> None:
    def leave() -> None:
        assert ran(one, LEAVES).passed
        assert told(one, LOOKS) == []

    same_zygote(one, leave)


def test_nothing_that_makes_every_fork_dearer_is_loaded(one: Warm) -> None:
    """Importing threading or random makes Python do more after each fork: twice its cost."""
    heavy = "sorted({'threading', 'random', 'logging'} & {*sys.modules})"
    assert told(one, f"import sys\ndef f(): return {heavy}") == []


def test_a_rehearsal_leaves_nothing(one: Warm) -> None:
    looks = "*sys.modules, *sys.path, *sys.path_importer_cache, *os.listdir('/tmp')"
    code = f"import os, sys\ndef f(): return [n for n in [{looks}] if 'rehears' in n]"
    assert told(one, code) == ["palestra.sandbox.rehearsal"]


SECRET = "a word of candidate A that B must not find"


def test_memory_of_the_next_holds_nothing_of_the_last(one: Warm) -> None:
    scan = (
        "import re\n"
        "def f():\n"
        "    found = 0\n"
        "    for line in open('/proc/self/maps').read().splitlines():\n"
        "        span, mode = line.split()[:2]\n"
        "        if 'r' not in mode or '[v' in line: continue\n"
        "        a, b = (int(x, 16) for x in span.split('-'))\n"
        "        with open('/proc/self/mem', 'rb', 0) as memory:\n"
        "            memory.seek(a)\n"
        "            try: found += bool(re.search(b'a w[o]rd of candidate A th[a]t', memory.read(b - a)))\n"
        "            except OSError: pass\n"
        "    return found\n"
    )
    holds = f"X = {SECRET!r}\n{scan}"
    same_zygote(one, lambda: None)
    assert told(one, holds) != 0, "the scan finds what is there"
    assert told(one, scan) == 0


CONFINED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f():
    status = dict(l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\\t" in l)
    caps = {status[n] for n in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    refused = [libc.unshare(flag) for flag in (0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)]
    refused += [libc.mount(b"none", b"/tmp", b"tmpfs", 0, b""), libc.umount2(b"/proc", 2)]
    refused += [libc.setns(os.open("/proc/self/ns/" + n, os.O_RDONLY), 0) for n in ("mnt", "pid", "user")]
    refused += [libc.ptrace(16, 1, 0, 0), libc.chroot(b"/tmp"), libc.syscall(435, 0, 0)]
    for path in ("/proc/sys/kernel/hostname", "/proc/self/oom_score_adj", "/usr/x", "/x", "/etc/x", "/dev/x"):
        try:
            open(path, "w")
            refused.append(path)
        except OSError:
            refused.append(-1)
    return [caps == {"0" * 16}, status["NoNewPrivs"], status["Seccomp"], set(refused) == {-1},
            os.getuid() != 0, sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys") else []]
"""


def test_a_candidate_has_no_power(one: Warm) -> None:
    assert told(one, CONFINED) == [
        True,
        "1",
        "2",
        True,
        os.getuid() != 0 or one._backend.user is not None,
        [],
    ]


REACHES = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
done = []
for fd in range(200):
    for text in (b"+", b"w" * 9, b"palestra 1" + bytes(8) + b"p"):
        try: os.write(fd, text)
        except OSError: pass
for pid in [-1, 0, *range(1, 400)]:
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGKILL):
        if pid not in (0, os.getpid()) and number != signal.SIGKILL or pid == -1:
            try: os.kill(pid, number)
            except OSError: pass
for pid in (n for n in os.listdir("/proc") if n.isdigit()):
    for name in ("mem", "fd/0", "fd/1", "fd/2", "fd/3", "fd/4", "root/tmp/x", "cwd/x"):
        try:
            with open(f"/proc/{pid}/{name}", "r+b", 0) as file: file.write(b"w" * 99)
        except OSError: pass
    libc.ptrace(16, int(pid), 0, 0)
    libc.process_vm_writev(int(pid), 0, 0, 0, 0, 0)
def f(): return None
"""

HOSTILE = {
    "reaches-out": REACHES,
    "kills-all": "import os\nos.kill(-1, 9)\ndef f(): return None",
    "kills-parent": "import os\nfor p in (1, os.getppid()):\n    os.kill(p, 9)\ndef f(): return None",
    "fork-bomb": "import os\ndef f():\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "daemons": "import os\nfor _ in range(30):\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass\ndef f(): return None",
    "memory": "def f():\n    x = []\n    while True: x.append(bytearray(1 << 26))",
    "tmpfs": "import os\ndef f():\n    for d in ('/tmp', '/dev/shm', '/workspace'):\n        n = 0\n        while True:\n            n += 1\n            try: open(f'{d}/{n}', 'wb').write(bytes(60 << 20))\n            except OSError: break",
    "loop": "def f():\n    while True: pass",
    "flood": "import os\ndef f():\n    for _ in range(4000):\n        for fd in (1, 2): os.write(fd, b'x' * 65536)",
    "huge-report": "def f(): return 'x' * (100 << 20)",
    "closes": "import os\nos.closerange(0, 4096)\ndef f(): return None",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_the_next_candidate_does_not_notice(one: Warm, attack: str) -> None:
    before = {}

    def attacked() -> None:
        before["members"] = members()
        result = ran(one, HOSTILE[attack], check_s=0.5)
        assert not result.passed
        assert members() == before["members"], "processes were left"

    same_zygote(one, attacked)


def test_a_deadline_ends_one_run_only(one: Warm) -> None:
    def late() -> None:
        result = ran(one, "import time\ndef f(): time.sleep(99)", timeout=0.5)
        assert (result.passed, result.got) == (False, "time limit")

    same_zygote(one, late)


def test_one_who_used_the_network_is_the_last_of_its_box(one: Warm) -> None:
    talk = (
        "import socket\ndef f():\n    s = socket.create_server(('127.0.0.1', 0))\n"
        "    socket.create_connection(s.getsockname()).sendall(b'x')\n    return 'fine'"
    )
    assert ran(one, HONEST).passed
    first = zygote_of(one)
    assert ran(one, talk).passed, "as in a fresh box"
    assert one._idle == [] and first.worn
    assert ran(one, HONEST).passed


def test_a_zygote_is_replaced_when_it_died_or_has_served_enough(boxes: Bubblewrap) -> None:
    few = Warm(boxes, grades=2)
    assert ran(few, HONEST).passed
    first = zygote_of(few)
    first._process.kill()
    first._process.wait()
    assert ran(few, HONEST).passed and zygote_of(few) is not first
    second = zygote_of(few)
    assert ran(few, HONEST).passed and few._idle == []
    assert ran(few, HONEST).passed and zygote_of(few) is not second
    asyncio.run(few.close())
    assert list(boxes.root.iterdir()) == []


def test_a_zygote_that_says_nothing_is_our_fault(boxes: Bubblewrap) -> None:
    async def run() -> None:
        zygote = await Zygote.start(boxes)
        zygote._socket.shutdown(socket.SHUT_RDWR)
        ended = await zygote.grade(b"", 5.0)
        assert zygote.worn and ended.report == b""
        with pytest.raises(SandboxError, match="did not start"):
            judged([CheckJob(files={}, checks=(UnitCheck(id="a.B.c"),))], ended)
        await zygote.close()

    asyncio.run(run())
    assert list(boxes.root.iterdir()) == []


def test_a_zygote_killed_in_the_middle_fails_the_candidate_not_us(boxes: Bubblewrap) -> None:
    async def run() -> list[list[CheckResult]]:
        runner = Warm(boxes)
        check = CallCheck(id="c", module="solution", function="f", args="()", expected="1")
        code = "import time\ndef f(): time.sleep(60)"
        job = CheckJob(files={"solution.py": code}, checks=(check,))
        zygote = await Zygote.start(boxes)
        runner._idle.append(zygote)
        inside = members()
        task = asyncio.create_task(runner.run([job], check_s=60.0, timeout=60.0))
        # The worker and the candidate.
        await until(lambda: members() >= inside + 2)
        zygote._process.kill()
        return await task

    [[result]] = asyncio.run(run())
    assert (result.passed, result.got) == (False, "no answer: the run was ended")
    assert list(boxes.root.iterdir()) == []


def test_a_box_that_is_removed_in_the_middle_is_no_verdict(boxes: Bubblewrap) -> None:
    code = "import time\ndef f(): time.sleep(60)"
    check = CallCheck(id="c", module="solution", function="f", args="()", expected="1")
    task = Task(
        id="t", source="", kind="", prompt="", files={}, reference={},
        artifacts=("solution.py",), hidden=(check,), check_s=60.0,
    )  # fmt: skip

    async def run() -> Verdict:
        runner = Warm(boxes)
        zygote = await Zygote.start(boxes)
        runner._idle.append(zygote)
        inside = members()
        grading = asyncio.create_task(make_grader(runner)(task, {"solution.py": code.encode()}))
        await until(lambda: members() >= inside + 2)
        await boxes.remove(zygote._box.name)
        return await grading

    verdict = asyncio.run(run())
    assert verdict.outcome is Outcome.INFRA_FAILURE and "removed" in verdict.reason


def test_a_warm_box_that_cannot_be_started_leaves_nothing(
    boxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", refused)
    before = open_files()
    for _ in range(2):
        with pytest.raises(SandboxError, match="Too many open files"):
            asyncio.run(Zygote.start(boxes))
    assert open_files() == before and list(boxes.root.iterdir()) == []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_cancelling_a_grade_ends_its_box(boxes: Bubblewrap) -> None:
    async def run() -> None:
        runner = Warm(boxes)
        check = CallCheck(id="c", module="solution", function="f", args="()", expected="1")
        code = "import time\ndef f(): time.sleep(60)"
        job = CheckJob(files={"solution.py": code}, checks=(check,))
        task = asyncio.create_task(runner.run([job], timeout=60.0, check_s=60.0))
        await until(lambda: any(boxes.root.iterdir()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = members()
    asyncio.run(run())
    assert list(boxes.root.iterdir()) == [] and members() == before


def test_a_forgotten_runner_leaves_nothing(boxes: Bubblewrap) -> None:
    before = members()
    forgotten = Warm(boxes)
    assert ran(forgotten, HONEST).passed and members() > before
    del forgotten
    asyncio.run(until(lambda: members() == before))
    assert members() == before and list(boxes.root.iterdir()) == []


def test_a_fork_of_the_driver_leaves_its_zygotes_alone(one: Warm) -> None:
    def fork() -> None:
        zygote = zygote_of(one)
        child = os.fork()
        if child == 0:
            try:
                unfit = not zygote.fit(1000)
                zygote._end()
                os._exit(0 if unfit else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0

    same_zygote(one, fork)


DRIVER = """
import asyncio, sys
from pathlib import Path
from palestra.rl.types import CallCheck, CheckJob
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.warm import Warm
check = CallCheck(id="c", module="solution", function="f", args="()", expected="1")
job = CheckJob(files={"solution.py": "import time\\ndef f(): time.sleep(600)"}, checks=(check,))
async def main():
    runner = Warm(Bubblewrap(root=Path(sys.argv[1])))
    runs = [runner.run([job], timeout=600, check_s=600) for _ in range(3)]
    await asyncio.gather(*runs)
asyncio.run(main())
"""


def test_zygotes_and_candidates_die_with_a_driver_that_is_killed(boxes: Bubblewrap) -> None:
    inside: set[int] = set()

    def working() -> bool:
        inside.update(below(driver.pid))
        return len(inside) >= 18  # for each: two of bwrap, two of the zygote, worker, candidate

    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(boxes.root)])
    asyncio.run(until(working))
    driver.kill()
    driver.wait()
    asyncio.run(until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside)))
    assert len(reap(boxes.root)) == 3 and list(boxes.root.iterdir()) == []


def test_grades_at_the_same_time_have_a_box_each(boxes: Bubblewrap) -> None:
    runner = Warm(boxes, spare=2)
    check = CallCheck(id="c", module="solution", function="f", args="()", expected="'fine'")
    task = Task(
        id="t", source="", kind="", prompt="", files={}, reference={},
        artifacts=("solution.py",), hidden=(check,),
    )  # fmt: skip
    grader = make_grader(runner, concurrency=3)

    async def many() -> bool:
        verdicts = [grader(task, {"solution.py": HONEST.encode()}) for _ in range(12)]
        return all(verdict.solved for verdict in await asyncio.gather(*verdicts))

    assert asyncio.run(many()) and asyncio.run(many())
    assert 1 <= len(runner._idle) <= 2
    asyncio.run(runner.close())
    assert list(boxes.root.iterdir()) == []


def test_one_job_runs_warm_and_many_in_the_box_that_is_given(boxes: Bubblewrap) -> None:
    where = "import os\ndef f(): return os.path.exists('/workspace/here')"
    seen = [
        CallCheck(id=str(here), module="solution", function="f", args="()", expected=str(here))
        for here in (False, True)
    ]
    job = CheckJob(files={"solution.py": where}, checks=tuple(seen))

    async def run() -> list[list[CheckResult]]:
        runner = Warm(boxes)
        async with boxes.open() as box:
            await box.write("here", b"")
            answers = await runner.run_checks([job], box) + await runner.run_checks([job] * 2, box)
        await runner.close()
        return answers

    answers = asyncio.run(run())
    assert [[one.passed for one in found] for found in answers] == [
        [True, False],
        [False, True],
        [False, True],
    ]


def test_without_warm_boxes_each_grade_gets_a_fresh_one(
    boxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warm(boxes) is not None
    assert warm(UnsafeLocal()) is None and "process of their own" in problem_of(UnsafeLocal())
    monkeypatch.setattr(warm_module, "_PROBLEMS", {})
    monkeypatch.setattr(boxes, "_filter", b"")
    assert warm(boxes) is None and problem_of(boxes) == "no seccomp filter for this machine"


def test_where_namespaces_cannot_be_nested_the_probe_says_so(
    boxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_module, "_PROBLEMS", {})
    monkeypatch.setattr("palestra.sandbox.seccomp._NESTING", "mount:165:40")
    assert warm(boxes) is None and "unshare" in problem_of(boxes)


def test_a_box_that_cannot_be_made_is_an_infrastructure_failure(
    boxes: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palestra.sandbox.seccomp._NESTING", "mount:165:40")
    check = CallCheck(id="c", module="solution", function="f", args="()", expected="1")
    task = Task(
        id="t", source="", kind="", prompt="", files={}, reference={},
        artifacts=("solution.py",), hidden=(check,),
    )  # fmt: skip
    verdict = asyncio.run(make_grader(Warm(boxes))(task, {"solution.py": b""}))
    assert verdict.outcome is Outcome.INFRA_FAILURE and "unshare" in verdict.reason
    assert list(boxes.root.iterdir()) == []


def jobs_of(function: Function) -> Iterator[CheckJob]:
    """The function as it ships, and broken in two ways."""
    checks = tuple(
        CallCheck(id=str(n), module="solution", function=function.name, args=args, expected=value)
        for n, (args, value) in enumerate(function.cases)
    )
    broken = mutants(function.source)
    for text in (function.source, *(m.source for m in (broken[:1] + broken[-1:]))):
        yield CheckJob(files={"solution.py": text}, checks=checks)


def test_verdicts_are_those_of_fresh_boxes(one: Warm, boxes: Bubblewrap) -> None:
    jobs = [job for function in shipped_functions() for job in jobs_of(function)]

    async def both() -> Iterator[tuple[list[CheckResult], list[CheckResult]]]:
        fresh = await Fresh(boxes).run(jobs, timeout=300, check_s=1.0)
        again = [(await one.run([job], timeout=60, check_s=1.0))[0] for job in jobs]
        return zip(fresh, again, strict=True)

    compared = passed = 0
    for fresh, again in asyncio.run(both()):
        if not any(accidental(result.got) for result in (*fresh, *again)):
            assert fresh == again
            compared += 1
            passed += all(result.passed for result in again)
    assert compared > 0.9 * len(jobs) and 0.3 * compared < passed < 0.7 * compared
