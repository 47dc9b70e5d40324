"""A repository is handed over as one commit: nothing of its history, nothing that it would run."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from palestra.envs.patch import patch_of
from palestra.envs.repository import fresh_repository, one_commit, snapshot
from palestra.envs.rows import BadRow
from palestra.envs.task_json import task_from_json
from palestra.rl.errors import UserError
from palestra.rl.types import File, Patch, Tree
from palestra.sandbox import auto

SOLUTION = b"def f(x): return 1257 * x\n"
START = b"def f(x): return 0\n"
ODD = 'q"uo\\te é\n'


def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    known = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "a@b"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    settings = ("-c", "commit.gpgsign=false", "-c", "init.defaultBranch=trunk")
    ended = subprocess.run(
        ["git", *settings, *words],
        cwd=folder,
        env={**known, **(env or {})},
        capture_output=True,
        check=True,
    )
    return ended.stdout.decode().strip()


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, str]:
    """A repository whose history, tags and reflog hold the solution; and the commit before."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "pkg").mkdir()
    (folder / "pkg" / "core.py").write_bytes(SOLUTION)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ODD).write_text("odd")
    (folder / "blob.bin").write_bytes(b"\0\xff\r\n")
    (folder / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / ".gitattributes").write_text("* text=auto filter=evil export-ignore\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first: already solved")
    (folder / "pkg" / "core.py").write_bytes(START)
    git(folder, "commit", "-qam", "broken")
    start = git(folder, "rev-parse", "HEAD")
    (folder / "pkg" / "core.py").write_bytes(SOLUTION)
    git(folder, "commit", "-qam", "fix f")
    git(folder, "tag", "v1.0")
    git(folder, "remote", "add", "origin", "https://example.invalid/acme.git")
    return folder, start


def written(folder: Path, files: dict[str, File]) -> Path:
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.data)
        (folder / path).chmod(0o755 if file.executable else 0o644)
    return folder


