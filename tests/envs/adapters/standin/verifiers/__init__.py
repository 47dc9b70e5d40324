"""The public interface of verifiers 0.3 that the adapter uses, written out.

It stands in where the package, which pins other versions than ours, is not installed; ``python
bench/adapters.py`` plays the same episodes with the package itself.
"""

import importlib
import inspect
import json
import signal

from verifiers.errors import Error, OverlongPromptError
from verifiers.types import AssistantMessage, State, Tool, ToolMessage, UserMessage, message_of

__all__ = ["Error", "OverlongPromptError", "UserMessage"]
__version__ = "stand-in"


def load_environment(env_id, **arguments):
    module = importlib.import_module(env_id.replace("-", "_"))
    try:
        return module.load_environment(**arguments)
    except Exception as error:
        raise RuntimeError(f"Failed to load environment '{env_id}': {error}") from error


class Rubric:
    def __init__(self, funcs=None, weights=None):
        self.funcs = list(funcs or [])
        self.weights = list(weights or [1.0] * len(self.funcs))

    def add_reward_func(self, func, weight=1.0):
        self.funcs.append(func)
        self.weights.append(weight)

    def add_metric(self, func, weight=0.0):
        self.add_reward_func(func, weight)

    async def score_rollout(self, state):
        state["metrics"], state["reward"] = {}, 0.0
        for func, weight in zip(self.funcs, self.weights, strict=True):
            known = {"completion": state["completion"], "answer": state["answer"], "state": state}
            names = inspect.signature(func).parameters
            wants_all = any(p.kind == p.VAR_KEYWORD for p in names.values())
            given = known if wants_all else {k: v for k, v in known.items() if k in names}
            try:  # as the package does: what a function raises becomes 0
                value = func(**given)
                value = float(await value if inspect.isawaitable(value) else value)
            except Exception:
                value = 0.0
            state["metrics"][func.__name__] = value
            state["reward"] += weight * value


class RubricGroup(Rubric):
    def __init__(self, rubrics):
        super().__init__()
        self.rubrics = rubrics

    async def score_rollout(self, state):
        total, metrics = 0.0, {}
        for rubric in self.rubrics:
            await rubric.score_rollout(state)
            total += state["reward"]
            metrics |= state["metrics"]
        state["reward"], state["metrics"] = total, metrics


def num_turns(state):
    return len(state["trajectory"])


class Environment:
    requires_group_rollouts = False

    def __init__(
        self, dataset=None, eval_dataset=None, system_prompt=None, rubric=None, max_turns=-1
    ):
        self._sets, self._system = (dataset, eval_dataset), system_prompt
        self.rubric, self.max_turns = RubricGroup([rubric, Rubric([num_turns], [0.0])]), max_turns
        self.tool_defs = None
        signal.signal(signal.SIGTERM, lambda *_: None)  # as the package does

    def _built(self, rows):
        system = [{"role": "system", "content": self._system}] if self._system else []
        return rows and [
            row | {"prompt": [*system, {"role": "user", "content": row["question"]}]}
            for row in rows
        ]

    def build_dataset(self):
        return self._built(self._sets[0])

    def build_eval_dataset(self):
        return self._built(self._sets[1])


class MultiTurnEnv(Environment):
    async def rollout(self, input, client, model, sampling_args=None):
        state = State(input, trajectory=[], error=None, final_env_response=None)
        messages = [message_of(each) for each in input["prompt"]]
        start = len(messages)
        try:
            while not self.over(state):
                if state["trajectory"]:
                    messages += await self.env_response(messages, state)
                    if state["final_env_response"] is not None:
                        break
                response = await client.get_response(
                    prompt=list(messages), model=model, tools=self.tool_defs, sampling_args={}
                )
                calls = response.message.tool_calls
                messages.append(AssistantMessage(response.message.content, calls))
                state["trajectory"].append(messages[-1])
        except OverlongPromptError:
            state["is_truncated"] = True
        except Error as error:
            state["error"] = error
        state["completion"] = messages[start:]
        return state

    def over(self, state):
        return 0 < self.max_turns <= len(state["trajectory"])


class SingleTurnEnv(MultiTurnEnv):
    def __init__(self, **settings):
        super().__init__(max_turns=1, **settings)


class ToolEnv(MultiTurnEnv):
    def __init__(self, tools, **settings):
        super().__init__(max_turns=10, **settings)
        self._tools = {tool.__name__: tool for tool in tools}
        self.tool_defs = [
            Tool(name, tool.__doc__, {"type": "object", "properties": {"word": {"type": "string"}}})
            for name, tool in self._tools.items()
        ]
        for name in self._tools:
            self.rubric.rubrics[1].add_metric(_count(name))

    def over(self, state):
        spoken = state["trajectory"] and not state["trajectory"][-1].tool_calls
        return spoken or super().over(state)

    async def env_response(self, messages, state):
        answers = []
        for call in messages[-1].tool_calls:
            try:
                said = str(self._tools[call.name](**json.loads(call.arguments)))
            except Exception as error:
                said = str(error)
            answers.append(ToolMessage(said))
        return answers


def _count(name):
    def calls(state):
        made = [call for each in state["trajectory"] for call in each.tool_calls or ()]
        return sum(call.name == name for call in made)

    calls.__name__ = f"{name}_calls"
    return calls
