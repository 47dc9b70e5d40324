"""``palestra sandbox doctor``, ``bench`` and ``reap``: what boxes guarantee and cost, and removing
forgotten ones."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence

from palestra.deploy.table import aligned
from palestra.deploy.text import one_line
from palestra.rl.errors import SandboxError, UserError
from palestra.sandbox.auto import BACKENDS, GRADING, LOCAL, Probed, keeper, make, probe
from palestra.sandbox.base import GUARANTEES, NotRemoved
from palestra.sandbox.base import reap as reap_boxes
from palestra.sandbox.timing import timing

_PARTS = ("p50", "p95")


def doctor(args: Namespace) -> int:
    """Print guarantee by backend; 1 when none of them is enough for grading."""
    found = [probe(name, **_options(name, args)) for name in _named(args)]
    if args.json:
        print(json.dumps({one.name: _record(one) for one in found}, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0 if any(GRADING <= one.guarantees for one in found) else 1


def bench(args: Namespace) -> int:
    """Print how long the boxes of each backend take; 1 when none of them works."""
    timed: dict[str, Mapping[str, object]] = {}
    problems: dict[str, str] = {}
    for name in _named(args):
        try:
            found = timing(make(name, **_options(name, args)), args.cycles)
            timed[name] = asyncio.run(found).summary()
        except SandboxError as error:
            problems[name] = str(error)
    if args.json:
        print(json.dumps(timed, indent=2))
    else:
        print("\n".join(_timed(timed, problems)))
    return 0 if timed else 1


def reap(args: Namespace) -> int:
    """Remove boxes whose driver is dead or whose time is over; 1 when one could not be removed, or
    no backend that was asked for works."""
    labels = dict(_label(text) for text in args.label)
    removed: dict[str, Sequence[str]] = {}
    problems: dict[str, str] = {}
    left = False
    for name in dict.fromkeys("local" if name in LOCAL else name for name in _named(args)):
        try:
            removed[name] = asyncio.run(reap_boxes(keeper(name), labels, older_s=args.older))
        except NotRemoved as error:
            removed[name], problems[name], left = error.removed, str(error), True
        except SandboxError as error:
            problems[name] = str(error)
    if args.json:
        print(json.dumps({"removed": removed, "problems": problems}))
    else:
        print("\n".join(_reaped(removed, problems)))
    return 1 if left or (problems and (args.backend or not removed)) else 0


def _named(args: Namespace) -> Sequence[str]:
    if args.backend and args.backend not in BACKENDS:
        raise UserError(f"--backend {args.backend}: there are {', '.join(BACKENDS)}")
    return [args.backend] if args.backend else list(BACKENDS)


def _options(name: str, args: Namespace) -> Mapping[str, str]:
    return {"image": args.image} if args.image and name not in LOCAL else {}


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--label {text}: write NAME=VALUE")
    return name, value


def _record(found: Probed) -> dict[str, object]:
    return {
        "works": not found.problem,
        "guarantees": [name for name in GUARANTEES if name in found.guarantees],
        "lacks": [name for name in GUARANTEES if name not in found.guarantees],
        "problem": found.problem,
        "warm": not found.problem and not found.cold,
        "cold_because": found.cold,
        "way": found.way,
    }


def _lines(found: Sequence[Probed]) -> Iterator[str]:
    rows = [("guarantee", *(one.name for one in found), "meaning")]
    for name, meaning in GUARANTEES.items():
        rows.append((name, *(_mark(one, name) for one in found), meaning))
    yield from aligned(rows)
    for one in found:
        if one.problem:
            yield f"{one.name} does not work: {one_line(one.problem)}"
        elif lacking := sorted(GRADING - one.guarantees):
            yield f"{one.name} is too weak for grading: it lacks {', '.join(lacking)}"
        elif one.cold:
            yield f"{one.name} grades in a fresh box each time: {one_line(one.cold)}"
        else:
            yield f"{one.name} keeps boxes warm for grading"
        if one.way:
            yield f"{one.name} reaches its boxes {one.way}"


def _timed(timed: Mapping[str, Mapping[str, object]], problems: Mapping[str, str]) -> Iterator[str]:
    columns = ("start_ms", "exec_ms")
    rows = [("backend", *(f"{name} {part}" for name in columns for part in _PARTS), "cycles_per_s")]
    for backend, found in timed.items():
        spans = [found[name] for name in columns]
        values = [span[part] for span in spans if isinstance(span, Mapping) for part in _PARTS]
        rows.append((backend, *(f"{value:.1f}" for value in values), str(found["cycles_per_s"])))
    yield from aligned(rows)
    yield from (f"{name} was left out: {one_line(text)}" for name, text in problems.items())


def _mark(found: Probed, name: str) -> str:
    return "-" if found.problem else "yes" if name in found.guarantees else "no"


def _reaped(removed: Mapping[str, Sequence[str]], problems: Mapping[str, str]) -> Iterator[str]:
    for backend, names in removed.items():
        yield from (f"removed {one_line(name)} ({backend})" for name in names)
    for backend, problem in problems.items():
        yield f"{backend}: {one_line(problem)}"
    count = sum(map(len, removed.values()))
    yield f"{count} boxes removed" if count != 1 else "1 box removed"
