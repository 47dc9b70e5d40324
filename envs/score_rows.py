"""Given solutions graded without a model: ``palestra score``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import islice

from palestra.envs.complete import solution_files
from palestra.envs.concurrency import bounded
from palestra.envs.rows import BadRow, record
from palestra.envs.taskset import TaskSet
from palestra.rewards.score import Scheme, score
from palestra.rl.errors import InfraError
from palestra.rl.types import Grader, Json, Outcome, Stop, Task, Trajectory, Verdict

BATCH = 256


async def score_rows(
    taskset: TaskSet,
    rows: Iterable[tuple[int, Json | BadRow]],
    grader: Grader,
    scheme: Scheme,
    *,
    concurrency: int = 4,
) -> AsyncIterator[dict[str, Json]]:
    """One result per row ``{task_id, completion | files}``, in order.

    ``files`` maps artifact paths to their texts; artifacts that it leaves out stay as the task has
    them. A result is ``{"task_id", "outcome", "reward", "parts", "reason"}``; a wrong row is an
    ``agent_failure`` with reward 0 whose reason names the row and the field; an infrastructure
    fault has no reward. Example row: ``{"task_id": "HumanEval/0", "completion": "    return 1"}``
    """
    places = {task.id: place for place, task in enumerate(taskset.tasks)}

    def named(name: Json) -> Task:
        if not isinstance(name, str) or name not in places:
            raise BadRow(f"field task_id: no task {name!r} in this source")
        return taskset.tasks[places[name]]

    async def one(item: tuple[int, Json | BadRow]) -> dict[str, Json]:
        return await _score_row(*item, named, grader, scheme)

    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        for result in await bounded(one, batch, concurrency):
            yield result


async def _score_row(
    number: int,
    row: Json | BadRow,
    named: Callable[[Json], Task],
    grader: Grader,
    scheme: Scheme,
) -> dict[str, Json]:
    name = str(row.get("task_id", "")) if isinstance(row, dict) else ""
    try:
        task, files = _parse(record(row), named)
    except BadRow as error:
        return _result(name, Outcome.AGENT_FAILURE, 0.0, {}, f"row {number}: {error}")
    try:
        verdict = await grader(task, files)
        if verdict.outcome is Outcome.INFRA_FAILURE:
            return _result(name, verdict.outcome, None, {}, verdict.reason)
        scored = await score(_trajectory(task, verdict), None, scheme)
    except InfraError as error:
        return _result(name, Outcome.INFRA_FAILURE, None, {}, str(error))
    failed = [check for check, passed in verdict.passed.items() if not passed]
    reason = verdict.reason or (f"failed {failed[0]}" if failed else "")
    reward = scored.reward
    parts = dict(reward.parts) if reward else {}
    return _result(name, verdict.outcome, reward.total if reward else None, parts, reason)


def _parse(
    row: Mapping[str, Json], named: Callable[[Json], Task]
) -> tuple[Task, Mapping[str, bytes]]:
    task = named(row.get("task_id"))
    given = [field for field in ("completion", "files") if field in row]
    if len(given) != 1:
        raise BadRow("needs exactly one of the fields completion and files")
    if given == ["files"]:
        return task, _files(row["files"], task)
    completion = row["completion"]
    if not isinstance(completion, str):
        raise BadRow("field completion: not a string")
    return task, solution_files(task, completion)


def _files(value: Json, task: Task) -> dict[str, bytes]:
    if not isinstance(value, dict):
        raise BadRow("field files: not an object of path to text")
    files = {path: task.files[path].encode() for path in task.artifacts if path in task.files}
    for path, text in value.items():
        if path not in task.artifacts:
            raise BadRow(f"field files: {path!r} is none of {', '.join(task.artifacts)}")
        if not isinstance(text, str):
            raise BadRow(f"field files: {path!r} is not text")
        files[path] = text.encode(errors="replace")
    return files


def _trajectory(task: Task, verdict: Verdict) -> Trajectory:
    """An episode without turns, for reward functions that look at the verdict."""
    return Trajectory(
        id=task.id,
        group_id=task.id,
        task_id=task.id,
        step=0,
        prompt=(),
        turns=(),
        stop=Stop.SUBMITTED,
        outcome=verdict.outcome,
        temperature=1.0,
        verdict=verdict,
    )


def _result(
    name: str, outcome: Outcome, reward: float | None, parts: Mapping[str, float], reason: str
) -> dict[str, Json]:
    return {
        "task_id": name,
        "outcome": outcome.value,
        "reward": reward,
        "parts": dict(parts),
        "reason": reason,
    }