def test_the_files_are_those_of_the_commit(upstream: tuple[Path, str]) -> None:
    repository, start = upstream
    found = snapshot(repository, start)
    assert found.files == {
        ".gitattributes": File(data=b"* text=auto filter=evil export-ignore\n"),
        ODD: File(data=b"odd"),
        "blob.bin": File(data=b"\0\xff\r\n"),
        "model.bin": File(data=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "pkg/core.py": File(data=START),
        "run.sh": File(data=b"#!/bin/sh\n", executable=True),
    }
    assert found.left_out == ("link", "model.bin")
    assert patch_of(Tree(files=one_commit(repository, start)), found.files) == Patch(files={})


def test_a_bare_repository_will_do(upstream: tuple[Path, str], tmp_path: Path) -> None:
    repository, start = upstream
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    assert snapshot(tmp_path / "bare.git", start) == snapshot(repository, start)
    assert snapshot(tmp_path / "bare.git", "v1.0").files["pkg/core.py"].data == SOLUTION


def test_one_commit_and_nothing_else(upstream: tuple[Path, str], tmp_path: Path) -> None:
    repository, start = upstream
    files = one_commit(repository, start)
    clone = written(tmp_path / "clone", dict(files))
    ours = git(clone, "rev-parse", "HEAD")
    assert git(clone, "log", "--all", "--format=%H %an %ae %at %s") == (
        f"{ours} palestra palestra@localhost 0 Start"
    )
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert [
        git(clone, *words) for words in (["reflog", "--all"], ["remote"], ["stash", "list"])
    ] == ["", "", ""]
    fsck = ["fsck", "--full", "--strict", "--unreachable", "--dangling", "--no-reflogs"]
    assert git(clone, *fsck) == ""
    counted = dict(line.split(": ") for line in git(clone, "count-objects", "-v").splitlines())
    plain = [path for path in files if not path.startswith(".git/")]
    assert (counted["count"], counted["packs"], counted["garbage"]) == ("0", "1", "0")
    assert int(counted["in-pack"]) == len(plain) + 3  # the commit, its tree and that of pkg
    objects = git(clone, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    kinds = sorted(line.split()[1] for line in objects)
    assert kinds == ["blob"] * len(plain) + ["commit"] + ["tree"] * 2
    assert not (clone / ".git" / "hooks").exists() and not (clone / ".git" / "logs").exists()
    settings = git(clone, "config", "--local", "--name-only", "--list").split()
    assert all(name.startswith("core.") for name in settings)


def test_nothing_tells_where_it_comes_from(upstream: tuple[Path, str], tmp_path: Path) -> None:
    repository, start = upstream
    clone = written(tmp_path / "clone", dict(one_commit(repository, start)))
    secrets = git(repository, "rev-list", "--all").split()
    secrets += [
        git(repository, "rev-parse", "v1.0:pkg/core.py"),
        "example.invalid",
        "fix f",
        "1257",
    ]
    words = ["git", "cat-file", "--batch-all-objects", "--batch"]
    contents = subprocess.run(words, cwd=clone, capture_output=True, check=True).stdout
    for path in sorted((clone / ".git").rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        for secret in secrets:
            assert secret.encode() not in data + contents
            if len(secret) == 40:
                assert bytes.fromhex(secret) not in data
    for secret in secrets:
        ended = subprocess.run(
            ["git", "cat-file", "-e", secret], cwd=clone, capture_output=True, check=False
        )
        assert ended.returncode != 0


def test_the_same_files_make_the_same_repository(upstream: tuple[Path, str]) -> None:
    files = snapshot(*upstream).files
    first, again = fresh_repository(files), fresh_repository(files)
    assert first == again
    other = fresh_repository({**files, "pkg/core.py": File(data=SOLUTION)})
    assert other[".git/refs/heads/main"] != first[".git/refs/heads/main"]


def test_nothing_of_the_repository_is_run(upstream: tuple[Path, str], tmp_path: Path) -> None:
    repository, start = upstream
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    expected = snapshot(repository, start)
    settings = ["core.fsmonitor", "core.pager", "pager.ls-tree", "filter.evil.smudge"]
    settings += [
        "filter.evil.clean",
        "diff.external",
        "core.sshCommand",
        "core.alternateRefsCommand",
    ]
    for name in settings:
        git(repository, "config", name, str(trap))
    git(repository, "config", "core.hooksPath", str(tmp_path))
    git(repository, "config", "alias.ls-tree", f"!{trap}")
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (tmp_path / name).symlink_to(trap)
        (repository / ".git" / "hooks" / name).unlink(missing_ok=True)
        (repository / ".git" / "hooks" / name).symlink_to(trap)
    snapshot.cache_clear()
    one_commit.cache_clear()
    assert snapshot(repository, start) == expected
    assert one_commit(repository, start)[".git/HEAD"].data == b"ref: refs/heads/main\n"
    assert not (tmp_path / "sprung").exists()


def test_a_replaced_or_missing_object_is_not_taken_from_elsewhere(
    upstream: tuple[Path, str],
) -> None:
    repository, start = upstream
    blob = git(repository, "rev-parse", f"{start}:pkg/core.py")
    git(repository, "replace", blob, git(repository, "rev-parse", "v1.0:pkg/core.py"))
    snapshot.cache_clear()
    assert snapshot(repository, start).files["pkg/core.py"].data == START
    git(repository, "config", "extensions.partialClone", "origin")
    git(repository, "config", "remote.origin.promisor", "true")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    snapshot.cache_clear()
    with pytest.raises(UserError, match="lacks an object"):
        snapshot(repository, start)


@pytest.mark.parametrize("commit", ["nonsense", "--all", "0" * 40, ""])
def test_no_such_commit(upstream: tuple[Path, str], commit: str) -> None:
    with pytest.raises(UserError, match="no such commit"):
        snapshot(upstream[0], commit)


def test_no_repository_of_a_folder_above_is_taken(upstream: tuple[Path, str]) -> None:
    with pytest.raises(UserError, match="not a git repository"):
        snapshot(upstream[0] / "pkg", "HEAD")


@pytest.mark.parametrize("kind", auto.LOCAL)
def test_in_a_box_the_repository_works(
    upstream: tuple[Path, str], tmp_path: Path, kind: str
) -> None:
    files = one_commit(*upstream)

    async def look() -> str:
        async with auto.make(kind, root=tmp_path).open() as box:
            marked = {path for path, file in files.items() if file.executable}
            await box.put({path: file.data for path, file in files.items()}, executable=marked)
            ended = await box.exec("echo 1 >> run.sh; git status --porcelain; git log --format=%s")
            return (ended.stdout + ended.stderr).decode()

    assert asyncio.run(look()) == " M run.sh\nStart\n"


def test_a_row_may_name_a_repository(upstream: tuple[Path, str]) -> None:
    repository, start = upstream
    row = {
        "id": "t",
        "source": "acme",
        "kind": "complete",
        "prompt": "",
        "reference": {"pkg/core.py": SOLUTION.decode()},
        "hidden": [
            {
                "type": "call",
                "id": "c",
                "module": "pkg.core",
                "function": "f",
                "args": "(1,)",
                "expected": "1257",
            }
        ],
        "tree": {"repository": str(repository), "commit": start, "work": ["pkg/*"]},
    }
    task = task_from_json(row)
    assert task.tree == Tree(files=one_commit(repository, start), work=("pkg/*",))
    with pytest.raises(BadRow, match="field tree: git"):
        task_from_json({**row, "tree": {"repository": str(repository), "commit": "nonsense"}})
