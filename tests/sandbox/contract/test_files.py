"""Files: in and out, whatever names and kinds the agent leaves, and never through a link."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from palestra.rl.errors import BoxDied, PathRefused, SandboxError
from palestra.rl.types import File
from palestra.sandbox.base import Backend, Box, BoxSpec

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

NAMES = [
    "plain",
    " ",
    "a b",
    "line\nbreak",
    "quote'\"",
    "-rf",
    ".hidden",
    "é€😀",
    "\udcff\udc80",
    "*",
]


async def test_files_travel_both_ways(box: Box) -> None:
    await box.write("a/b/c.bin", b"\0\xff")
    await box.exec("cat a/b/c.bin a/b/c.bin > twice; echo more >> a/b/c.bin; touch a/b/new")
    assert await box.read("twice") == b"\0\xff\0\xff"
    assert await box.read("a/b/c.bin") == b"\0\xffmore\n"
    await box.write("twice", b"new")
    assert await box.read("twice") == b"new"
    with pytest.raises(PathRefused):
        await box.read("twice", max_bytes=2)


async def test_trees_travel_both_ways(box: Box) -> None:
    files = {"top": b"1", "d/empty": b"", "d/e/deep": bytes(range(256))}
    await box.put(files)
    assert await box.get() == files
    assert await box.get("d/e") == {"d/e/deep": files["d/e/deep"]}
    await box.exec("mkdir none; echo 2 > d/made; rm top")
    assert await box.get() == {"d/made": b"2\n", "d/empty": b"", "d/e/deep": files["d/e/deep"]}
    assert await box.get("none") == {}
    with pytest.raises(PathRefused):
        await box.get("absent")


async def test_trees_keep_the_executable_bit_and_leave_out_what_is_skipped(box: Box) -> None:
    await box.put({"run": b"#!/bin/sh\necho ran\n", "d/plain": b""}, executable={"run"})
    assert (await box.exec(["./run"])).stdout == b"ran\n"
    await box.exec("mkdir .git d/.git; echo 1 | tee .git/x d/.git/x d/new; ln run d/hard")
    found = await box.tree(skip={".git"}, max_files=6)
    assert found == {
        "run": File(data=b"#!/bin/sh\necho ran\n", executable=True),
        "d/plain": File(data=b""),
        "d/new": File(data=b"1\n"),
        "d/hard": File(data=b"#!/bin/sh\necho ran\n", executable=True),
    }


async def test_large_files_arrive_whole(box: Box) -> None:
    data = bytes(range(251)) * (32 << 12)
    await box.write("large", data)
    ended = await box.exec(["sha256sum", "large"], timeout=60)
    assert ended.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert await box.read("large", max_bytes=len(data)) == data


async def test_names_need_not_be_words_or_utf8(box: Box) -> None:
    await box.put({f"d/{name}": name.encode(errors="surrogateescape") for name in NAMES})
    ended = await box.exec(
        "cd d && ls | wc -l && cat -- * .hidden >/dev/null && touch -- \"$(printf '\\376')\""
    )
    assert ended.exit_code == 0, ended.stderr
    found = await box.get("d")
    assert found.pop("d/\udcfe") == b""
    assert found == {f"d/{name}": name.encode(errors="surrogateescape") for name in NAMES}
    for name in NAMES:
        assert await box.read(f"d/{name}") == found[f"d/{name}"]


LONG = ("../" * 3000, "a/" * 3000 + "b", "é" * 60_000, "\udcfe" * 60_000)


async def test_paths_that_lead_elsewhere_are_refused(box: Box) -> None:
    plain = ("../x", "/etc/passwd", "a/../../x", "", "a//b", "./a", "a\0b", "\ud800", "n" * 300)
    for path in (*plain, *LONG):
        with pytest.raises(PathRefused):
            await box.read(path, max_bytes=10)
        with pytest.raises(PathRefused):
            await box.put({path: b""})
        with pytest.raises(PathRefused):
            await box.get(path)
    for path in ("\udcfe", *LONG):
        with pytest.raises(PathRefused) as refused:
            await box.read(path, max_bytes=10)
        assert len(str(refused.value).encode()) < 2000, "it can be told, whatever the path is"
    assert await box.alive()


async def test_long_names_are_found_or_refused(box: Box) -> None:
    """They are the agent's to choose: a box that they broke would be played again."""
    folder = "/".join(["\x01" * 250] * 15)
    await box.put({f"{folder}/{number}": b"" for number in range(60)})
    assert len(await box.get(max_files=80, max_bytes=1 << 18)) == 60
    with pytest.raises(PathRefused):
        await box.get(max_files=80, max_bytes=1 << 17)
    assert await box.read(f"{folder}/0", max_bytes=0) == b""


