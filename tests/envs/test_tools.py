"""The tools of the environments for repositories, in a real box."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.patch import collect_patch
from palestra.envs.registry import make_player
from palestra.envs.swe import SWE, SWEBash, SWEKimi
from palestra.envs.tools.observed import MAX_SHOWN, observed
from palestra.rl.errors import UserError
from palestra.rl.types import (
    File,
    Observation,
    Patch,
    Sandbox,
    SandboxProvider,
    Task,
    ToolCall,
    Tree,
)
from palestra.sandbox import auto

FILES = {
    "a.py": File(data=b"one\ntwo\nthree\n"),
    "bin/run": File(data=b"#!/bin/sh\necho 1\n", executable=True),
    "twice.txt": File(data=b"aaa\nb\naaa"),
    "crlf.txt": File(data=b"x\r\ny\r\n"),
    "latin.txt": File(data=b"caf\xe9 = 1\nend\n"),
    "binary": File(data=b"\x7fELF\0\xff"),
    "empty": File(data=b""),
    "huge": File(data=b"h" * ((1 << 20) + 1)),
    "long.txt": File(data=b"".join(b"%04d\n" % number for number in range(4000))),
    ".git/HEAD": File(data=b"ref: refs/heads/main\n"),
}
TREE = Tree(files=FILES)
TASK = Task(
    id="t",
    source="t",
    kind="t",
    prompt="",
    files={},
    reference={},
    artifacts=(),
    hidden=(),
    tree=TREE,
)
LINKS = "ln -s /etc outside; ln -s a.py link; ln -s no dangling; mkfifo pipe"
MORE = f"{LINKS}; mkdir -p sub/deep; touch sub/.hidden"


async def nothing(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


class Desk:
    """A box with the task's files, and the tools of an environment."""

    def __init__(self, box: Sandbox, env: SWE) -> None:
        self.box, self.env = box, env

    async def does(self, name: str, **arguments: object) -> Observation:
        return await self.env.act(TASK, ToolCall(name=name, arguments=arguments), self.box)

    async def says(self, name: str, **arguments: object) -> str:
        return (await self.does(name, **arguments)).text

    async def patch(self) -> Patch:
        return await collect_patch(TREE, self.box)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> SandboxProvider:
    return auto.choose(root=tmp_path_factory.mktemp("boxes"))


def at_a_desk(
    boxes: SandboxProvider, work: Callable[[Desk], Awaitable[None]], env: type[SWE] = SWE
) -> None:
    async def run() -> None:
        async with boxes.open() as box:
            desk = Desk(box, env(nothing))
            await desk.env.setup(TASK, box)
            await work(desk)

    asyncio.run(run())


