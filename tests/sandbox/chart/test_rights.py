"""The driver's account may do exactly what ``sandbox/kubernetes*.py`` asks the API server for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox import kubernetes_lease as leases

SOURCES = Path(cluster.__file__).parent.glob("kubernetes*.py")
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
VARIABLES = {
    ("kubernetes_life", "path"): [f"{leases.LEASES}/NAME"],
    ("kubernetes_pool", "path"): [claims.TEMPLATES, claims.POOLS],
}
"""What paths that stand in a variable are."""


class Right(NamedTuple):
    group: str
    resource: str
    verb: str


def test_what_the_code_asks_for_is_what_is_granted() -> None:
    asked = {
        right
        for file in SOURCES
        # It runs as an account of its own.
        if file.stem != "kubernetes_reaper"
        for right in asked_by(file)
    }
    [role] = [
        one
        for one in cluster.access("boxes")
        if one["kind"] == "Role" and one["metadata"]["name"] == cluster.DRIVER_ACCOUNT
    ]
    granted = {
        Right(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert asked == granted


def asked_by(file: Path) -> Iterator[Right]:
    """The rights that the calls in a file need."""
    module = importlib.import_module(f"palestra.sandbox.{file.stem}")
    for call in ast.walk(ast.parse(file.read_text())):
        match call:
            case ast.Call(
                func=ast.Attribute(attr="now" | "call"),
                args=[ast.Constant(value=str(method)), path, *_],
            ):
                for text in paths(path, module):
                    yield from rights(method, text)
            # A websocket is a GET to some API servers and "create" to others.
            case ast.Call(func=ast.Attribute(attr="_opened"), args=[_, path, *_]):
                for text in paths(path, module):
                    yield from (right for one in ("GET", "POST") for right in rights(one, text))
            # To the agent of a box, through the API server.
            case ast.Call(
                func=ast.Attribute(attr="_asked"), args=[ast.Constant(value=str(method)), *_]
            ):
                yield from rights(method, "pods/NAME/proxy")


def paths(node: ast.expr, module: ModuleType) -> list[str]:
    """What the path of a call may be, with NAME for what is only known later."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(known(part, module) for part in parts)]
        case ast.Name(id=name) if name not in vars(module):
            return VARIABLES[module.__name__.rpartition(".")[2], name]
    return [str(eval(ast.unparse(node), vars(module)))]


def known(part: ast.expr, module: ModuleType) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    try:
        return str(eval(ast.unparse(part.value), vars(module)))
    except (NameError, AttributeError):
        return "NAME"


def rights(method: str, path: str) -> Iterator[Right]:
    """The right that a request needs; what the API server tells everybody of itself needs none."""
    if path.startswith("/apis/"):
        return
    version, _, rest = path.rpartition(":")
    resource, name, *sub = [*rest.split("/"), ""]
    verb = VERBS.get(method, "get" if name else "list")
    yield Right(version.partition("/")[0], "/".join([resource, *filter(None, sub)]), verb)
