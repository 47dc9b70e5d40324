"""Names of images, and how few of them are pulled; with a stand-in for the daemon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import docker as sdk
import pytest
from docker.errors import DockerException, ImageNotFound

from palestra.sandbox.base import BoxSpec, CreateError
from palestra.sandbox.docker import Docker
from palestra.sandbox.docker_daemon import DaemonFault, understood
from palestra.sandbox.docker_images import Image, Images
from palestra.sandbox.docker_settings import (
    FIRST_REMAPPED,
    FIRST_USER,
    Plan,
    discarded,
    user,
)
from palestra.sandbox.images import full_name, mirrored

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.12", "docker.io/library/python:3.12"),
        ("team/tool@" + DIGEST, "docker.io/team/tool@" + DIGEST),
        ("localhost/tool", "localhost/tool"),
        ("registry:5000/tool:1", "registry:5000/tool:1"),
        ("ghcr.example/a/b/c", "ghcr.example/a/b/c"),
    ],
)
def test_registries_are_spelled_out(image: str, full: str) -> None:
    assert full_name(image) == full


@pytest.mark.parametrize(
    ("image", "fetched"),
    [
        ("python:3.12", "mirror.example/hub/library/python:3.12"),
        ("team/tool@" + DIGEST, "mirror.example/team/tool@" + DIGEST),
        ("ghcr.example/a", "near.example:5000/a"),
        ("ghcr.example.org/a", "ghcr.example.org/a"),
        ("local:dev", "mirror.example/hub/library/local:dev"),
        (DIGEST, DIGEST),
    ],
)
def test_mirrors_replace_the_longest_prefix(image: str, fetched: str) -> None:
    mirrors = {
        "docker.io": "mirror.example/hub",
        "docker.io/team/": "mirror.example/team/",
        "ghcr.example": "near.example:5000",
    }
    assert mirrored(image, mirrors) == fetched
    assert mirrored(image, {}) == image


class Registry:
    """A daemon that has no image until it is pulled; pulls wait for ``go``."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.pulled: list[str] = []
        self.at_once = self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def inspect_image(self, name: str) -> dict[str, object]:
        if name not in self.present:
            raise ImageNotFound("none")
        return {"Id": f"sha256:{name}"}

    def pull(self, name: str, **_: object) -> Iterator[dict[str, str]]:
        with self._lock:
            self.pulled.append(name)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.go.wait(60)
        yield {"status": "done"}
        with self._lock:
            self.at_once -= 1
            self.present.add(name)

    def now(self, work: Callable[[Any], Any]) -> Any:
        return work(self)

    async def call(self, work: Callable[[Any], Any]) -> Any:
        return work(self)


def images(registry: Registry, **settings: Any) -> Images:
    return Images(registry, **settings)  # type: ignore[arg-type]


def test_few_pulls_at_once_and_one_for_each_image() -> None:
    registry = Registry()
    finder = images(registry, pull="missing", at_once=2, mirrors={"docker.io": "m.example"})

    async def run() -> list[str]:
        names = [f"r.example/{number}" for number in range(5)] * 3
        wanted = [asyncio.create_task(finder.pinned(name)) for name in names]
        await asyncio.to_thread(lambda: [None for _ in iter(lambda: registry.at_once == 2, True)])
        registry.go.set()
        return [(await one).id for one in wanted]

    assert asyncio.run(run()) == [f"sha256:r.example/{number}" for number in range(5)] * 3
    assert registry.most == 2
    assert sorted(registry.pulled) == [f"r.example/{number}" for number in range(5)]


def test_a_name_means_the_same_image_from_its_first_use_on() -> None:
    registry = Registry()
    registry.present.add("m.example/library/tool")
    finder = images(registry, mirrors={"docker.io": "m.example"})
    first = asyncio.run(finder.pinned("tool"))
    registry.present.clear()
    assert asyncio.run(finder.pinned("tool")) == first
    assert first.id == "sha256:m.example/library/tool" and registry.pulled == []


