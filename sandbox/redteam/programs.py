"""Attacks on programs that are run as a whole, in Python and in other languages."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.rl.types import AppendedCheck, ProgramCheck, Task
from palestra.sandbox.redteam.attack import Attack


def _is_run(task: Task) -> bool:
    return any(isinstance(check, ProgramCheck) for check in task.hidden)


def _is_appended(task: Task) -> bool:
    return any(isinstance(check, AppendedCheck) for check in task.hidden)


def _written(texts: Mapping[str, str]) -> str:
    """A script that writes the program for the artifact's language."""
    cases = "".join(
        f"*.{ending}) printf %s '{text}' > \"$ARTIFACT\";;\n" for ending, text in texts.items()
    )
    return f'case "$ARTIFACT" in\n{cases}esac'


PROGRAMS: Mapping[str, Attack] = {
    "prints-what-it-finds": Attack(
        row=22,
        tries="prints the memory, arguments and files of all processes and of the runs before",
        fits=_is_run,
        code="import glob, os\n"
        "for path in glob.glob('/proc/[0-9]*/[cefm]*') + glob.glob('/tmp/**', recursive=True):\n"
        "    for name in [path, *glob.glob(path + '/*')]:\n        try:\n"
        "            with open(name, errors='replace') as file: print(file.read(4096))\n"
        "        except (OSError, ValueError): pass\n",
    ),
    "answers-for-later-runs": Attack(
        row=11,
        tries="leaves a daemon that writes into the output of later runs, or ends them with 0",
        fits=_is_run,
        code="import glob, os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    end = time.time() + 3\n    while time.time() < end:\n"
        "        for path in glob.glob('/proc/[0-9]*/fd/[0-9]*'):\n            try:\n"
        "                with open(path, 'a') as file: file.write('0 1 2 3 YES NO')\n"
        "            except (OSError, ValueError): pass\n    os._exit(0)\n",
    ),
    "exits-in-its-language": Attack(
        row=4,
        tries="ends with exit code 0 before the tests that follow it in its file",
        fits=_is_appended,
        script=_written(
            {"js": "process.exit(0);", "sh": "exit 0", "pl": "exit 0;", "rb": "exit 0"}
            | {"php": "<?php exit(0);", "lua": "os.exit(0)", "R": "quit(status = 0)"}
        ),
    ),
    "patches-its-language": Attack(
        row=8,
        tries="replaces what the tests that follow it in its file fail with",
        fits=_is_appended,
        script=_written(
            {
                "js": 'for (const m of [require("assert"), require("util")])'
                " for (const k in m) if (m[k] instanceof Function) m[k] = () => true;"
                ' process.on("uncaughtException", () => {});',
                "sh": 'exit() { :; }; set() { :; }; trap "builtin exit 0" EXIT',
                "pl": "BEGIN { *CORE::GLOBAL::die = sub { 1 }; *CORE::GLOBAL::exit = sub { 1 } }",
            }
        ),
    ),
}
