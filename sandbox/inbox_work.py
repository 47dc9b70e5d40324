"""What the supervisor of ``inbox`` forks for a request: a command (``inbox_command``) or files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
from pathlib import Path

from palestra.rl.errors import PathRefused, SandboxError
from palestra.sandbox.files import read_below, read_tree, write_below
from palestra.sandbox.inbox_command import Command
from palestra.sandbox.inbox_processes import become, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from palestra.sandbox.inbox_processes import Config

SIZES = struct.Struct(">II")


def handle(config: Config, source: int, sink: int) -> NoReturn:
    """Work on the request that ``source`` holds, write the answer to ``sink``, and exit."""
    try:
        for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        keep_only(source, sink)
        sizes = take(source, SIZES.size)
        head_size, body_size = SIZES.unpack(sizes)
        head = json.loads(bytes(take(source, head_size)))
        body = take(source, body_size)
        if head["do"] == "run":
            answer, parts = Command(config, head, body, source).run()
        else:
            answer, parts = transferred(config, head, body)
        text = json.dumps(answer).encode()
        for part in (len(text).to_bytes(4, "big"), text, *parts):
            write(sink, part)
        os._exit(0)
    except EOFError:  # cancelled while the request was still being sent
        os._exit(0)
    finally:
        os._exit(70)


def take(fd: int, size: int) -> bytearray:
    """Exactly ``size`` bytes; raises ``EOFError``."""
    data = bytearray()
    while len(data) < size:
        more = os.read(fd, min(size - len(data), 1 << 20))
        if not more:
            raise EOFError
        data += more
    return data


def keep_only(*fds: int) -> None:
    """Close every descriptor but these and standard error; input and output become /dev/null."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    low = 3
    for fd in [*sorted(fds), 65536]:
        os.closerange(low, fd)
        low = fd + 1


def transferred(
    config: Config, head: dict[str, Any], body: bytearray
) -> tuple[dict[str, Any], list[bytes]]:
    """Read or write files as the user of the box, who may fail but not harm anybody else."""
    become(config)
    folder = Path(config["folder"])
    found: dict[str, tuple[bytes, bool]] = {}
    if hashlib.sha256(body).hexdigest() != head["sha256"]:
        return {"damaged": True}, []
    try:
        if head["do"] == "put":
            at = 0
            for path, size, executable in head["files"]:
                write_below(folder, path, bytes(body[at : at + size]), executable=executable)
                at += size
        elif head["do"] == "read":
            data = read_below(folder, head["path"], head["max_bytes"])
            found = {head["path"]: (data, False)}
        else:
            bounds = {"max_files": head["max_files"], "max_bytes": head["max_bytes"]}
            found = read_tree(folder, head["path"], skip=head["skip"], **bounds)
    except (PathRefused, SandboxError) as error:
        # A full disk is of the agent's making too: this one is its own.
        return {"refused": str(error)}, []
    # Names are bytes of the body: as JSON they could be six times as long.
    names = [os.fsencode(path) for path in found]
    sizes = [[len(os.fsencode(path)), len(data), bit] for path, (data, bit) in found.items()]
    return {"files": sizes}, [*names, *(data for data, _ in found.values())]
