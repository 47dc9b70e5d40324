"""Recipe files: read, overridden by ``--set``, checked, explained and written back.

Values are validated strictly (``"5"`` is no integer); every error is one line that names the file
or ``--set``, the key, and what would be right.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tomli_w
from pydantic import ValidationError

from palestra.deploy.config import RunConfig
from palestra.deploy.toml_lines import key_lines
from palestra.rl.errors import UserError
from palestra.rl.settings import Settings

OVERRIDE = "--set"
DEFAULT = "default"

# Names used elsewhere for keys of ours; used for suggestions only.
SYNONYMS = {
    "batch_size": "rl.train_batch_size",
    "eval_freq": "rl.eval.freq",
    "group_size": "rl.n_samples_per_prompt",
    "learning_rate": "policy.learner.lr",
    "max_steps": "rl.steps",
    "max_tokens": "rollout.max_response_length",
    "model_path": "policy.model",
    "num_generations": "rl.n_samples_per_prompt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A checked configuration, and where each value comes from.

    Example: ``Resolved(config=config, sources={"rl.steps": "--set", "seed":
    "recipes/tiny.toml:3", "rl.temperature": "default", ...})``
    """

    config: RunConfig
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDoc:
    """One key as documents show it, and what its section is about.

    Example: ``KeyDoc(key="rl.steps", type="int", default=40, doc="Optimizer steps; ...",
    section="The loop: ...")``
    """

    key: str
    type: str
    default: object
    doc: str
    section: str


def load_recipe(path: str | Path | None, overrides: Sequence[str] = ()) -> Resolved:
    """Read a recipe and put the overrides (``key=value``) on top; raises ``UserError``.

    Without a path, the overrides are put on the defaults.
    """
    text = "" if path is None else _read(path)
    data = _parse(path, text)
    lines = key_lines(text)
    where = {key: f"{path}:{lines[key]}" if key in lines else str(path) for key in _leaves(data)}
    for override in overrides:
        key, value = _override(override)
        _put(data, key, value)
        where = {k: v for k, v in where.items() if not k.startswith(f"{key}.")}
        where[key] = OVERRIDE
    config = _validate(data, str(path), where)
    return Resolved(config=config, sources={key: _source(key, where) for key in flatten(config)})


