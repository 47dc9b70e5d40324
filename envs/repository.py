"""Repositories as trees: one commit of a local repository, without anything of its history.

Objects are read as they are stored, so no filter, hook, attribute or submodule of the repository
has a say and nothing is fetched; what the agent gets is made from the files alone.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from palestra.rl.errors import UserError
from palestra.rl.types import File

MAX_FILES = 20_000
MAX_BYTES = 64 << 20
"""What a commit may hold to be handed to agents: files, and their bytes."""

_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_MODES = {"100644": False, "100755": True}
_WHO = b"palestra <palestra@localhost> 0 +0000"
_MESSAGE = b"Start\n"
# Neither this machine's settings nor the repository's may run a program or reach a network.
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
_SETTINGS = (
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "core.fileMode=true",
    "fastimport.unpackLimit=0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of a commit. ``left_out`` names what is no plain file of it: links, submodules,
    names that are not UTF-8, and pointers to LFS files, which stay pointers.

    Example: ``Snapshot(files={"a.py": File(data=b"x = 1\\n")}, left_out=())``
    """

    files: Mapping[str, File]
    left_out: tuple[str, ...]


@lru_cache(maxsize=16)
def snapshot(repository: Path, commit: str) -> Snapshot:
    """The files of ``commit`` in a local repository, bare or not.

    Raises ``UserError`` where there is no such repository or commit, or it is too large.
    """
    repository = repository.absolute()
    folder = repository / ".git" if (repository / ".git").exists() else repository
    git = [f"--git-dir={folder}"]
    spec = f"{commit}^{{commit}}"
    found = run_git([*git, "rev-parse", "--verify", "--quiet", "--end-of-options", spec])
    listed = run_git([*git, "ls-tree", "-r", "-z", "-l", "--full-tree", found.decode().strip()])
    plain, left_out = _sorted_out(listed)
    if len(plain) > MAX_FILES or sum(size for _, _, size in plain.values()) > MAX_BYTES:
        raise UserError(f"{repository}: more than {MAX_FILES} files or {MAX_BYTES} bytes")
    wanted = "".join(f"{oid}\n" for oid, _, _ in plain.values()).encode()
    contents = _contents(run_git([*git, "cat-file", "--batch"], wanted))
    files = {
        path: File(data=next(contents), executable=executable)
        for path, (_, executable, _) in plain.items()
    }
    left_out += [path for path, file in files.items() if file.data.startswith(_LFS)]
    return Snapshot(files=files, left_out=tuple(sorted(left_out)))


@lru_cache(maxsize=16)
def one_commit(repository: Path, commit: str) -> Mapping[str, File]:
    """The files of ``commit`` and, below ``.git``, a repository whose only commit holds them.

    It has one packed commit of a fixed author and date, no remote, no reflog, no hook and no other
    object, so nothing in it tells which commit it was made from. Raises as ``snapshot``.
    """
    return with_git(snapshot(repository, commit).files)


def with_git(files: Mapping[str, File]) -> dict[str, File]:
    """``files`` and, below ``.git``, a repository whose only commit holds them."""
    return {**files, **fresh_repository(files)}


def fresh_repository(files: Mapping[str, File]) -> dict[str, File]:
    """The files below ``.git`` of a repository whose only commit holds ``files``."""
    with committed(files) as folder:
        return {
            str(path.relative_to(folder)): File(data=path.read_bytes())
            for path in sorted((folder / ".git").rglob("*"))
            if path.is_file()
        }


def without_git(files: Mapping[str, File]) -> dict[str, File]:
    """``files`` less what is below a ``.git`` or has a name that git would not take."""
    return {path: file for path, file in files.items() if _is_plain(path) and _is_text(path)}


