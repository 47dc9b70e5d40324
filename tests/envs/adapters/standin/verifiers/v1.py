"""Its second interface: tasksets, tasks and traces."""

import importlib
import inspect
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

D = TypeVar("D")
C = TypeVar("C")


class RolloutError(Exception):
    pass


class SingleAgentEnv:
    pass


class TaskData(BaseModel):
    model_config = ConfigDict(frozen=True)
    prompt: Any = None
    system_prompt: str | None = None


class Message(BaseModel):
    role: str
    content: str


class SystemMessage(Message):
    role: str = "system"


class UserMessage(Message):
    role: str = "user"


class AssistantMessage(Message):
    role: str = "assistant"


class TraceTask(BaseModel):
    type: str
    data: Any
    key: str
    hash: str


class AgentConfig(BaseModel):
    pass


class AgentInfo(BaseModel):
    config: AgentConfig


class MessageNode(BaseModel):
    parent: int | None
    message: Message
    sampled: bool


class Reward(BaseModel):
    score: float
    weight: float


class Trace(BaseModel):
    task: TraceTask
    agent: AgentInfo
    nodes: list[MessageNode]
    is_completed: bool
    ok: bool
    rewards: dict[str, Reward] = {}

    @property
    def assistant_messages(self):
        return [node.message for node in self.nodes if node.sampled]

    @property
    def reward(self):
        return sum(each.score * each.weight for each in self.rewards.values())


def reward(func=None, weight=1.0):
    def marked(function):
        function.weight = weight
        return function

    return marked if func is None else marked(func)


class Task(Generic[D]):
    NEEDS_CONTAINER = False
    key = hash = "0"

    def __init__(self, data, config=None):
        self.data, self.config = data, config

    async def setup(self, trace, runtime): ...

    async def finalize(self, trace, runtime): ...

    @classmethod
    def toolsets(cls, config):
        return []

    def plugged_judges(self):
        return []

    def hooks(self, kind):
        members = inspect.getmembers(self, inspect.ismethod)
        return [method for _, method in members if hasattr(method, "weight")]

    async def score(self, trace):
        for method in self.hooks("reward"):
            try:
                score = await method(trace)
            except Exception as error:
                raise RolloutError(f"{type(error).__name__}: {error}") from error
            trace.rewards[method.__name__] = Reward(score=score, weight=method.weight)


class TasksetConfig(BaseModel):
    id: str = ""
    task: Any = None


class Taskset(Generic[D, C]):
    INFINITE = False

    def __init__(self, config):
        self.config = config

    def __iter__(self):
        return iter(self.load())

    @classmethod
    def toolsets(cls, config):
        return []


def _taskset(name):
    module = importlib.import_module(name)
    [found] = [getattr(module, each) for each in module.__all__]
    return found


def taskset_config_type(name):
    return get_args(_taskset(name).__orig_bases__[0])[1]


def load_taskset(config):
    return _taskset(config.id)(config)


def environment_class(name):
    return SingleAgentEnv
