"""Do the adapters play with the packages themselves, whose pins are not ours?

    .venv/bin/python bench/adapters.py [--venvs FOLDER]

Installs each package with pip into a virtual environment of its own (kept in FOLDER, if given), and
plays the episodes of ``tests/envs/adapters/episodes.py`` there, from this checkout; for OpenEnv the
server runs there. Writes bench/results/adapters.json.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from report import machine_of, write_report

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "envs" / "adapters"
PLAYED = (("verifiers==0.3.1", "v0"), ("verifiers==0.3.1", "v1"), ("verifiers==0.4.0", "v1"))
SERVER = "openenv-core==0.3.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venvs", type=Path)
    args = parser.parse_args()
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.venvs or Path(scratch)
        for package, interface in PLAYED:
            figures[f"{package}, {interface}"] = played(python_of(folder, package), interface)
        with counting(python_of(folder, SERVER)) as url:
            figures[SERVER] = played(sys.executable, "openenv", url)
    result = ROOT / "bench" / "results" / "adapters.json"
    write_report(result, figures, "bench/adapters.py", machine_of())


def python_of(folder: Path, package: str) -> str:
    """The interpreter of a virtual environment with the package in it."""
    home = folder / package
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return str(python)


def played(python: str, *what: str) -> dict[str, object]:
    """Whether all episodes came out as they must."""
    paths = os.pathsep.join([str(ROOT / ".pkg"), str(TESTS / "theirs")])
    command = [python, str(TESTS / "episodes.py"), *what]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False)
    passed = ended.returncode == 0
    return {"value": int(passed), "unit": "as they must", "target": "1", "met": passed}


@contextmanager
def counting(python: str) -> Iterator[str]:
    """The address of the counting server, with one session at a time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(TESTS / "theirs" / "counting_server.py")
    with subprocess.Popen([python, script, str(port), "1"]) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", server)
            yield url
        finally:
            server.terminate()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
