"""A server of the package openenv-core: say numbers until they add up to 10."""

import random
import sys

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State


class Say(Action):
    number: int


class Heard(Observation):
    text: str


class Counting(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self._state = State()
        self.total = 0

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.total = random.Random(seed).randrange(5)
        self._state = State(episode_id=episode_id)
        return Heard(text=f"The total is {self.total}.")

    def step(self, action, timeout_s=None, **kwargs):
        if action.number < 0:
            raise RuntimeError("the server broke")
        self.total += action.number
        done = self.total >= 10
        return Heard(
            text=f"The total is {self.total}.",
            done=done,
            reward=float(self.total == 10) if done else None,
        )

    @property
    def state(self):
        return self._state

    def get_metadata(self):
        return EnvironmentMetadata(name="counting", description="Say numbers that add up to 10.")


if __name__ == "__main__":
    app = create_fastapi_app(Counting, Say, Heard, max_concurrent_envs=int(sys.argv[2]))
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
