"""Records in other languages than Python: MBXP and multilingual HumanEval, MultiPL-E."""

from __future__ import annotations

from collections.abc import Mapping

from palestra.envs.complete import Complete
from palestra.envs.languages import LANGUAGES, PYTHON
from palestra.envs.records import identity
from palestra.envs.rows import BadRow, text_field
from palestra.rl.types import AppendedCheck, Json, Task


def is_translated(row: Mapping[str, Json]) -> bool:
    """Whether a record is of another language than Python."""
    language = row.get("language")
    return isinstance(language, str) and language.lower() not in PYTHON


def translated_task(row: Mapping[str, Json]) -> Task:
    """A task from ``task_id | name, language, prompt, test | tests`` and, where there is one, a
    ``canonical_solution``.

    The test's text follows the candidate's in one program, as the benchmarks have it: some tests
    begin with the end of the function. Raises ``BadRow``.
    """
    name = text_field(row, "language")
    language = LANGUAGES.get(name.lower())
    if language is None:
        raise BadRow(f"field language: programs in {name[:40]!r} cannot be run")
    prompt = text_field(row, "prompt")
    tests = text_field(row, "test", "tests")
    if not tests.strip():
        raise BadRow("field test: empty")
    for absent, own in language.instead.items():
        tests = tests.replace(absent, own)
    task_id = identity(row, "task_id", "name")
    body = text_field(row, "canonical_solution") if row.get("canonical_solution") else ""
    check = AppendedCheck(
        id=f"{task_id}#0",
        argv=language.argv,
        path=language.file,
        code=tests,
        wrong=language.wrong,
        done=language.done,
    )
    return Task(
        id=task_id,
        source=Complete.name,
        kind="complete",
        prompt=f"Complete this program in the file {language.file}:\n{prompt}",
        files={language.file: ""},
        reference={language.file: prompt + body} if body else {},
        artifacts=(language.file,),
        hidden=(check,),
        labels={"needs": language.argv[0], "code_prompt": prompt},
    )