def test_files_are_shown(boxes: SandboxProvider) -> None:
    async def work(d: Desk) -> None:
        await d.box.exec(MORE)
        view = "     1\tone\n     2\ttwo\n     3\tthree"
        assert await d.says("view", path="a.py") == view
        assert await d.says("view", path="a.py", start_line=2, end_line=2) == "     2\ttwo"
        assert await d.says("view", path="a.py", start_line="3", end_line=99) == "     3\tthree"
        assert await d.says("view", path="empty") == "(an empty file)"
        assert await d.says("view", path="latin.txt", end_line=1) == "     1\tcaf\ufffd = 1"
        names = [".git/", "a.py", "bin/", "binary", "crlf.txt", "dangling", "empty"]
        names += ["huge", "latin.txt", "link", "long.txt", "outside", "pipe", "sub/", "twice.txt"]
        assert (await d.says("view", path=".")).split() == names
        assert await d.says("view", path="sub") == ".hidden\ndeep/\n"
        assert await d.says("view", path="sub/deep") == "(an empty folder)"
        long = await d.does("view", path="long.txt")
        whole = "\n".join(f"{n + 1:6}\t{n:04}" for n in range(4000))
        assert long.elided == len(whole) - MAX_SHOWN
        assert long.text == observed(whole.encode()).text

    at_a_desk(boxes, work)


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("view", {"path": "a.py", "start_line": 4}, "a.py has the lines 1 to 3"),
    ("view", {"path": "a.py", "start_line": 0}, "a.py has the lines 1 to 3"),
    ("view", {"path": "a.py", "start_line": 3, "end_line": 2}, "a.py has the lines 1 to 3"),
    ("view", {"path": "no"}, "No such file"),
    ("view", {"path": "binary"}, "binary file of 6 bytes"),
    ("view", {"path": "huge"}, "larger than 1048576 bytes"),
    ("view", {"path": "pipe"}, "not a regular file"),
    ("view", {"path": "link"}, "link"),
    ("view", {"path": "outside"}, "outside"),
    ("view", {"path": "outside/ssl"}, "outside/ssl"),
    ("view", {"path": "outside/passwd"}, "outside/passwd"),
    ("view", {"path": "/etc/passwd"}, "give a path relative to the work folder"),
    ("view", {"path": "../x"}, "give a path relative to the work folder"),
    ("view", {"path": ""}, "give a path relative to the work folder"),
    ("view", {"path": "a\0"}, "give a path relative to the work folder"),
    ("view", {"path": "\udc80"}, "cannot be written"),
    ("create_file", {"path": "a.py", "file_text": "x"}, "a.py is there already"),
    ("create_file", {"path": "link", "file_text": "x"}, "link is there already"),
    ("create_file", {"path": "dangling", "file_text": "x"}, "dangling is there already"),
    ("create_file", {"path": "sub", "file_text": "x"}, "sub is there already"),
    ("create_file", {"path": "outside/new", "file_text": "x"}, "outside/new"),
    ("create_file", {"path": "a.py/new", "file_text": "x"}, "a.py/new"),
    ("create_file", {"path": "new", "file_text": "\ud800"}, "cannot be written"),
    ("create_file", {"path": "new", "file_text": "x" * 1_048_577}, "new would be larger"),
    ("str_replace", {"path": "a.py", "old_str": "nine", "new_str": ""}, "not hold old_str:"),
    ("str_replace", {"path": "a.py", "old_str": "", "new_str": "x"}, "old_str must be"),
    ("str_replace", {"path": "a.py", "old_str": "one", "new_str": "one"}, "old_str must be"),
    ("str_replace", {"path": "a.py", "old_str": "one", "new_str": "\udcff"}, "cannot be written"),
    (
        "str_replace",
        {"path": "twice.txt", "old_str": "aa", "new_str": "b"},
        "holds old_str in 4 places, from lines 1, 1, 3, 3",
    ),
    ("str_replace", {"path": "long.txt", "old_str": "00", "new_str": ""}, "10 places or more"),
    ("str_replace", {"path": "crlf.txt", "old_str": "x\ny", "new_str": ""}, "end with \\r\\n"),
    ("str_replace", {"path": "binary", "old_str": "ELF", "new_str": "x"}, "binary file"),
    ("str_replace", {"path": "a.py", "old_str": "one", "new_str": "x" * 1_048_577}, "larger"),
    ("str_replace", {"path": "link", "old_str": "one", "new_str": "x"}, "link"),
    ("insert", {"path": "a.py", "insert_line": 4, "insert_text": "x"}, "from 0 to 3"),
    ("insert", {"path": "a.py", "insert_line": -1, "insert_text": "x"}, "from 0 to 3"),
    ("insert", {"path": "outside/passwd", "insert_line": 0, "insert_text": "x"}, "outside/"),
    ("insert", {"path": "a.py", "insert_line": "x", "insert_text": "x"}, "whole number"),
    ("undo_edit", {"path": "a.py"}, "no edit to undo"),
    ("undo_edit", {"path": "link"}, "link"),
    ("undo_edit", {"path": "no"}, "No such file"),
]


def test_a_wrong_wish_is_answered_and_changes_nothing(boxes: SandboxProvider) -> None:
    async def work(d: Desk) -> None:
        await d.box.exec(MORE)
        before = await d.box.tree()
        for name, arguments, says in REFUSED:
            answer = await d.says(name, **arguments)
            assert says in answer and len(answer) < 200, (name, arguments, answer)
            assert await d.box.tree() == before, (name, arguments)

    at_a_desk(boxes, work)


def test_edits_are_the_work(boxes: SandboxProvider) -> None:
    async def work(d: Desk) -> None:
        new = await d.says("create_file", path="src/new.py", file_text="x = '\U0001f600'\n")
        assert new == "made src/new.py"
        shown = await d.says("str_replace", path="a.py", old_str="two\nth", new_str="2\n+\nTH")
        assert shown == "changed a.py:\n     1\tone\n     2\t2\n     3\t+\n     4\tTHree"
        shown = await d.says("insert", path="a.py", insert_line=0, insert_text="top\n")
        assert shown.splitlines()[1:3] == ["     1\ttop", "     2\tone"]
        await d.says("str_replace", path="bin/run", old_str="echo 1", new_str="echo 2")
        await d.says("insert", path="twice.txt", insert_line=3, insert_text="end")
        await d.says("insert", path="empty", insert_line=0, insert_text="full")
        await d.says("str_replace", path="latin.txt", old_str=" = 1", new_str=" = \u00e9")
        patch = await d.patch()
        assert patch.files == {
            "a.py": File(data=b"top\none\n2\n+\nTHree\n"),
            "bin/run": File(data=b"#!/bin/sh\necho 2\n", executable=True),
            "empty": File(data=b"full\n"),
            "latin.txt": File(data=b"caf\xe9 = \xc3\xa9\nend\n"),
            "src/new.py": File(data="x = '\U0001f600'\n".encode()),
            "twice.txt": File(data=b"aaa\nb\naaa\nend"),
        }
        assert not patch.ignored and not patch.refused

    at_a_desk(boxes, work)


