"""A taskset as authors write it for the second interface of verifiers."""

import verifiers.v1 as vf


class WordsData(vf.TaskData):
    answer: str


class WordsTask(vf.Task[WordsData]):
    @vf.reward
    async def right(self, trace) -> float:
        said = trace.assistant_messages[-1].content
        if said == "crash":
            raise RuntimeError("no judge")
        return 1.0 if said == self.data.answer else 0.0

    @vf.reward(weight=0.5)
    async def brief(self, trace) -> float:
        return 1.0 if len(trace.assistant_messages[-1].content) < 10 else 0.0


class WordsConfig(vf.TasksetConfig):
    count: int = 4


class Words(vf.Taskset[WordsTask, WordsConfig]):
    def load(self):
        for n in range(self.config.count):
            data = WordsData(prompt=f"Say {n} twice.", answer=f"{n} {n}", system_prompt="Be short.")
            yield WordsTask(data, self.config.task)


__all__ = ["Words"]
