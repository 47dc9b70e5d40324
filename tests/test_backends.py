"""Episodes as a run plays them, on every backend: agents' boxes and grading both where
``sandbox.backend`` says, from the configuration to the reward."""

from __future__ import annotations

import asyncio
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from palestra.deploy import cli
from palestra.deploy.config_file import load_recipe
from palestra.deploy.console import Console
from palestra.deploy.tasks import workshop
from palestra.deploy.world import make_world
from palestra.envs.complete import Complete
from palestra.policies.config import TinyConfig
from palestra.policies.fake import ScriptedPolicy
from palestra.policies.tiny import build
from palestra.policies.tokenizer import HFTokenizer
from palestra.rl.journal import Journal
from palestra.rl.types import Outcome, Sampling, Stop, ToolCall, Trajectory
from palestra.rollout.dialects import DIALECTS
from palestra.rollout.episode import Ticket, play_all

IMAGE = os.environ.get("PALESTRA_TEST_IMAGE", "agentbase:bookworm")
NEEDS = {"docker": "DOCKER_HOST", "kubernetes": "KUBECONFIG"}
WORK = {
    "double": "def double(n):\n    return n * 2\n",
    "half": "def half(n):\n    return n * 2\n",
    "gone": "import os\nos.kill(-1, 9)\n",
}
"""What the policy writes into the file of each task; the last two are wrong."""


@pytest.fixture(params=["bubblewrap", "landlock", "docker", "kubernetes"])
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """``--set`` arguments for a backend; skips where it is absent, but for what CI requires."""
    name = request.param
    if name in NEEDS and not os.environ.get(NEEDS[name]):
        required = name in os.environ.get("PALESTRA_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(f"{NEEDS[name]} is not set")
    given = [f"sandbox.backend={name}", f"sandbox.image={IMAGE}", "sandbox.kubernetes.reserve=0.02"]
    # More spare boxes than the node has room for only keep others waiting.
    return [*given, "sandbox.check_s=0.5", "sandbox.pool.spare=2"]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Three tasks with the same answers."""
    checks = {"double": "double(4) == 8", "half": "half(8) == 4", "gone": "gone(1) == 1"}
    rows = [
        {"task_id": n, "text": f"Write {name}.", "code": "", "test_list": [f"assert {check}"]}
        for n, (name, check) in enumerate(checks.items())
    ]
    path = tmp_path / "rows.jsonl"
    solutions = {"double": "n * 2", "half": "n // 2", "gone": "n"}
    for row, (name, value) in zip(rows, solutions.items(), strict=True):
        row["code"] = f"def {name}(n):\n    return {value}\n"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"mbpp:{path}"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    small = dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), 8)
    counts = dict.fromkeys(("layers", "heads", "kv_heads"), 1)
    build(folder, TinyConfig(vocab_size=400, **small, **counts), [*WORK.values()] * 9, (), seed=0)
    return folder


def test_episodes_are_played_and_graded_in_boxes_of_the_backend(
    chosen: list[str], source: str, policy: Path, tmp_path: Path
) -> None:
    limits = ["rollout.max_response_length=500", "rollout.max_context_length=9000"]
    config = load_recipe(None, [f"tasks.source={source}", *chosen, *limits]).config
    dialect = DIALECTS[config.rollout.dialect]

    def reply(context: str, _: Sampling) -> str:
        name = next(name for name in WORK if f"Write {name}." in context)
        write = ToolCall(name="write", arguments={"text": WORK[name]})
        steps = [write, ToolCall(name="test", arguments={}), ToolCall(name="submit", arguments={})]
        return dialect.render(steps[context.count("<|im_start|>assistant") - 1])

    async def play() -> dict[str, Trajectory]:
        with (
            Console(stream=io.StringIO()) as console,
            Journal(tmp_path / "journal.sqlite") as journal,
        ):
            async with workshop(config, tmp_path / "cache", console) as shop:
                scripted = ScriptedPolicy(reply, HFTokenizer(policy))
                world = make_world(config, shop, policy, scripted, journal, lambda: 0)
                kind = f"sandbox.backend={world.boxes.name}"
                assert world.env.name == Complete.name and kind in chosen
                outside = replace(shop.tasks.tasks[0], id="outside", files={"/etc/outside": "1"})
                tickets = [
                    Ticket(task=task, group_id=task.id, sample=0, step=1, seed=0, temperature=1.0)
                    for task in (*shop.tasks.tasks, outside)
                ]
                played: list[Trajectory] = []
                await play_all(tickets, world, played.append)
        return dict(
            zip((*WORK, "outside"), sorted(played, key=lambda one: one.task_id), strict=True)
        )

    played = asyncio.run(play())
    outside = played.pop("outside")
    assert outside.outcome is Outcome.TASK_FAILURE and "/etc/outside" in outside.reason
    assert {one.reason for one in played.values()} == {""}
    # Where commands and what watches them are one user, running its tests is the end of its box.
    gone = played.pop("gone")
    assert gone.reward and gone.reward.total == 0.0
    assert gone.outcome is Outcome.GRADED or gone.stop is Stop.BOX_ENDED
    assert {one.outcome for one in played.values()} == {Outcome.GRADED}
    rewards = {name: one.reward and one.reward.total for name, one in played.items()}
    assert rewards == {"double": 1.0, "half": 0.0}
    assert all(len(one.turns) == 3 and not one.turns[0].error for one in played.values())


def test_tasks_are_checked_in_boxes_of_the_backend(
    chosen: list[str], source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [word for text in chosen for word in ("--set", text)]
    assert cli.main(["tasks", "check", source, "--limit", "1", "--json", *overrides]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["tasks"], report["reference_pass"], report["noop_pass"]) == (1, 1, 0)


def test_only_values_that_have_an_effect_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tasks", "check", "repair:", "--set", "rl.steps=3"]) == 2
    assert "only values of [sandbox]" in capsys.readouterr().err