async def test_links_pipes_and_folders_are_refused(box: Box) -> None:
    script = "ln -s /etc/passwd link; mkfifo pipe; mkdir real; ln -s real around; ln -s /etc out"
    await box.exec(script + "; echo 1 > real/file")
    for path in ("link", "pipe", "real", "around/file", "out/passwd", "absent"):
        with pytest.raises(PathRefused):
            await box.read(path)
    for path in ("around/new", "out/palestra-x", "real"):
        with pytest.raises(PathRefused):
            await box.write(path, b"")
    for path in ("around", "out", "link", "pipe"):
        with pytest.raises(PathRefused):
            await box.get(path)
    await box.write("link", b"replaced, not followed")
    assert await box.read("link") == b"replaced, not followed"


async def test_links_to_etc_bring_nothing_of_etc(box: Box) -> None:
    script = "mkdir src; echo 1 > src/kept; ln -s /etc src/etc; ln -s /etc/passwd src/passwd"
    await box.exec(script + "; ln -s /proc/self/environ src/env; mkfifo src/pipe; ln -s . src/loop")
    assert await box.get("src") == {"src/kept": b"1\n"}


async def test_a_work_folder_that_its_owner_has_shut_is_no_fault_of_ours(box: Box) -> None:
    """Otherwise a run that goes badly could be ended without a reward of 0."""
    await box.write("kept", b"here")
    await box.exec("chmod 000 .")
    ended = await box.exec(["cat", "kept"])
    # In Landlock boxes chmod does nothing.
    assert (ended.exit_code, ended.stdout) in [(126, b""), (0, b"here")]
    with suppress(PathRefused):
        assert await box.read("kept") == b"here"
        await box.write("more", b"here")
    assert await box.alive()


async def test_bombs_are_refused(box: Box) -> None:
    code = (
        "import os\nos.mkdir('many')\nos.mkdir('links')\nos.mkdir('deep')\n"
        "for n in range(300):\n    open(f'many/{n}', 'w').close()\n"
        "    os.symlink('x', f'links/{n}')\nopen('sparse', 'w').truncate(200 << 20)\n"
        "os.chdir('deep')\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"
    )
    assert (await box.exec(["python3", "-c", code], timeout=60)).exit_code == 0
    assert len(await box.get("many")) == 300
    for path in ("many", "links"):
        with pytest.raises(PathRefused):
            await box.get(path, max_files=299)
    for path in (".", "deep"):
        with pytest.raises(PathRefused):
            await box.get(path)
    with pytest.raises(PathRefused):
        await box.read("sparse")
    await box.exec(["rm", "-r", "deep", "links"], timeout=60)
    with pytest.raises(PathRefused):
        await box.get(max_bytes=1 << 20)


async def test_freezing_ends_writers_before_files_are_read(box: Box, until: Until) -> None:
    loop = "i=0; while :; do i=$((i+1)); echo $i > count; done"
    writer = asyncio.create_task(box.exec(f"(setsid sh -c '{loop}' &) ; {loop}", timeout=300))
    await until(lambda: _exists(box, "count"))
    await box.freeze()
    seen = await box.read("count")
    # A writer that lived on would have had a thousand turns by the end of these.
    assert {(await box.get())["count"] for _ in range(20)} == {seen}
    [ended] = await asyncio.gather(writer, return_exceptions=True)
    assert isinstance(ended, SandboxError) or ended.signal == 9
    assert not await box.alive()
    with pytest.raises(BoxDied):
        await box.exec(["true"])
    await box.freeze()


async def test_boxes_close_whatever_is_left_in_them(
    backend: Backend, spec: Callable[..., BoxSpec]
) -> None:
    async with backend.open(spec()) as box:
        script = "mkdir -p a/b/c; touch a/b/c/f; ln -s / a/root; mkfifo a/p; chmod -R 000 a"
        await box.exec(f'{script}; (mkdir "$TMPDIR/d" && chmod 000 "$TMPDIR/d")')
    assert not await box.alive()


async def test_files_of_a_closed_box_are_gone(box: Box) -> None:
    await box.write("kept", b"1")
    await box.close()
    for use in (box.read("kept"), box.write("kept", b""), box.get(), box.exec(["true"])):
        with pytest.raises(BoxDied):
            await use


async def _exists(box: Box, path: str) -> bool:
    try:
        return await box.read(path) != b""
    except PathRefused:
        return False
