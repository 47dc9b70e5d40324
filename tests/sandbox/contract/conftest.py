"""What every case of the contract is given: a backend, boxes with a label of the case, and the rule
that nothing is left behind.

A case is an ``async def`` and the same for every backend. Where one cannot promise something, the
case asks ``backend.guarantees`` and asserts what holds instead.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from palestra.rl.errors import SandboxError
from palestra.sandbox.auto import BACKENDS, make
from palestra.sandbox.base import Backend, BoxSpec
from palestra.sandbox.config import PoolConfig
from palestra.sandbox.pool import Pool

PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a backend is started here. ``needs`` is a variable that says where it is; without one it
    belongs to the machine, and CI must have it. ``backend`` is its name where the kind has
    another. ``pooled``: cases get a pool of its boxes. ``modules``: the cases that are tried unless
    ``PALESTRA_TESTS=full`` says all; empty: all."""

    needs: str = ""
    backend: str = ""
    pooled: bool = False
    modules: frozenset[str] = frozenset()
    options: Mapping[str, object] = field(default_factory=dict)


IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")

KINDS = {
    "bubblewrap": Kind(),
    "bubblewrap-pool": Kind(backend="bubblewrap", pooled=True),
    "landlock": Kind(),
    "docker": Kind(needs="DOCKER_HOST", options={"image": IMAGE}),
    **{
        f"kubernetes-{transport}": Kind(
            needs="KUBECONFIG",
            backend="kubernetes",
            # Twenty boxes fit on a node of two processors.
            options={"image": IMAGE, "reserve": 0.05, "transport": transport},
            modules=frozenset(modules),
        )
        for transport, modules in {
            "direct": ("test_commands", "test_files", "test_isolation", "test_life", "test_limits"),
            "websocket": ("test_commands",),  # what the way to a box has most part in
        }.items()
    },
}


FULL = os.environ.get("PALESTRA_TESTS") == "full"


def _tried(kind: Kind, module: ModuleType) -> bool:
    return FULL or not kind.modules or module.__name__.rpartition(".")[2] in kind.modules


def absence(name: str) -> str:
    """Why there cannot be a backend of this name here; empty if it must work."""
    needs = KINDS[name].needs
    if (KINDS[name].backend or name) not in BACKENDS:
        return f"there is no backend {name} in this version"
    return f"{needs} is not set" if needs and not os.environ.get(needs) else ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cases run on what is present; ``any_kind`` goes through all, to say what is absent."""
    if "any_kind" in metafunc.fixturenames:
        metafunc.parametrize("any_kind", KINDS)
    elif "kind" in metafunc.fixturenames:
        pooled = getattr(metafunc.module, "POOLED", True)
        present = [
            name
            for name, kind in KINDS.items()
            if not absence(name) and (pooled or not kind.pooled) and _tried(kind, metafunc.module)
        ]
        metafunc.parametrize("kind", present, scope="session", indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a case in an event loop of its own, with its ``box`` if it asks for one."""
    case = pyfuncitem.obj
    if not inspect.iscoroutinefunction(case):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(case).parameters}
    asyncio.run(_play(case, given, pyfuncitem.funcargs))
    return True


async def _play(
    case: Callable[..., Awaitable[None]], given: dict[str, object], fixtures: dict[str, object]
) -> None:
    names = ("backend", "spec", "labels", "kind")
    backend, spec, labels, kind = (fixtures[name] for name in names)
    async with AsyncExitStack() as stack:
        opened = backend
        if KINDS[kind].pooled:
            pool = Pool(backend, PoolConfig(spare=2), places=60, kinds=[spec()])
            opened = await stack.enter_async_context(pool)
        if "backend" in given:
            given["backend"] = opened
        if "box" in given:
            given["box"] = await stack.enter_async_context(opened.open(spec()))
        await case(**given)
    await _until(lambda: _nothing(backend, labels))


async def _nothing(backend: Backend, labels: Mapping[str, str]) -> bool:
    return not await backend.list(labels)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """One of ``KINDS``."""
    return request.param


@pytest.fixture(scope="session")
def named(kind: str) -> str:
    """The name of the backend."""
    return KINDS[kind].backend or kind


@pytest.fixture(scope="session")
def options(kind: str) -> Mapping[str, str]:
    """What the backend is started with, apart from the folder of local boxes."""
    return KINDS[kind].options


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of local boxes."""
    return tmp_path_factory.mktemp("boxes")


@pytest.fixture(scope="session")
def backend(kind: str, named: str, options: Mapping[str, str], root: Path) -> Backend:
    """The backend; skips where it does not work, but in CI all that are present must."""
    local = not KINDS[kind].needs
    try:
        return make(named, **options, **({"root": root} if local else {}))
    except SandboxError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{kind}: {error}")
        pytest.skip(f"{kind}: {error}")


@pytest.fixture
def any_name(any_kind: str) -> str:
    """The name of the backend of ``any_kind``."""
    return KINDS[any_kind].backend or any_kind


@pytest.fixture
def absent(any_kind: str) -> str:
    """Why there is no backend ``any_kind`` here; empty if there is."""
    return absence(any_kind)


@pytest.fixture
def labels() -> Mapping[str, str]:
    """Labels that only boxes of this case carry."""
    return {"case": secrets.token_hex(8)}


@pytest.fixture
def spec(labels: Mapping[str, str]) -> Callable[..., BoxSpec]:
    """Describes boxes of this case."""
    return lambda **settings: BoxSpec(**{"labels": labels, **settings})


@pytest.fixture
def box(backend: Backend, spec: Callable[..., BoxSpec]) -> None:
    """A box of this case, for its length; ``_play`` opens it in the loop of the case."""


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Waits for a condition, 30 s at most."""
    return _until


@pytest.fixture
def marker() -> str:
    """A number of seconds that no other process sleeps: ``sleep MARKER`` can be found."""
    return f"300.{secrets.randbelow(10**12):012}"


@pytest.fixture
def survivors(marker: str) -> Callable[[], Awaitable[bool]]:
    """Whether a process of this machine still has ``marker`` in its command line."""

    async def found() -> bool:
        return any(marker in line for line in _command_lines())

    return found


@pytest.fixture
def victim(marker: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours outside: ``sleep MARKER`` with ``MARKER`` in its environment too."""
    with subprocess.Popen(["sleep", marker], env={"SECRET_TOKEN": marker}) as process:
        yield process
        process.kill()


def _command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                yield (entry / "cmdline").read_text(errors="replace")
