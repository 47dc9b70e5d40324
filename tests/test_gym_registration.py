"""``gymnasium.make`` on our environments, in a process that imports nothing of ours itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ID = "palestra.deploy.gym:palestra/Repair-v0"

EPISODE = """
import json, warnings
import gymnasium
from gymnasium.utils.env_checker import check_env
warnings.simplefilter("ignore")
env = gymnasium.make(ID, split="train", seed=0, limit=2)
prompt, info = env.reset(seed=1)
assert [t["name"] for t in info["tools"]] == ["view", "replace", "test", "submit"], info
text, reward, terminated, truncated, info = env.step('{"name": "view", "arguments": {}}')
assert text.startswith("1 def ") and text.splitlines()[0] in prompt, text
assert (reward, terminated, truncated) == (0.0, False, False)
text, reward, terminated, truncated, info = env.step('{"name": "submit", "arguments": {}}')
assert (reward, terminated, truncated) == (0.0, True, False)
assert info["reward_parts"] == {"tests_pass": 0.0} and not all(info["passed"].values())
assert env.unwrapped.spec.id == "palestra/Repair-v0"
check_env(env.unwrapped, skip_render_check=True)
env.close()
print("played")
"""

OWN = """
from palestra.envs.math.env import Math

class Times(Math):
    name = "acme/Times-v0"
"""

INSIDE_A_LOOP = """
import asyncio, gymnasium
entry = {"entry_point": "palestra.deploy.gym:make_task_env", "kwargs": {"name": "own:Times"}}
gymnasium.register("acme/Times-v0", **entry)
async def notebook():
    env = gymnasium.make("acme/Times-v0", limit=1)
    env.reset()
    print(env.step('{"name": "submit", "arguments": {"answer": "none"}}')[2])
    env.close()
asyncio.run(notebook())
"""

WRONG_SOURCE = """
import gymnasium
from palestra.rl.errors import UserError
try:
    gymnasium.make("palestra.deploy.gym:palestra/Complete-v0", source="repair:", limit=1)
except UserError as error:
    print(error)
"""

LIGHT = """
import sys
import palestra.deploy.gym, gymnasium
palestra.deploy.gym.register()
assert {"palestra/Repair-v0", "palestra/Complete-v0"} <= set(gymnasium.registry)
heavy = {"torch", "ray", "vllm", "deepspeed", "transformers", "palestra.envs.corpus.words"}
print(sorted(heavy & set(sys.modules)))
"""


def python(code: str, cache: Path) -> str:
    """Standard output of a program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:gymnasium", "-c", f"ID = {ID!r}\n{code}"],
        env={**os.environ, "PALESTRA_CACHE": str(cache)},
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_episode_by_name(tmp_path: Path) -> None:
    assert python(EPISODE, tmp_path) == "played"


def test_a_class_of_the_folder_can_be_registered_and_made_inside_a_loop(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    assert python(INSIDE_A_LOOP, tmp_path) == "True"


def test_a_source_of_another_environment_is_refused(tmp_path: Path) -> None:
    said = python(WRONG_SOURCE, tmp_path)
    assert said.startswith("palestra/Complete-v0 does not play tasks of palestra/Repair-v0")


def test_registration_is_light_and_may_be_repeated(tmp_path: Path) -> None:
    assert python(LIGHT, tmp_path) == "[]"
