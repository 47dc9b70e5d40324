"""EvalPlus records: HumanEval and MBPP with many more inputs, but without their outputs.

What is expected is what the reference returns. It is computed beside the tests, in the process that
the candidate cannot reach, so the reference is part of the hidden check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from palestra.envs.rows import BadRow, text_field
from palestra.rl.types import Json, ScriptCheck

CHECK_S = 20.0
"""Seconds for up to a thousand inputs, of the candidate and of the reference (our default)."""

_RELATIVE = 1e-7
"""What EvalPlus allows relative to a value where ``atol`` is not 0 or the values are floats."""

_TEST = """\
import copy as _copy, json as _json, math as _math
_space = {{"__name__": "reference"}}
exec({reference!r}, _space)
_atol = {atol!r}

def _same(wanted, got):
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted == got
    if isinstance(wanted, float) or _atol and isinstance(wanted, int):
        if not isinstance(got, (int, float)):
            return False
        if _math.isnan(wanted):
            return _math.isnan(got)
        return _math.isclose(wanted, got, rel_tol={relative!r}, abs_tol=_atol or 1e-6)
    if isinstance(wanted, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(wanted) == len(got) and all(map(_same, wanted, got))
    return wanted == got

for _inputs in _json.loads({inputs!r}):
    _got = _candidate(*_copy.deepcopy(_inputs))
    {compare}
"""
_EQUAL = "assert _same(_space[{entry!r}](*_copy.deepcopy(_inputs)), _got)"
# Any root will do, so its record has the polynomial to try it with.
_ROOT = "assert abs(_space['poly'](*_copy.deepcopy(_inputs), _got)) <= (_atol or 1e-6)"


def extra_checks(row: Mapping[str, Json], *, name: str, module: str) -> Iterator[ScriptCheck]:
    """A check of the ``base_input`` and one of the ``plus_input`` of a record; none without these
    fields. Raises ``BadRow``."""
    atol = row.get("atol") or 0
    if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol <= 1:
        raise BadRow("field atol: not a number from 0 to 1")
    if row.get("contract") is not None:
        text_field(row, "contract")  # says which inputs are valid; those published are
    for field in ("base_input", "plus_input"):
        inputs = row.get(field)
        if inputs is None or inputs == []:
            continue
        if not isinstance(inputs, list) or not all(isinstance(item, list) for item in inputs):
            raise BadRow(f"field {field}: not a list of lists of arguments")
        entry = text_field(row, "entry_point")
        reference = text_field(row, "prompt") + text_field(row, "canonical_solution")
        root = entry == "find_zero" and "def poly" in reference
        code = _TEST.format(
            reference=reference,
            atol=float(atol),
            relative=_RELATIVE,
            inputs=json.dumps(inputs),
            compare=_ROOT if root else _EQUAL.format(entry=entry),
        )
        yield ScriptCheck(
            id=f"{name}#{field.removesuffix('_input')}",
            module=module,
            names=(entry,),
            code=f"_candidate = {entry}\n{code}",
        )
