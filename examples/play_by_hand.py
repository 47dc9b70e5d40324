"""One repair episode through Gymnasium: look, test, put the right line back, submit.

.venv/bin/python examples/play_by_hand.py
"""

from __future__ import annotations

import json
import sys

import gymnasium


def call(name: str, **arguments: object) -> str:
    """A tool call as the environment wants it."""
    return json.dumps({"name": name, "arguments": arguments})


def main() -> None:
    """Play the first task with its reference at hand, as no agent has it."""
    env = gymnasium.make("palestra.deploy.gym:palestra/Repair-v0", split="train", limit=1)
    prompt, info = env.reset(seed=0)
    task = env.unwrapped.tasks[0]  # type: ignore[attr-defined]
    (path,) = task.artifacts
    broken, right = task.files[path].split("\n"), task.reference[path].split("\n")
    wrong = [n for n, (a, b) in enumerate(zip(broken, right, strict=True), 1) if a != b]
    actions = [call("test"), *(call("replace", line=n, text=right[n - 1]) for n in wrong)]
    say(prompt)
    for action in [*actions, call("test"), call("submit")]:
        text, reward, *_, info = env.step(action)
        say(f"> {action}\n{text}")
    say(f"reward {reward}: {info['reward_parts']}")
    env.close()


def say(text: str) -> None:
    """Print one part of the episode."""
    sys.stdout.write(f"{text}\n\n")


if __name__ == "__main__":
    main()
