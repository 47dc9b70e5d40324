"""LiveCodeBench problems as tasks, with their packed private tests.

Private tests are published as JSON, or as Base64 of zlib of a *pickle* of that JSON. A pickle is a
program; here its few harmless instructions are read (``_unpickled``), and nothing is ever run.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping

from palestra.envs.records import identity
from palestra.envs.rows import BadRow, json_field, text_field
from palestra.envs.stdin_records import function_task, stdin_task
from palestra.envs.syntax import parse
from palestra.rl.types import Json, Task

MAX_BYTES = 256 << 20
"""Bytes of unpacked tests of one problem."""

CHECK_S = 6.0
"""Seconds that the benchmark gives to one test."""

_PRELUDE = """\
from __future__ import annotations
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from typing import *
"""
_CONSTANTS: Mapping[str, Json] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BININT BININT1 BININT2 LONG1".split()
)


def livecodebench_task(row: Mapping[str, Json]) -> Task:
    """A task from ``question_id, question_content, starter_code, public_test_cases,
    private_test_cases, metadata``; public tests are visible. Raises ``BadRow``."""
    name = f"LiveCodeBench/{identity(row, 'question_id', 'task_id')}"
    public = _tests(json_field(row, "public_test_cases"), "public_test_cases")
    private = _tests(_unpacked(row.get("private_test_cases")), "private_test_cases")
    text = text_field(row, "question_content")
    starter = text_field(row, "starter_code") if row.get("starter_code") else ""
    tests = [*public, *private]
    kinds = {kind for kind, _, _ in tests}
    if kinds == {"stdin"}:
        return stdin_task(
            name,
            text=text,
            cases=[(given, (wanted,)) for _, given, wanted in tests],
            visible=len(public),
            check_s=CHECK_S,
            tolerance=0.0,
            by_line=True,
        )
    if kinds != {"functional"}:
        raise BadRow(f"field testtype: not stdin or functional alone: {sorted(kinds)}")
    return function_task(
        name,
        text=text,
        starter=starter,
        function=_function(row, starter),
        calls=[(_arguments(given), _value(wanted)) for _, given, wanted in tests],
        visible=len(public),
        check_s=CHECK_S,
        prelude=_PRELUDE,
    )


def _function(row: Mapping[str, Json], starter: str) -> str:
    metadata = json_field(row, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        raise BadRow("field metadata: no func_name")
    return f"Solution().{name}" if "class Solution" in starter else name


def _tests(tests: Json, field: str) -> list[tuple[str, str, str]]:
    """Kind, input and output of each test."""
    if not isinstance(tests, list):
        raise BadRow(f"field {field}: not a list of tests")
    found: list[tuple[str, str, str]] = []
    for number, test in enumerate(tests):
        if not isinstance(test, dict):
            raise BadRow(f"field {field}[{number}]: not an object")
        kind, given, wanted = (test.get(name) for name in ("testtype", "input", "output"))
        if not isinstance(kind, str) or not isinstance(given, str) or not isinstance(wanted, str):
            raise BadRow(f"field {field}[{number}]: testtype, input or output is no text")
        found.append((kind, given, wanted))
    return found


def _arguments(given: str) -> Json:
    """One argument per line, as JSON."""
    return [_value(line) for line in given.split("\n") if line.strip()]


def _value(text: str) -> Json:
    """JSON; some records have Python's spelling."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        statement = parse(text.strip()).body[0]
        return ast.literal_eval(statement.value if isinstance(statement, ast.Expr) else "")
    except (ValueError, SyntaxError, TypeError, AttributeError, IndexError, MemoryError) as error:
        raise BadRow(f"a value of a test is no literal: {text[:40]!r}") from error


# --- packed tests --------------------------------------------------------------------------------


def _unpacked(value: Json) -> Json:
    field = "field private_test_cases"
    if not isinstance(value, str):
        return value if value is not None else []
    if not value.strip():
        return []
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(value, validate=True), MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise BadRow(f"{field}: neither JSON nor Base64 of zlib: {error}") from error
    if unzip.unconsumed_tail or not unzip.eof:
        raise BadRow(f"{field}: cut short, or more than {MAX_BYTES} bytes")
    found = _unpickled(data)
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{field}: not JSON inside: {error}") from error


def _unpickled(data: bytes) -> Json:
    """The strings, integers, lists and dicts that a pickle holds; refused if it does anything else.

    Instructions are read as data (``pickletools``), none is carried out by ``pickle``.
    """
    stack: list[Json] = []
    marks: list[int] = []
    memo: dict[object, Json] = {}
    try:
        for operation, argument, _ in pickletools.genops(data):
            code = operation.name
            if code == "STOP":
                [found] = stack
                return found
            _step(code, argument, stack, marks, memo)
    except (ValueError, LookupError, TypeError, UnicodeDecodeError, AttributeError) as error:
        raise BadRow(f"field private_test_cases: refused: {error}") from error
    raise BadRow("field private_test_cases: refused: the pickle does not end")


def _step(
    code: str, argument: object, stack: list[Json], marks: list[int], memo: dict[object, Json]
) -> None:
    """Carry out one instruction; raises ``ValueError`` for one that could do harm."""
    if code in ("PROTO", "FRAME"):
        return
    if code in _VALUES:
        stack.append(argument)
    elif code in _CONSTANTS:
        stack.append(_CONSTANTS[code])
    elif code in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.append([] if code == "EMPTY_LIST" else {})
    elif code == "MARK":
        marks.append(len(stack))
    elif code in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
        memo[len(memo) if code == "MEMOIZE" else argument] = stack[-1]
    elif code in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif code in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
        _fill(code, stack, marks)
    else:
        raise ValueError(f"instruction {code}")


def _fill(code: str, stack: list[Json], marks: list[int]) -> None:
    start = marks.pop() if code.endswith("S") else len(stack) - (1 if code == "APPEND" else 2)
    items, target = stack[start:], stack[start - 1]
    del stack[start:]
    if isinstance(target, list) and code.startswith("APPEND"):
        target.extend(items)
    elif isinstance(target, dict) and code.startswith("SETITEM"):
        target.update(zip(items[::2], items[1::2], strict=True))
    else:
        raise ValueError(f"instruction {code} out of place")