def test_the_last_edit_is_undone_unless_others_would_be(boxes: SandboxProvider) -> None:
    async def work(d: Desk) -> None:
        undo = "bin/run is as it was before its last edit"
        nothing = "bin/run: there is no edit to undo, or it was changed since"
        change = {"path": "bin/run", "old_str": "echo 1", "new_str": "echo 2"}
        await d.says("str_replace", **change)
        assert await d.says("bash", command="grep -rl 'echo 1' . | wc -l") == "0"
        assert await d.says("undo_edit", path="bin/run") == undo
        assert await d.says("undo_edit", path="bin/run") == nothing
        await d.says("str_replace", **change)
        await d.says("bash", command="echo exit >> bin/run")
        assert await d.says("undo_edit", path="bin/run") == nothing
        assert (await d.box.read("bin/run")).endswith(b"echo 2\nexit\n")
        largest = b"x" + b"h" * ((1 << 20) - 1)
        await d.box.write("huge", largest)
        await d.says("str_replace", path="huge", old_str="x", new_str="")
        await d.says("undo_edit", path="huge")
        assert await d.box.read("huge") == largest
        await d.box.write("huge", FILES["huge"].data)
        await d.says("insert", path="a.py", insert_line=0, insert_text="x")
        damage = "for f in .git/palestra-undo/*; do truncate -s 20 $f; echo damaged >> $f; done"
        await d.says("bash", command=damage)
        assert "no edit to undo" in await d.says("undo_edit", path="a.py")
        # Without a place for what undo needs, edits are made all the same.
        await d.says("bash", command="rm -r .git && echo x > .git")
        shown = await d.says("insert", path="a.py", insert_line=0, insert_text="y")
        assert shown.startswith("changed a.py") and "no edit" in await d.says(
            "undo_edit", path="a.py"
        )
        await d.says("bash", command="printf '#!/bin/sh\\necho 1\\n' > bin/run")
        assert (await d.patch()).files == {"a.py": File(data=b"y\nx\none\ntwo\nthree\n")}

    at_a_desk(boxes, work)


PATHS = st.sampled_from(["a.py", "sub/b.py"])
TEXTS = st.text(st.sampled_from("ab\n\r\u00e9"), max_size=6)
EDITS = st.one_of(
    st.tuples(st.just("create_file"), PATHS, TEXTS),
    st.tuples(st.just("str_replace"), PATHS, TEXTS, TEXTS),
    st.tuples(st.just("insert"), PATHS, st.integers(-1, 5), TEXTS),
    st.tuples(st.just("undo_edit"), PATHS),
)
NAMES = {
    "create_file": ("path", "file_text"),
    "str_replace": ("path", "old_str", "new_str"),
    "insert": ("path", "insert_line", "insert_text"),
    "undo_edit": ("path",),
}


