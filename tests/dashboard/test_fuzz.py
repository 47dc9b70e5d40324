"""Every route under random requests: none fails inside, each keeps to its own description."""

from __future__ import annotations

from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
EXAMPLES = 5
NO_END = "/api/events"


def test_every_route(tiny: Path, server: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server}/api/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == NO_END:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            if "run" in (case.path_parameters or {}):
                case.path_parameters["run"] = "tiny"
            case.call_and_validate(checks=CHECKS)

        check()
        tried += 1
    assert tried >= 12
