"""Environments as authors write them for the classic interface of verifiers."""

import verifiers as vf
from datasets import Dataset


def rows():
    return Dataset.from_list(
        [{"question": f"Say {n} twice.", "answer": f"{n} {n}"} for n in range(4)]
    )


def right(completion, answer, **kwargs) -> float:
    said = [each["content"] for each in completion if each["role"] == "assistant"]
    return 1.0 if said[-1] == answer else 0.0


async def brief(completion) -> float:
    return 1.0 if len(completion[-1]["content"]) < 10 else 0.0


def broken(completion, **kwargs) -> float:
    raise RuntimeError("no judge")


def tries(state) -> float:
    return float(state.get("tries", 0))


def lookup(word: str) -> str:
    """Look a word up."""
    if word == "bad":
        raise ValueError("not a word")
    return word.upper()


class Guess(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        if messages[-1]["content"] == "crash":
            raise RuntimeError("the game broke")
        state["tries"] = state.get("tries", 0) + 1
        if messages[-1]["content"] == state["answer"]:
            state["final_env_response"] = [vf.UserMessage(content="yes")]
            return state["final_env_response"]
        return [vf.UserMessage(content=f"no, that was try {state['tries']}")]


def load_environment(kind="single", fail=False):
    rubric = vf.Rubric(funcs=[right, brief], weights=[1.0, 0.5])
    if fail:
        rubric.add_reward_func(broken)
    if kind == "tool":
        return vf.ToolEnv(dataset=rows(), system_prompt="Be short.", tools=[lookup], rubric=rubric)
    if kind == "guess":
        rubric.add_metric(tries)
        return Guess(dataset=rows(), eval_dataset=rows(), rubric=rubric, max_turns=3)
    return vf.SingleTurnEnv(dataset=rows(), system_prompt="Be short.", rubric=rubric)
