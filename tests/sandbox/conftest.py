"""Fixtures of the sandbox tests: each provider that grading may use."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from palestra.rl.errors import SandboxError
from palestra.rl.types import SandboxProvider
from palestra.sandbox import auto
from palestra.sandbox.bubblewrap import Bubblewrap
from palestra.sandbox.checks import Fresh, Runner
from palestra.sandbox.kubernetes_api import Api
from palestra.sandbox.landlock import Landlock
from palestra.sandbox.warm import problem_of, warm

_RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
_DOCKER = bool(os.environ.get("DOCKER_HOST"))


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    case = pyfuncitem.obj
    if not inspect.iscoroutinefunction(case):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(case).parameters}
    asyncio.run(case(**given))
    return True


@pytest.fixture(params=[Bubblewrap, Landlock], ids=["bubblewrap", "landlock"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> SandboxProvider:
    """Boxes below a folder of this test; skips where the machine lacks the mechanism."""
    return _made(request.param, tmp_path)


@pytest.fixture(params=["bubblewrap", "landlock", *(["docker"] if _DOCKER else [])])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> SandboxProvider:
    """As ``provider``, and Docker where there is one."""
    if request.param == "docker":
        image = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
        return auto.make("docker", image=image)
    return _made(Bubblewrap if request.param == "bubblewrap" else Landlock, tmp_path)


@pytest.fixture(scope="session", params=["fresh", "warm", "landlock"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """What runs checks: a fresh box per run, or warm ones that serve the whole session."""
    kind = Landlock if request.param == "landlock" else Bubblewrap
    provider = _made(kind, tmp_path_factory.mktemp("boxes"))
    if request.param != "warm":
        return Fresh(provider)
    found = warm(provider)
    return found or _lacking(problem_of(provider))


@pytest.fixture(scope="session")
def breaches() -> Callable[[Mapping[str, Any]], Iterator[str]]:
    """Finds what the Pod Security level "restricted" forbids in the spec of a Pod."""
    return _breaches


@pytest.fixture(scope="session")
def send() -> Callable[..., list[str]]:
    """Makes an object, or lets the API server try (``dry``), and says what it dropped of it."""
    return _sent


def _sent(api: Api, manifest: dict[str, Any], *, dry: bool = False) -> list[str]:
    manifest = _served(api, manifest)
    query = {"dryRun": "All"} if dry else {}
    return list(_lost(manifest, api.now("POST", _collection(manifest), manifest, query=query)))


def _breaches(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the Pod Security level "restricted" (which holds "baseline") forbids in a Pod."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", ()):
        if not set(volume) - {"name"} <= _RESTRICTED_VOLUMES:
            yield f"volume {volume}"
    whole = spec["securityContext"]
    for one in [*spec["containers"], *spec.get("initContainers", ())]:
        own = one["securityContext"]
        if own.get("privileged") or own["allowPrivilegeEscalation"] is not False:
            yield "privileges"
        if own["capabilities"]["drop"] != ["ALL"] or own["capabilities"].get("add"):
            yield "capabilities"
        if not {**whole, **own}.get("runAsNonRoot") or {**whole, **own}.get("runAsUser") == 0:
            yield "root"
        profile = {**whole, **own}.get("seccompProfile", {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield "seccomp"
        if own.get("procMount", "Default") != "Default" or any(
            "hostPort" in port for port in one.get("ports", ())
        ):
            yield "proc or ports"


def _collection(manifest: Mapping[str, Any]) -> str:
    """Where objects of that kind are made."""
    version, place = manifest["apiVersion"], manifest["metadata"].get("namespace")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    kind = manifest["kind"].lower()
    plural = kind.removesuffix("y") + "ies" if kind.endswith("y") else f"{kind}s"
    return f"{root}/namespaces/{place}/{plural}" if place else f"{root}/{plural}"


def _served(api: Api, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest in a version that this API server has: before 1.21, CronJobs were beta."""
    served = (
        api.now("GET", f"/apis/{manifest['apiVersion']}") if manifest["kind"] == "CronJob" else None
    )
    if served and "CronJob" not in [one["kind"] for one in served["resources"]]:
        return {**manifest, "apiVersion": "batch/v1beta1"}
    return manifest


def _lost(sent: Any, got: Any, at: str = "") -> Iterator[str]:
    """Where ``got`` lacks or changes what was ``sent``: the API server drops what it does not
    know without a word. Amounts may be written in another way."""
    if isinstance(sent, dict) and isinstance(got, dict):
        for name, value in sent.items():
            path = f"{at}.{name}".lstrip(".")
            if name not in got:
                # What is empty or false may be left out.
                yield from [path] if value else []
            else:
                yield from _lost(value, got[name], path)
    elif isinstance(sent, list) and isinstance(got, list) and len(sent) <= len(got):
        for number, value in enumerate(sent):
            yield from _lost(value, got[number], f"{at}.{number}")
    elif sent != got and not re.search(r"(cpu|memory|storage|sizeLimit)$", at):
        yield at


def _made(kind: Callable[..., SandboxProvider], root: Path) -> SandboxProvider:
    try:
        return kind(root=root)
    except SandboxError as error:
        _lacking(str(error))


def _lacking(problem: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)