def dump(config: RunConfig) -> str:
    """TOML of every value; reading it gives the same configuration again."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def flatten(config: RunConfig) -> dict[str, object]:
    """Dotted key -> value, in the order of the models."""
    return dict(_values(config))


def describe_keys() -> Iterator[KeyDoc]:
    """Every key with its type, default and docstring; one that several kinds of a section have,
    such as the objectives, once for each."""
    for key, model, name in _walk(RunConfig):
        field = model.model_fields[name]
        yield KeyDoc(
            key=key,
            type=type_name(field.annotation),
            default=None if field.is_required() else field.get_default(),
            doc=" ".join((field.description or "").split()),
            section=" ".join((model.__doc__ or "").split()),
        )


def type_name(annotation: Any) -> str:
    """A type as a person writes it: ``int``, ``"auto" | "bubblewrap"``, ``list[str]``."""
    if annotation is type(None):
        return "None"
    if get_origin(annotation) is Literal:
        return " | ".join(json.dumps(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(type_name, get_args(annotation)))
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    if get_origin(annotation) is dict:
        return f"dict[{', '.join(map(type_name, get_args(annotation)))}]"
    return str(annotation).replace("typing.", "")


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such recipe; see recipes/") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {reason}") from error


def _parse(path: str | Path | None, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error


def _override(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(
            f"{OVERRIDE} {text}: write {OVERRIDE} key=value, e.g. {OVERRIDE} rl.steps=20"
        )
    if not _known(key):
        raise UserError(_unknown(OVERRIDE, key))
    return key, _value(key, value.strip())


def _value(key: str, text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"] if list(parsed) == ["value"] else text
    if _is_text(key) and not isinstance(value, str):
        return text  # name=2024 means the name "2024"
    return value


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        data = inner if isinstance(inner, dict) else data.setdefault(section, {})
    data[last] = value


def _validate(data: dict[str, Any], path: str, where: Mapping[str, str]) -> RunConfig:
    try:
        # As JSON, so that lists may stand for tuples although the check is strict.
        return RunConfig.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key, kind = _key_of(first["loc"])
        place = OVERRIDE if _source(key, where) == OVERRIDE else path
        if first["type"] == "extra_forbidden" and key in _keys():
            raise UserError(f"{place}: {key} is no key of {kind}") from error
        if first["type"] == "extra_forbidden":
            raise UserError(_unknown(place, key)) from error
        expected = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        expected = expected.replace("an object", "a table")
        what = f"{key} = {json.dumps(first['input'], default=str)}"
        if isinstance(first["input"], dict) and first["type"] == "value_error":
            what = key or "recipe"  # keys of a table that do not go together, which the text names
        raise UserError(f"{place}: {what}: {expected[0].lower()}{expected[1:]}") from error


def _unknown(place: str, key: str) -> str:
    nearest = _nearest(key)
    hint = f"did you mean {nearest}?" if nearest else "palestra config RECIPE lists every key"
    return f"{place}: unknown key {key}; {hint}"


def _nearest(key: str) -> str | None:
    known = _keys()
    sections = {k.rpartition(".")[0] for k in known} - {""}
    last = key.rpartition(".")[2]
    same_name = [k for k in (*sections, *known) if k.rpartition(".")[2] == last]
    if last in SYNONYMS:
        return SYNONYMS[last]
    close = difflib.get_close_matches(key, same_name or (*known, *sections), n=1, cutoff=0.0)
    if same_name or (close and difflib.SequenceMatcher(None, key, close[0]).ratio() >= 0.7):
        return close[0]
    by_name = {k.rpartition(".")[2]: k for k in known}
    names = difflib.get_close_matches(last, by_name, n=1)
    return by_name[names[0]] if names else None


def _known(key: str) -> bool:
    """True for a key, a section, and a name inside a table-valued key."""
    for known, model, name in _walk(RunConfig):
        if known == key or known.startswith(f"{key}."):
            return True
        if key.startswith(f"{known}.") and get_origin(model.model_fields[name].annotation) is dict:
            return True
    return False


def _is_text(key: str) -> bool:
    for known, model, name in _walk(RunConfig):
        if known == key:
            kind = model.model_fields[name].annotation
            return kind is str or (str in get_args(kind) and get_origin(kind) not in (list, dict))
    return False


def _source(key: str, where: Mapping[str, str]) -> str:
    """Where a key's value comes from: it, a section around it or a name inside it was given."""
    related = [k for k in where if k == key or k.startswith(f"{key}.") or key.startswith(f"{k}.")]
    found = [where[k] for k in related]
    return OVERRIDE if OVERRIDE in found else found[0] if found else DEFAULT


def _keys() -> list[str]:
    return list(dict.fromkeys(key for key, _, _ in _walk(RunConfig)))


def _walk(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, type[Settings], str]]:
    for name, field in model.model_fields.items():
        kinds = _kinds(field.annotation)
        for kind in kinds:
            yield from _walk(kind, f"{prefix}{name}.")
        if not kinds:
            yield f"{prefix}{name}", model, name
        for kind in _kinds_inside(field.annotation):
            yield from _walk(kind, f"{prefix}{name}.NAME.")


def _kinds(annotation: Any) -> list[type[Settings]]:
    """What a section may be: one model, or several that its ``name`` chooses from."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        found = [kind for part in get_args(annotation) for kind in _kinds(part)]
        return list(dict.fromkeys(found))
    is_section = isinstance(annotation, type) and not get_args(annotation)
    return [annotation] if is_section and issubclass(annotation, Settings) else []


def _kinds_inside(annotation: Any) -> list[type[Settings]]:
    """What the tables of a table are whose names a recipe chooses."""
    return _kinds(get_args(annotation)[1]) if get_origin(annotation) is dict else []


def _key_of(path: Sequence[str | int]) -> tuple[str, str]:
    """The key of an error as a recipe writes it, and which of several kinds its section is:
    pydantic puts the kind's name behind the section."""
    kinds: list[type[Settings]] = [RunConfig]
    parts, chosen = [], ""
    for part in map(str, path):
        if len(kinds) > 1:
            kinds = [k for k in kinds if part in get_args(k.model_fields["name"].annotation)]
            chosen = part
            continue
        parts.append(part)
        fields = [kind.model_fields[part] for kind in kinds if part in kind.model_fields]
        kinds = [kind for field in fields for kind in _kinds(field.annotation)]
    return ".".join(parts), chosen


def _values(settings: Settings, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _values(value, f"{prefix}{name}.")
        elif value and _kinds_inside(type(settings).model_fields[name].annotation):
            for inside, table in value.items():
                yield from _values(table, f"{prefix}{name}.{inside}.")
        else:
            yield f"{prefix}{name}", value


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
