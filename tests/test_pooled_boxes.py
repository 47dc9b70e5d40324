"""Boxes of a run come from its pool, carry its name, and are gone with it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from palestra.deploy.boxes import pooled_boxes
from palestra.sandbox.base import CreateError
from palestra.sandbox.config import PoolConfig, SandboxConfig
from palestra.sandbox.keeper import LocalKeeper


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of others are not looked at."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_boxes_are_those_of_the_run_and_end_with_it() -> None:
    async def play() -> None:
        pooled = pooled_boxes(SandboxConfig(), episodes=2, run="tiny", unsafe_local=True)
        async with pooled as boxes, boxes.provider.open() as box:
            await box.write("a", b"1")
            assert await box.read("a") == b"1"
            [found] = await LocalKeeper().list({"run": "tiny"})
            assert found.labels["pool"]
            metrics = boxes.metrics()
            assert (metrics["sandbox/leased"], metrics["sandbox/leases"]) == (1, 1)
            assert metrics["sandbox/spare"] == 0, "folders are not kept ready"
        assert await LocalKeeper().list({"run": "tiny"}) == []

    asyncio.run(play())


@pytest.mark.parametrize(("places", "fit"), [(0, 2 + 1), (1, 1)])
def test_there_are_as_many_places_as_episodes_and_grades_or_as_one_says(
    places: int, fit: int
) -> None:
    config = SandboxConfig(max_boxes=1, pool=PoolConfig(places=places, queue_s=0.05))

    async def play() -> None:
        async with pooled_boxes(config, episodes=2, run="tiny", unsafe_local=True) as boxes:
            provider = boxes.provider
            opened = [provider.open() for _ in range(fit)]
            for box in opened:
                await box.__aenter__()
            with pytest.raises(CreateError, match="queue: "):
                await provider.open().__aenter__()
            for box in opened:
                await box.__aexit__(None, None, None)

    asyncio.run(play())
