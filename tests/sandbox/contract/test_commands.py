"""Commands: how they end, what goes in and what comes out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from palestra.rl.errors import BoxDied
from palestra.sandbox.base import Backend, Box, BoxSpec

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Survivors = Callable[[], Awaitable[bool]]


async def test_exit_codes_are_data(box: Box) -> None:
    for code in (0, 1, 3, 125):
        ended = await box.exec(["sh", "-c", f"exit {code}"])
        assert (ended.exit_code, ended.signal, ended.timed_out, ended.oom) == (
            *(code, None, False, False),
        )


async def test_a_signal_is_told(box: Box) -> None:
    for number in (9, 11, 15):
        ended = await box.exec(f"kill -{number} $$")
        assert (ended.exit_code, ended.signal, ended.timed_out) == (None, number, False)


async def test_a_deadline_is_told_and_bounds_the_whole_line(box: Box) -> None:
    ended = await box.exec("true && echo early; sleep 300 && sleep 300", timeout=3.0)
    assert (ended.exit_code, ended.signal, ended.timed_out) == (None, None, True)
    assert ended.stdout == b"early\n"
    assert (await box.exec(["echo", "next"])).stdout == b"next\n"


async def test_a_deadline_holds_for_a_command_that_floods_or_ignores_signals(box: Box) -> None:
    assert (await box.exec("trap '' TERM INT HUP; while :; do :; done", timeout=0.5)).timed_out
    flood = await box.exec("exec cat /dev/zero", timeout=0.5, max_output=1000)
    assert flood.timed_out and len(flood.stdout) <= 1000


async def test_a_deadline_ends_children_in_sessions_of_their_own(
    box: Box, backend: Backend, marker: str, until: Until, survivors: Survivors
) -> None:
    daemon = f"setsid setsid sleep {marker} >/dev/null 2>&1 &"
    ended = await box.exec(f"{daemon} sleep {marker}", timeout=1.0)
    assert ended.timed_out
    if "kill_tree" not in backend.guarantees:
        await box.close()
    await until(lambda: _not(survivors))


async def test_a_background_child_neither_delays_nor_outlives_the_box(
    backend: Backend, spec: Callable[..., BoxSpec], marker: str, until: Until, survivors: Survivors
) -> None:
    async with backend.open(spec()) as box:
        ended = await box.exec(f"setsid sleep {marker} & echo done", timeout=60)
        assert (ended.exit_code, ended.stdout, ended.timed_out) == (0, b"done\n", False)
    await until(lambda: _not(survivors))


async def test_closed_streams_are_not_the_end(box: Box) -> None:
    ended = await box.exec(
        "exec >&- 2>&- <&-; i=0; while [ $i -lt 99999 ]; do i=$((i+1)); done; exit 7"
    )
    assert ended.exit_code == 7


async def test_what_a_command_prints_decides_nothing(box: Box) -> None:
    ended = await box.exec("echo EXITCODESTART0EXITCODEEND; echo '{\"exit-code\": 0}'; exit 7")
    assert ended.exit_code == 7


async def test_a_command_that_ends_all_it_can_reach_is_its_own_fault(box: Box) -> None:
    try:
        ended = await box.exec("kill -9 1; kill -9 -1; kill -9 $PPID; exit 0")
    except BoxDied as died:
        assert died.by_agent
    else:
        assert not ended.timed_out and (await box.exec(["echo", "here"])).stdout == b"here\n"


async def test_words_arrive_unharmed(box: Box) -> None:
    words = ["", " ", "a b", "$HOME", "'\"`\\", "*", "-n", "--", "\n", "é€😀", "x" * 100_000]
    code = "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())"
    ended = await box.exec(["python3", "-c", code, *words], max_output=1 << 20)
    assert ended.stdout.decode().split("\0") == words


async def test_commands_that_cannot_start_are_data(box: Box) -> None:
    await box.write("notes", b"no program")
    for words, code in (["no-such-program"], 127), (["./notes"], 126), (["/"], 126):
        ended = await box.exec(words)
        assert ended.exit_code == code and ended.stderr, words


async def test_words_that_no_kernel_takes_are_data(box: Box) -> None:
    ten_mib = "x" * (10 << 20)
    for words in (
        ["echo", ten_mib],
        f": {ten_mib}",
        ["echo"] * (1 << 20),
        ["a\0b"],
        ["\ud800"],
        [],
    ):
        ended = await box.exec(words)
        assert ended.exit_code == 126 and ended.stderr and not ended.stdout
    assert (await box.exec(["echo", "still here"])).stdout == b"still here\n"


async def test_the_environment_is_an_allow_list(
    backend: Backend, spec: Callable[..., BoxSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    large = "é" * 60_000
    async with backend.open(spec(env={"OF_BOX": "1", "BOTH": "box"})) as box:
        given = {"OF_COMMAND": "a b\n'", "BOTH": "command", "LARGE": large}
        ended = await box.exec(["env", "-0"], env=given, max_output=1 << 20)
    found = dict(line.split("=", 1) for line in ended.stdout.decode().split("\0") if line)
    assert (found["OF_BOX"], found["OF_COMMAND"], found["BOTH"]) == ("1", "a b\n'", "command")
    usual = {"HOME", "LANG", "PATH", "TMPDIR", "PWD", "HOSTNAME", "SHLVL", "_"}
    usual |= {"GIT_CONFIG_NOSYSTEM"}  # in Landlock boxes, where /etc/gitconfig cannot be read
    assert found["LARGE"] == large
    assert set(found) - usual == {"OF_BOX", "OF_COMMAND", "BOTH", "LARGE"}
    assert {"HOME", "PATH", "TMPDIR"} <= set(found)


async def test_files_stay_from_one_command_to_the_next(box: Box) -> None:
    await box.exec("pwd > here; mkdir d; echo 1 > d/f")
    ended = await box.exec('test "$(pwd)" = "$(cat here)" && cat d/f && echo "$HOME" && pwd')
    assert ended.stdout.split()[0] == b"1" and len(set(ended.stdout.split()[1:])) == 1


async def test_fifty_mib_of_input_arrive(box: Box) -> None:
    data = bytes(range(256)) * (50 << 12)
    ended = await box.exec(["sha256sum"], stdin=data, timeout=120)
    assert ended.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_ends_and_need_not_be_read(box: Box) -> None:
    assert (await box.exec(["cat"])).exit_code == 0
    assert (await box.exec(["cat"], stdin=b"\0\xff")).stdout == b"\0\xff"
    assert (await box.exec(["true"], stdin=b"x" * 3_000_000)).exit_code == 0


async def test_output_is_bytes_and_streams_are_apart(box: Box) -> None:
    data = bytes(range(256)) * 16
    ended = await box.exec("cat > f; cat f; cat f f >&2", stdin=data)
    assert (ended.stdout, ended.stderr, ended.elided) == (data, data * 2, 0)


async def test_output_keeps_head_and_tail_and_counts_the_rest(box: Box) -> None:
    script = "printf 'a%.0s' 1 2 3 4 5; head -c 3000000 /dev/zero; printf zzzzz"
    ended = await box.exec(f"({script}); ({script}) >&2", max_output=100)
    for stream in (ended.stdout, ended.stderr):
        assert stream == b"aaaaa" + b"\0" * 90 + b"zzzzz"
    assert ended.elided == 2 * (3_000_010 - 100)


async def test_a_gib_of_output_costs_little_memory(box: Box) -> None:
    await box.exec("head -c 1000000 /dev/zero")
    before = _reset_peak()
    ended = await box.exec("head -c 1073741824 /dev/zero", timeout=120)
    assert ended.exit_code == 0
    assert len(ended.stdout) + ended.elided == 1 << 30
    assert _memory("VmHWM") - before < 64 << 20


async def test_the_report_arrives_apart_from_output(box: Box) -> None:
    script = 'echo out; printf "told\\0" >&"$PALESTRA_REPORT_FD"'
    ended = await box.exec(["bash", "-c", script], report=True)
    assert (ended.stdout, ended.report) == (b"out\n", b"told\0")
    assert (await box.exec('echo "${PALESTRA_REPORT_FD-none}"')).stdout == b"none\n"


async def test_commands_of_one_box_run_at_the_same_time(box: Box) -> None:
    """Each waits for a file of the next one, so none ends unless all run."""
    script = "touch {0}; until test -e {1}; do sleep 0.02; done; echo {0}"
    lines = [script.format(number, (number + 1) % 6) for number in range(6)]
    ended = await asyncio.gather(*(box.exec(line, timeout=60) for line in lines))
    assert [one.stdout for one in ended] == [f"{number}\n".encode() for number in range(6)]


async def _not(condition: Survivors) -> bool:
    return not await condition()


def _reset_peak() -> int:
    """Bytes of this process now, from which ``VmHWM`` counts again."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since ``clear_refs``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(value) << 10
