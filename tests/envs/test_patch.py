"""The patch of a tree: computed from files as data, applied as data, shown as git shows it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palestra.envs.diff import MAX_DIFF, unified
from palestra.envs.files import collect, work_of
from palestra.envs.patch import patch_of
from palestra.envs.registry import make
from palestra.envs.rows import BadRow
from palestra.envs.task_json import task_from_json, task_to_json
from palestra.rl.types import File, Patch, Task, Tree
from palestra.sandbox import auto
from palestra.sandbox.checks import run_checks
from palestra.sandbox.tree import patched

PRISTINE = {
    "a.py": File(data=b"x = 1\n"),
    "run.sh": File(data=b"#!/bin/sh\n", executable=True),
    "data/blob.bin": File(data=b"\0\xff"),
    "docs/old.md": File(data=b"old\n"),
}

NAMES = st.sampled_from(["a", "b", "A", "ä", "a b", "q\"uo'te", "tab\t", "x.py"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.builds(
    File,
    data=st.one_of(
        st.binary(max_size=20), st.lists(st.sampled_from([b"1\n", b"2\n", b"3"])).map(b"".join)
    ),
    executable=st.booleans(),
)


def possible(files: dict[str, File]) -> dict[str, File]:
    """As many of ``files`` as one folder can hold."""
    kept: dict[str, File] = {}
    for path, file in sorted(files.items()):
        parents = {path[:i] for i, c in enumerate(path) if c == "/"}
        folded = {other.casefold() for other in kept}
        if not parents & set(kept) and path.casefold() not in folded:
            kept[path] = file
    return kept


TREES = st.dictionaries(PATHS, FILES, max_size=8).map(possible)


@given(TREES, TREES)
def test_a_patch_turns_what_was_given_into_what_was_found(
    before: dict[str, File], after: dict[str, File]
) -> None:
    patch = patch_of(Tree(files=before), after)
    if not patch.ignored:  # names that clash between the two
        assert patched(before, patch, {}) == after
    assert all(before.get(path) != file for path, file in patch.files.items())
    assert patch_of(Tree(files=before), before) == Patch(files={})


def test_every_kind_of_change_is_seen() -> None:
    found = {
        "a.py": File(data=b"x = 1\n", executable=True),
        "data/blob.bin": File(data=b"\0\xfe"),
        "docs/old.md/now_a_folder": File(data=b""),
        "run.sh": PRISTINE["run.sh"],
    }
    patch = patch_of(Tree(files=PRISTINE), found)
    assert patch.files == {
        "a.py": found["a.py"],
        "data/blob.bin": found["data/blob.bin"],
        "docs/old.md": None,
        "docs/old.md/now_a_folder": File(data=b""),
    }
    assert patched(PRISTINE, patch, {}) == found


def test_what_is_not_work_is_left_behind() -> None:
    junk = {
        ".git/hooks/pre-commit": File(data=b"#!/bin/sh\n", executable=True),
        "sub/.git/config": File(data=b"[core]\n"),
        "__pycache__/a.cpython-311.pyc": File(data=b"\0"),
        "a.pyc": File(data=b"\0"),
        "docs/new.md": File(data=b"outside the patterns"),
        "name-\udcff.py": File(data=b""),
        "A.PY": File(data=b"clashes"),
    }
    tree = Tree(files={**PRISTINE, ".git/HEAD": File(data=b"ref: x\n")}, work=("*.py", "data/*"))
    patch = patch_of(tree, {**PRISTINE, "new.py": File(data=b""), **junk})
    assert patch.files == {"new.py": File(data=b"")}
    assert patch.ignored == ("A.PY", "docs/new.md", "name-?.py")


def test_a_case_clash_of_the_tree_itself_is_no_change() -> None:
    files = {"readme": File(data=b"1"), "README": File(data=b"2")}
    patch = patch_of(Tree(files=files), {**files, "readme": File(data=b"3")})
    assert patch == Patch(files={"readme": File(data=b"3")})


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({f"f{i}": File(data=b"") for i in range(501)}, "501 files were changed; 500 may be"),
        (
            {"big": File(data=b"\0" * ((1 << 20) + 1))},
            "big: changed, and larger than 1048576 bytes",
        ),
        ({f"f{i}": File(data=b"\0" * (1 << 20)) for i in range(5)}, "larger than 4194304 bytes"),
    ],
)
def test_too_large_a_patch_is_refused(found: dict[str, File], reason: str) -> None:
    patch = patch_of(Tree(files={}), found)
    assert reason in patch.refused and patch.files == {}
    assert unified({}, patch) == f"refused: {patch.refused}\n"


def test_tests_of_the_task_replace_whatever_a_patch_brings() -> None:
    patch = Patch(
        files={
            "tests/test_a.py": File(data=b"forged"),
            "tests/test_b.py/x": File(data=b"a folder where a test shall be"),
            "lib": File(data=b"a file where a folder shall be"),
            "a.py/y": File(data=b"below a file that stays"),
            "ok.py": File(data=b""),
        }
    )
    tests = {"tests/test_a.py": "", "tests/test_b.py": "", "lib/test_c.py": ""}
    assert patched(PRISTINE, patch, tests) == {**PRISTINE, "ok.py": File(data=b"")}


# --- the diff ------------------------------------------------------------------------------------


def laid_out(folder: Path, files: dict[str, File]) -> None:
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.data)
        (folder / path).chmod(0o755 if file.executable else 0o644)


def read(folder: Path) -> dict[str, File]:
    return {
        str(path.relative_to(folder)): File(
            data=path.read_bytes(), executable=bool(path.stat().st_mode & 0o100)
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


TEXTS = st.lists(st.sampled_from(["1\n", "2\n", "é\n", "\r\n", "3", "\x0c\n"]), max_size=30)
TEXT_FILES = st.builds(
    File, data=TEXTS.map(lambda lines: "".join(lines).encode()), executable=st.booleans()
)
TEXT_TREES = st.dictionaries(NAMES, TEXT_FILES, max_size=3).map(possible)


@settings(max_examples=40)
@given(before=TEXT_TREES, after=TEXT_TREES)
def test_git_applies_the_diff(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, File], after: dict[str, File]
) -> None:
    patch = patch_of(Tree(files=before), after)
    if patch.ignored or not patch.files:
        return
    folder = tmp_path_factory.mktemp("tree")
    laid_out(folder, before)
    text = unified(before, patch)
    words = ["git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-"]
    ended = subprocess.run(words, cwd=folder, input=text.encode(), capture_output=True, check=False)
    assert ended.returncode == 0, (ended.stderr.decode(), text)
    assert read(folder) == after


def test_a_small_change_of_a_long_file_is_a_small_diff(tmp_path: Path) -> None:
    lines = [f"line {i % 7}\n" for i in range(20_000)]
    before = {"f": File(data="".join(lines).encode())}
    lines[10_000] = "changed\n"
    after = {"f": File(data="".join(lines).encode())}
    text = unified(before, patch_of(Tree(files=before), after))
    assert "@@ -9998,7 +9998,7 @@\n" in text and text.count("\n") == 12


def test_a_diff_that_would_take_for_ever_replaces_all() -> None:
    before = {"f": File(data=b"a\nb\n" * 20_000)}
    after = {"f": File(data=b"b\na\na\n" * 20_000)}
    text = unified(before, patch_of(Tree(files=before), after))
    assert "@@ -1,40000 +1,60000 @@\n" in text and len(text) < MAX_DIFF + 100


def test_binary_files_are_named_only() -> None:
    patch = Patch(files={"data/blob.bin": None, "new\n.bin": File(data=b"\xff")}, ignored=("x",))
    assert unified(PRISTINE, patch) == (
        "diff --git a/data/blob.bin b/data/blob.bin\ndeleted file mode 100644\n"
        "Binary files a/data/blob.bin and /dev/null differ\n"
        'diff --git "a/new\\012.bin" "b/new\\012.bin"\nnew file mode 100644\n'
        'Binary files /dev/null and "b/new\\012.bin" differ\nignored: x\n'
    )


# --- from a box ----------------------------------------------------------------------------------


def collected(tree: Tree, script: str, root: Path) -> Patch:
    task = Task(
        id="t",
        source="",
        kind="complete",
        prompt="",
        files={},
        reference={},
        artifacts=(),
        hidden=(),
        tree=tree,
    )
    env = make("palestra/Complete-v0", run_checks)

    async def play() -> object:
        async with auto.choose(root=root).open() as box:
            await env.setup(task, box)
            await box.exec(script, timeout=20)
            return await collect(task, box)

    found = asyncio.run(play())
    assert isinstance(found, Patch)
    return found


def test_what_is_in_a_box_is_taken_as_data(tmp_path: Path) -> None:
    script = """
