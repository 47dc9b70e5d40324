"""Boxes whose work folder lies where a task wants it, with further folders beside it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from palestra.rl.errors import UserError
from palestra.rl.types import Image, SandboxProvider
from palestra.sandbox import docker_settings, kubernetes_pod
from palestra.sandbox.base import BoxSpec, CreateError, asked, work_folder
from palestra.sandbox.docker_images import Image as Pinned
from palestra.sandbox.limits import Limits
from palestra.sandbox.stock import kind_of

PLACED = Image(name="", folder="/app", env={"A": "1"}, scratch=("/tests", "/logs"))
LOOK = """
set -e
echo "$PWD $HOME $A $(cat start)" > said
cd /; mkdir /tests/new /logs/new /app/new
! mkdir /other /workspace 2> /dev/null
"""


def test_the_work_lies_in_the_folder_asked_for(anywhere: SandboxProvider, tmp_path: Path) -> None:
    async def look() -> str:
        async with anywhere.open(PLACED) as box:
            await box.write("start", b"here")
            ended = await box.exec(["bash", "-c", LOOK])
            assert ended.exit_code == 0, ended.stderr
            return (await box.read("said")).decode()

    if anywhere.name == "landlock":
        with pytest.raises(CreateError, match="landlock boxes have no work folder at /app"):
            asyncio.run(look())
    else:
        assert asyncio.run(look()) == "/app /app 1 here\n"


def test_containers_have_the_folders_in_memory() -> None:
    spec = asked(PLACED, BoxSpec(limits=Limits(memory=1 << 30)))
    assert (spec.limits.memory, dict(spec.env)) == (1 << 30, {"A": "1"})
    plan = docker_settings.Plan("box", spec, Pinned("sha256:0", ()), 1.0, "")
    mounts = docker_settings.mounts(plan)
    assert set(mounts) == {"/app", "/tests", "/logs", "/tmp"}
    assert all("nosuid,nodev" in options and "size=" in options for options in mounts.values())

    pod = kubernetes_pod.pod("box", kubernetes_pod.Plan(spec, "i"), owners=[], now=time.time())
    (container, *_) = pod["spec"]["containers"]
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert places >= {"/app", "/tests", "/logs", "/tmp", "/dev/shm"}
    named = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert named >= {mount["name"] for mount in container["volumeMounts"]}


def test_boxes_of_other_folders_do_not_stand_in() -> None:
    plain, placed = BoxSpec(), asked(PLACED, BoxSpec())
    assert kind_of(plain) != kind_of(placed)
    pods = [kubernetes_pod.Plan(spec, "i") for spec in (plain, placed)]
    assert kubernetes_pod.shape(pods[0]) != kubernetes_pod.shape(pods[1])


@pytest.mark.parametrize(
    "path", ["app", "/", "//", "/usr/app", "/proc/1", "/a/../b", "/a b", "/.x"]
)
def test_unsafe_folders_are_refused(path: str) -> None:
    for spec in (BoxSpec(folder=path), BoxSpec(scratch=(path,))):
        with pytest.raises(UserError, match="cannot be a work folder"):
            work_folder(spec)
