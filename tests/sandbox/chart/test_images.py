"""The Dockerfiles: bases by digest or not at all, and never root."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_base_has_to_be_given_and_the_user_is_not_root(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert lines[:3] == ["ARG BASE", "FROM ${BASE}", "ARG BASE"]
    assert sum(line.startswith("FROM ") for line in lines) == 1
    assert lines[-1] == "USER 10001:10001"
    [check] = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN case")]
    for base, code in (("python:3.11", 1), ("", 1), ("python@sha256:" + "0" * 64, 0)):
        done = subprocess.run(["sh", "-c", check], env={"BASE": base}, check=False)
        assert done.returncode == code, base


def test_there_is_one_for_each_lock_and_it_installs_that() -> None:
    locks = {
        file.stem: found[1]
        for file in FILES
        if (found := re.search(r"PALESTRA_LOCK=requirements/(\w+)\.lock ", file.read_text()))
    }
    assert locks == {"cpu": "cpu", "gpu": "gpu"}
    assert {file.stem for file in FILES} == {"cpu", "gpu", "boxes"}


def test_a_lock_that_is_not_there_is_named() -> None:
    given = {**os.environ, "PALESTRA_LOCK": "requirements/tpu.lock"}
    command = [str(ROOT / "requirements/install.sh")]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PALESTRA_LOCK=requirements/tpu.lock: there is no such file" in done.stderr


@pytest.fixture
def docker() -> Iterator[Any]:
    """The daemon of DOCKER_HOST."""
    if not os.environ.get("DOCKER_HOST"):
        if "docker" in os.environ.get("PALESTRA_REQUIRE", ""):
            pytest.fail("PALESTRA_REQUIRE names docker, but DOCKER_HOST is not set")
        pytest.skip("DOCKER_HOST is not set: no daemon to build with")
    import docker

    client = docker.from_env()
    yield client
    client.close()


def test_the_image_of_boxes_builds_from_a_base_that_is_named_by_what_it_holds(docker: Any) -> None:
    from docker.errors import BuildError

    base = docker.images.get(IMAGE).id
    assert base.startswith("sha256:")
    image, _ = build(docker, BASE=base)
    try:
        assert image.attrs["Config"]["User"] == "10001:10001"
    finally:
        docker.images.remove(image.id)
    with pytest.raises(BuildError, match="should not be blank"):
        build(docker)


def build(docker: Any, **given: str) -> Any:
    """From a folder with nothing but the Dockerfile in it: nothing else is needed."""
    with (ROOT / "deploy/docker/boxes.Dockerfile").open("rb") as file:
        return docker.images.build(fileobj=file, buildargs=given, rm=True, forcerm=True)