def patched_files(files: Mapping[str, File], diff: str) -> dict[str, File | None]:
    """What a diff in git's format changes in ``files``: the file that is then at each path, None
    where none is. Nothing is written outside of git's own objects.

    Raises ``UserError`` where it does not apply, is binary, or makes a link or a submodule.
    """
    if "\nGIT binary patch" in diff:
        raise UserError("the diff has a binary part")
    with committed(files) as folder:
        git = [f"--git-dir={folder}/.git"]
        ended = diff if diff.endswith("\n") else f"{diff}\n"
        applied = ended.encode(errors="replace")
        run_git([*git, "apply", "--cached", "--whitespace=nowarn", "-"], applied)
        listed = run_git([*git, "diff-index", "--cached", "--no-renames", "-z", "main"])
        words = listed.decode(errors="replace").split("\0")
        changed = dict(zip(words[1::2], words[:-1:2], strict=True))
        kept = {path: about.split() for path, about in changed.items() if not about.endswith("D")}
        for path, (_, mode, *_) in kept.items():
            if mode not in _MODES or not _is_plain(path):
                raise UserError(f"the diff would make {path}, which is no plain file")
        wanted = "".join(f"{oid}\n" for _, _, _, oid, _ in kept.values()).encode()
        contents = _contents(run_git([*git, "cat-file", "--batch"], wanted))
        found = {
            path: File(data=next(contents), executable=_MODES[mode])
            for path, (_, mode, *_) in kept.items()
        }
        return {path: found.get(path) for path in changed}


@contextmanager
def committed(files: Mapping[str, File]) -> Iterator[Path]:
    """A folder, gone afterwards, whose ``.git`` has one commit of ``files`` and its index."""
    with tempfile.TemporaryDirectory(prefix="palestra-git-") as name:
        run_git(["init", "--quiet", "--template=", "--initial-branch=main", name])
        git = [f"--git-dir={name}/.git"]
        run_git([*git, "fast-import", "--quiet", "--done"], b"".join(_stream(files)))
        run_git([*git, "read-tree", "main"])
        yield Path(name)


def _sorted_out(listed: bytes) -> tuple[dict[str, tuple[str, bool, int]], list[str]]:
    """Object, mode and size of the plain files by path, and the paths of everything else."""
    plain: dict[str, tuple[str, bool, int]] = {}
    left_out: list[str] = []
    for line in listed.split(b"\0")[:-1]:
        about, _, raw = line.partition(b"\t")
        mode, _, oid, size = about.decode().split()
        path = raw.decode(errors="replace")
        if mode in _MODES and path.encode() == raw and _is_plain(path):
            plain[path] = (oid, _MODES[mode], int(size) if size.isdigit() else 0)
        else:
            left_out.append(path)
    return plain, left_out


def _is_plain(path: str) -> bool:
    """False for what no honest tree has: a way out of the folder, or into its ``.git``."""
    return not any(part.lower() in ("", ".", "..", ".git") for part in path.split("/"))


def _is_text(path: str) -> bool:
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def _contents(batch: bytes) -> Iterator[bytes]:
    """The blobs of ``cat-file --batch``, in the order they were asked for."""
    at = 0
    while at < len(batch):
        end = batch.index(b"\n", at)
        words = batch[at:end].split()
        if len(words) != 3:
            raise UserError(f"the repository lacks an object: {batch[at:end].decode()}")
        start, size = end + 1, int(words[2])
        yield batch[start : start + size]
        at = start + size + 1


def _stream(files: Mapping[str, File]) -> Iterator[bytes]:
    """What ``fast-import`` reads."""
    yield b"commit refs/heads/main\nauthor %b\ncommitter %b\n" % (_WHO, _WHO)
    yield b"data %d\n%b" % (len(_MESSAGE), _MESSAGE)
    for path, file in sorted(files.items()):
        name = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
        mode = b"100755" if file.executable else b"100644"
        yield b'M %b inline "%b"\ndata %d\n' % (mode, name, len(file.data))
        yield file.data + b"\n"
    yield b"done\n"


def run_git(words: Sequence[str], stdin: bytes = b"") -> bytes:
    """What git says; no setting of this machine or the repository counts. Raises ``UserError``."""
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    try:
        ended = subprocess.run(
            ["git", "--no-pager", *settings, *words],
            input=stdin,
            env=_ENVIRONMENT,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise UserError(f"git is needed to read repositories: {error}") from error
    if ended.returncode:
        reason = ended.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"git {words[1]}: {reason[-1] if reason else 'no such commit'}")
    return ended.stdout