class Model:
    """What the editor does, to a dictionary of texts."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.last: dict[str, tuple[str, str]] = {}

    def does(self, name: str, path: str, *rest: Any) -> None:
        now = self.files.get(path)
        if name == "create_file" and now is None:
            self.files[path] = rest[0]
        elif now is not None and name != "create_file":
            after = getattr(self, name)(path, now, *rest)
            if after is not None:
                self.files[path] = after
                if name != "undo_edit":
                    self.last[path] = (now, after)

    def str_replace(self, path: str, now: str, old: str, new: str) -> str | None:
        at = [i for i in range(len(now)) if now.startswith(old, i)]
        once = old and old != new and len(at) == 1
        return now[: at[0]] + new + now[at[0] + len(old) :] if once else None

    def insert(self, path: str, now: str, line: int, text: str) -> str | None:
        starts = [0, *(i + 1 for i, c in enumerate(now) if c == "\n" and i + 1 < len(now))]
        starts = starts if now else []
        if not 0 <= line <= len(starts):
            return None
        text = text if text.endswith("\n") else f"{text}\n"
        if line < len(starts):
            return now[: starts[line]] + text + now[starts[line] :]
        return now + text if now == "" or now.endswith("\n") else f"{now}\n{text[:-1]}"

    def undo_edit(self, path: str, now: str) -> str | None:
        before, after = self.last.get(path, ("", None))
        return before if now == after else None


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[list[tuple[Any, ...]]], dict[str, bytes]]]:
    """Plays a script in a folder of its own: what is there in the end."""
    number, provider = count(), auto.choose(unsafe_local=True, root=tmp_path_factory.mktemp("u"))

    async def play(desk: Desk, script: list[tuple[Any, ...]]) -> dict[str, bytes]:
        folder = str(next(number))
        await desk.box.put({f"{folder}/start": b""})
        for name, path, *rest in script:
            given = zip(NAMES[name], (f"{folder}/{path}", *rest), strict=True)
            await desk.does(name, **dict(given))
        found = await desk.box.tree(folder)
        texts = {path.removeprefix(f"{folder}/"): file.data for path, file in found.items()}
        del texts["start"]
        return texts

    with asyncio.Runner() as runner:
        opened = provider.open()
        desk = Desk(runner.run(opened.__aenter__()), SWE(nothing))
        yield lambda script: runner.run(play(desk, script))
        runner.run(opened.__aexit__(None, None, None))


@given(script=st.lists(EDITS, max_size=12))
@settings(max_examples=60)
def test_any_script_does_what_plain_python_does(
    played: Callable[[list[tuple[Any, ...]]], dict[str, bytes]], script: list[tuple[Any, ...]]
) -> None:
    model = Model()
    for step in script:
        model.does(*step)
    assert played(script) == {path: text.encode() for path, text in model.files.items()}


@given(data=st.binary(max_size=40), lost=st.integers(0, 10**9))
def test_what_is_left_out_is_counted(data: bytes, lost: int) -> None:
    assert observed(data) == Observation(text=data.decode(errors="replace"))
    half = MAX_SHOWN // 2
    head, tail = b"h" * half, b"t" * half
    seen = observed(head + data + tail, lost=lost)
    assert seen.elided == len(data) + lost
    marker = f"\n[{seen.elided} bytes left out]\n" if seen.elided else ""
    assert seen.text == head.decode() + marker + tail.decode()


def test_bash_says_how_much_it_left_out(boxes: SandboxProvider) -> None:
    async def work(d: Desk) -> None:
        seen = await d.does("bash", command="seq 1 2000000; exit 3")
        assert seen.text.startswith("1\n2\n") and seen.text.endswith("\n2000000\n[exit code 3]")
        assert seen.elided == len("".join(f"{n}\n" for n in range(1, 2_000_001))) - MAX_SHOWN
        assert seen.text.count(f"\n[{seen.elided} bytes left out]\n") == 1
        assert seen == await d.does("bash", command="seq 1 2000000; exit 3")
        assert await d.does("bash", command="true") == Observation(text="(no output)")

    at_a_desk(boxes, work, SWEBash)


@pytest.mark.parametrize(
    ("env", "tools"),
    [
        (SWE, "bash view create_file str_replace insert undo_edit submit"),
        (SWEBash, "bash submit"),
        (SWEKimi, "bash create_file insert view str_replace submit"),
    ],
)
def test_a_set_of_tools_answers_those_and_no_others(
    boxes: SandboxProvider, env: type[SWE], tools: str
) -> None:
    calls: dict[str, dict[str, object]] = {
        "bash": {"command": "echo hi"},
        "view": {"path": "a.py"},
        "create_file": {"path": "new", "file_text": ""},
        "str_replace": {"path": "a.py", "old_str": "one", "new_str": "1"},
        "insert": {"path": "a.py", "insert_line": 0, "insert_text": "0"},
        "undo_edit": {"path": "a.py"},
        "submit": {},
    }

    async def work(d: Desk) -> None:
        assert [tool.name for tool in env.tools] == tools.split()
        assert type(make_player(env.name, SWE.name, nothing)) is env
        for name, arguments in calls.items():
            seen = await d.does(name, **arguments)
            assert (f"no tool {name!r}" in seen.text) == (name not in tools.split())
            assert seen.submitted == (name == "submit")
        assert ((await d.patch()).files != {}) == ("insert" in tools)

    at_a_desk(boxes, work, env)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("palestra/Harbor-v0", "palestra/SWE-v0"),
        ("palestra/SWEBash-v0", "palestra/Harbor-v0"),
        ("palestra/SWE-v0", "palestra/SWEBash-v0"),
    ],
)
def test_an_environment_plays_tasks_that_it_says_it_can(name: str, home: str) -> None:
    with pytest.raises(UserError, match=f"{name} does not play tasks of {home}"):
        make_player(name, home, nothing)
    assert make_player("", home, nothing).name == home
