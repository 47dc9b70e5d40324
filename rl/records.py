"""Records as JSON text, as the journal keeps them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, RootModel

from palestra.rl.types import Judgement, Trajectory

T = TypeVar("T", Trajectory, Judgement)


def dump(record: Trajectory | Judgement) -> str:
    """JSON with non-finite numbers kept; half a surrogate pair, which UTF-8 cannot hold, is "?"."""
    kind: Any = type(record)
    plain = _model(kind)(record).model_dump(mode="json")
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="replace").decode()


def load(text: str, kind: type[T]) -> T:
    """What ``dump`` wrote; raises ``ValueError`` for anything else."""
    known: Any = kind
    record: T = _model(known).model_validate_json(text).root
    return record


@cache
def _model(kind: Any) -> Any:
    class Record(RootModel[kind]):
        model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    return Record
