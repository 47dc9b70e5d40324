"""Two learner processes against one: the same losses, the same weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palestra.policies import process_group

SCRIPT = Path(__file__).with_name("learner_rank.py")


def start(folder: Path, out: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    arguments = [str(folder), str(out), str(rank), str(size), str(port)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def outcomes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one rank wrote, and what two wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    meeting = process_group.listener()
    processes = [start(tiny, folder / "one", 0, 1, 0)]
    processes += [start(tiny, folder / "two", rank, 2, meeting.port) for rank in range(2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    return folder / "one", folder / "two"


def steps(folder: Path, name: str) -> list[dict[str, float]]:
    loaded: Any = json.loads((folder / f"{name}.json").read_text())
    return list(loaded)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_ranks_learn_what_one_learns(
    outcomes: tuple[Path, Path], optimizer: str, zero_stage: int
) -> None:
    one, two = outcomes
    name = f"{optimizer}-{zero_stage}"
    for alone, shared in zip(steps(one, name), steps(two, name), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert any(step["actor/qk_clip_heads"] > 0 for step in steps(one, name)), "QK-Clip took part"
    expected = load_file(one / name / "model.safetensors")
    found = load_file(two / name / "model.safetensors")
    assert expected.keys() == found.keys()
    for tensor in expected:
        torch.testing.assert_close(found[tensor], expected[tensor], atol=2e-5, rtol=1e-3)
    reference = load_file(one / f"{optimizer}-1" / "model.safetensors")
    for tensor in expected:
        torch.testing.assert_close(expected[tensor], reference[tensor], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_ranks_write_a_checkpoint_whole_or_not_at_all(
    outcomes: tuple[Path, Path], optimizer: str, zero_stage: int
) -> None:
    name = f"{optimizer}-{zero_stage}"
    for folder, size in zip(outcomes, (1, 2), strict=True):
        said = {(folder / f"{name}.refused-{rank}").read_text() for rank in range(size)}
        (line,) = said
        assert re.fullmatch(r"cannot write .*/in-vain: \S.*", line), "all ranks hear of the same"
        assert not list(folder.glob("in-vain*"))
        before, after = (load_file(folder / f"{name}{n}/model.safetensors") for n in ("", "-again"))
        assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
