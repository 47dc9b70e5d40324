"""The daemon or the API server goes away in the middle: nobody's fault, and told as that."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from palestra.rl.errors import SandboxError
from palestra.rl.types import CallCheck, Outcome, Task
from palestra.sandbox.auto import make
from palestra.sandbox.base import Backend, BoxSpec, CreateError, TransportError, reap
from palestra.sandbox.checks import make_grader
from palestra.sandbox.limits import Limits

IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
NEEDS = {"docker": "DOCKER_HOST", "kubernetes": "KUBECONFIG"}
LABELS = {"case": secrets.token_hex(8)}
OPTIONS = {
    "docker": {"image": IMAGE},
    # A box that is reached directly does not notice that the API server is gone.
    "kubernetes": {"image": IMAGE, "reserve": 0.02, "transport": "websocket"},
}
TASK = Task(
    id="t",
    source="",
    kind="",
    prompt="",
    files={},
    reference={},
    artifacts=("solution.py",),
    hidden=(CallCheck(id="c", module="solution", function="f", args="(1,)", expected="1"),),
)


class Outlet:
    """Passes connections on to ``dial()`` until the plug is pulled."""

    def __init__(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._dial = dial
        self._open = [listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """End every connection, and take none from now on."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = self._dial()
                self._open += [ours, theirs]
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def docker(folder: Path) -> tuple[Outlet, dict[str, object]]:
    """A socket that leads to the daemon's."""
    real, path = os.environ["DOCKER_HOST"].removeprefix("unix://"), str(folder / "docker.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)

    def dial() -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        found.connect(real)
        return found

    return Outlet(listener, dial), {"host": f"unix://{path}"}


def kubernetes(folder: Path) -> tuple[Outlet, dict[str, object]]:
    """A port that leads to the API server's."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    [cluster] = config["clusters"]
    real = urlsplit(cluster["cluster"]["server"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listener.getsockname()[1]
    cluster["cluster"] |= {
        "server": f"https://127.0.0.1:{port}",
        "tls-server-name": real.hostname,
    }
    (folder / "config").write_text(yaml.safe_dump(config))
    outlet = Outlet(listener, lambda: socket.create_connection((real.hostname, real.port)))
    return outlet, {"kubeconfig": str(folder / "config")}


@pytest.fixture(params=NEEDS)
def plugged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Backend, Outlet]]:
    """A backend with a plug to pull; what is left of its boxes is removed by another way."""
    name = request.param
    if not os.environ.get(NEEDS[name]):
        required = name in os.environ.get("PALESTRA_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(f"{NEEDS[name]} is not set")
    outlet, options = {"docker": docker, "kubernetes": kubernetes}[name](tmp_path)
    yield make(name, **OPTIONS[name], **options), outlet
    outlet.pull()
    asyncio.run(reap(make(name, **OPTIONS[name]), LABELS, older_s=0))


def test_an_outage_is_nobodys_fault(plugged: tuple[Backend, Outlet]) -> None:
    backend, outlet = plugged
    spec = BoxSpec(labels=LABELS, limits=Limits(memory=128 << 20))

    async def run() -> None:
        box = await backend.create(spec)
        running = asyncio.create_task(box.exec("touch started; sleep 300", timeout=300))
        while "started" not in await box.get():
            pass
        outlet.pull()
        with pytest.raises(TransportError):
            await running
        assert not await box.alive()
        with pytest.raises(CreateError) as error:
            await backend.create(spec)
        assert error.value.stage == "start"
        with pytest.raises(SandboxError):
            await backend.list(LABELS)
        verdict = await make_grader(backend)(TASK, {"solution.py": b"def f(x): return x\n"})
        assert verdict.outcome is Outcome.INFRA_FAILURE

    asyncio.run(run())