ln -s /etc/passwd link; ln -sf /etc/passwd a.py; mkfifo pipe; mknod null c 1 3
ln run.sh hard.sh; printf 1 > "$(printf 'b\\377')"; git init -q .; mkdir -p .git/hooks
echo 'exit 1' > .git/hooks/pre-commit; (sleep 60; echo late > late) & echo new > new
"""
    patch = collected(Tree(files=PRISTINE), script, tmp_path)
    assert patch.files == {
        "a.py": None,
        "hard.sh": PRISTINE["run.sh"],
        "new": File(data=b"new\n"),
    }
    assert patch.ignored == ("b?",)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("truncate -s 200M sparse", "larger than"),
        ("python3 -c 'for i in range(11000): open(str(i), \"w\")'", "entries"),
        ('python3 -c \'import os\nfor i in range(300): os.mkdir("d"); os.chdir("d")\'', "deep"),
    ],
)
def test_a_huge_tree_is_refused_and_does_no_harm(tmp_path: Path, script: str, reason: str) -> None:
    patch = collected(Tree(files=PRISTINE), script, tmp_path)
    assert patch.files == {} and reason in patch.refused


def test_a_huge_git_folder_does_not_matter(tmp_path: Path) -> None:
    script = "mkdir .git; truncate -s 200M .git/pack; echo 2 > a.py"
    patch = collected(Tree(files=PRISTINE), script, tmp_path)
    assert patch == Patch(files={"a.py": File(data=b"2\n")})


# --- as JSON -------------------------------------------------------------------------------------

ROW = {
    "id": "t",
    "source": "acme",
    "kind": "complete",
    "prompt": "Fix it.",
    "reference": {"a.py": "x = 2\n"},
    "hidden": [{"type": "script", "id": "s", "module": "a", "names": ["x"], "code": "assert x"}],
    "tree": {
        "files": {
            "a.py": "x = 1\n",
            "run.sh": {"text": "#!/bin/sh\n", "executable": True},
            "data/blob.bin": {"base64": "AP8="},
            "docs/old.md": "old\n",
        }
    },
}


def test_a_tree_in_a_row_is_read_and_written() -> None:
    task = task_from_json(ROW)
    assert task.tree == Tree(files=PRISTINE)
    assert task_from_json(task_to_json(task)) == task
    assert work_of(task, task.reference) == Patch(files={"a.py": File(data=b"x = 2\n")})
    assert work_of(task, task.files) == Patch(files={})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tree": []}, "tree: not an object"),
        ({"tree": {}}, "tree: needs a repository, or files"),
        ({"tree": {"files": {"../x": ""}}}, "'../x' is not a path inside the task"),
        ({"tree": {"files": {"x": {"base64": "?"}}}}, "'x' is neither text nor base64"),
        ({"tree": {"files": {"x": 1}}}, "'x' is neither text nor base64"),
        ({"tree": {"files": {}, "work": "*"}}, "field work: not a list"),
        ({"artifacts": ["a.py"]}, "field artifacts: a task with a tree has none"),
        ({"tree": None}, "field artifacts: missing"),
    ],
)
def test_a_bad_tree_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        task_from_json({**ROW, **change})
