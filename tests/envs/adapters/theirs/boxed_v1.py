"""A taskset whose reward looks into a box."""

import verifiers.v1 as vf


class BoxedTask(vf.Task[vf.TaskData]):
    @vf.reward
    async def file_is_there(self, trace, runtime) -> float:
        return 1.0


class Boxed(vf.Taskset[BoxedTask, vf.TasksetConfig]):
    def load(self):
        yield BoxedTask(vf.TaskData(prompt="Write a file."), self.config.task)


__all__ = ["Boxed"]