def test_nothing_is_pulled_unless_allowed() -> None:
    registry = Registry()
    finder = images(registry)
    with pytest.raises(CreateError, match=r"sandbox\.pull") as error:
        asyncio.run(finder.pinned("tool"))
    assert error.value.stage == "image" and registry.pulled == []
    registry.present.add("tool")
    assert asyncio.run(finder.pinned("tool")).id == "sha256:tool", "a failure is not kept"
    with pytest.raises(CreateError, match=r"sandbox\.image"):
        asyncio.run(finder.pinned(""))


def test_a_pull_that_takes_too_long_is_told_as_that() -> None:
    registry = Registry()
    finder = images(registry, pull="missing", pull_s=0.05)
    with pytest.raises(CreateError, match="longer than") as error:
        asyncio.run(finder.pinned("tool"))
    registry.go.set()
    assert error.value.stage == "image"


def test_an_error_of_the_registry_is_no_image() -> None:
    class Limited(Registry):
        def pull(self, name: str, **_: object) -> Iterator[dict[str, str]]:
            yield {"error": "toomanyrequests: slow down"}

    with pytest.raises(CreateError, match="mirror") as error:
        asyncio.run(images(Limited(), pull="missing").pinned("tool"))
    assert error.value.stage == "queue"


# --- the daemon ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "stage", "advice"),
    [
        (PermissionError(13, "Permission denied"), "permission", "join the group docker"),
        (FileNotFoundError(2, "No such file or directory"), "start", "start it, or set"),
        (ConnectionRefusedError(111, "Connection refused"), "start", "start it, or set"),
        (TimeoutError("timed out"), "queue", "fewer boxes at once"),
    ],
)
def test_a_daemon_that_cannot_be_used(
    cause: OSError, stage: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise DockerException("Error while fetching server API version") from cause

    monkeypatch.setattr(sdk, "APIClient", refuse)
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    with pytest.raises(CreateError, match=advice) as error:
        Docker(image="any", host="unix:///nowhere.sock")
    assert error.value.stage == stage and "\n" not in str(error.value)


def test_no_daemon_at_a_socket_that_is_not_there() -> None:
    with pytest.raises(CreateError, match=r"/nowhere/docker\.sock") as error:
        Docker(image="any", host="unix:///nowhere/docker.sock")
    assert error.value.stage == "start"


@pytest.mark.parametrize("host", ["ssh://host", "npipe:////./pipe/docker", "https://host:2376"])
def test_connections_that_cannot_carry_boxes_say_what_to_do(host: str) -> None:
    with pytest.raises(CreateError, match="ssh -L"):
        Docker(image="any", host=host)


@pytest.mark.parametrize(
    ("said", "stage"),
    [
        ('OCI runtime create failed: exec: "python3": executable file not found in $PATH', "image"),
        ("write /var/lib/x: no space left on device", "quota"),
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "quota"),
        ("Minimum memory limit allowed is 6MB", "quota"),
        ("unknown or invalid runtime name: runsc", "start"),
        ("something new", "start"),
    ],
)
def test_messages_of_the_daemon_are_understood(said: str, stage: str) -> None:
    fault = understood(said)
    assert isinstance(fault, DaemonFault) and fault.stage == stage
    assert said in str(fault)


def test_users_of_boxes_differ_and_fit_where_the_daemon_maps_them() -> None:
    def users(first: int) -> set[int]:
        image = Image(DIGEST, ())
        return {user(Plan(f"b{n}", BoxSpec(), image, 1.0, "", first)) for n in range(100)}

    assert len(users(FIRST_USER)) > 90 and min(users(FIRST_USER)) >= FIRST_USER
    assert 0 < min(users(FIRST_REMAPPED)) and max(users(FIRST_REMAPPED)) < 1 << 16


def test_limits_that_a_kernel_does_not_support_are_seen() -> None:
    swap = "Your kernel does not support swap limit capabilities. Limitation discarded."
    pids = "Your kernel does not support pids limit capabilities. PIDs limit discarded."
    assert discarded([]) == discarded([swap]) == ""
    assert discarded([swap, pids]) == pids
