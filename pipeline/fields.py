"""The fields of events, configurations, actions and results, which are stored as JSON and read back by any process."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import ComputedFieldInfo, FieldInfo

_SECRETS = (Secret, SecretBytes, SecretStr)


@dataclass(frozen=True, kw_only=True)
class Held:
    """One field, of a model or of what it holds."""

    of: type
    name: str
    types: tuple[type, ...]  # every class in its hint
    info: FieldInfo | ComputedFieldInfo | None  # None: it is no model's


def misfitting(error: ValidationError, *, at: tuple[str, ...] = (), most: int | None = 5, whole: str = "it") -> str:
    """The fields that do not fit, by their names and without a value: the first of them, and how many more."""
    places = [".".join(map(str, (*at, *fault["loc"]))) or whole for fault in error.errors()]
    named = list(dict.fromkeys(places))
    more = f" and {len(named[most:])} more" if most is not None and named[most:] else ""
    return ", ".join(named[:most]) + more


def check_kept(model: type[BaseModel]) -> None:
    """Refuse what is stored as something else, or not read back as it was stored. Raises TypeError."""
    for field in _held(model):
        if any(issubclass(one, _SECRETS) for one in field.types):
            raise TypeError(f"{_named(field)} would be stored as asterisks: secrets belong to provider connections")
        if isinstance(field.info, FieldInfo) and field.info.exclude:
            raise TypeError(f"{_named(field)} is excluded: it would not be stored, and so be its default in every run")
        if not _is_read_by_its_name(field):
            raise TypeError(
                f"{_named(field)} is stored under a name that it is not read by: "
                "an alias takes populate_by_name=True, and a computed field no extra='forbid'"
            )


def check_ordered(model: type[BaseModel]) -> None:
    """Refuse sets: processes write them in different orders, so what has one has no hash. Raises TypeError."""
    for field in _held(model):
        if any(issubclass(one, collections.abc.Set) for one in field.types):
            raise TypeError(f"{_named(field)} is a set, which has no order: use a tuple, sorted where that is the same")


def _named(field: Held) -> str:
    return f"{field.of.__name__}.{field.name}"


def _is_read_by_its_name(field: Held) -> bool:
    """Whether the name it is stored under is one that it is read by."""
    if field.info is None:
        return True
    config = field.of.model_config if issubclass(field.of, BaseModel) else {}
    if isinstance(field.info, ComputedFieldInfo):
        return config.get("extra") != "forbid"
    by_name = config.get("populate_by_name") or config.get("validate_by_name") or field.info.validation_alias is None
    written = field.info.serialization_alias if config.get("serialize_by_alias") else None
    if written is None or written == field.name:
        return bool(by_name)
    return written == field.info.validation_alias and config.get("validate_by_alias") is not False


def _held(model: type[BaseModel]) -> Iterator[Held]:
    """The fields of a model, and of the models, dataclasses and typed dicts in it."""
    seen: set[type] = set()
    left: list[type] = [model]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, (hint, info) in _own(one).items():
            field = Held(of=one, name=name, types=tuple(_types(hint)), info=info)
            left += field.types
            yield field


def _own(one: type) -> dict[str, tuple[Any, FieldInfo | ComputedFieldInfo | None]]:
    if issubclass(one, BaseModel):
        one.model_rebuild(raise_errors=False)  # what it names may have been defined after it
        own = {name: (info.annotation, info) for name, info in one.model_fields.items()}
        return own | {name: (info.return_type, info) for name, info in one.model_computed_fields.items()}
    if is_dataclass(one) or hasattr(one, "__total__"):  # a TypedDict, be it of typing or of typing_extensions
        return {name: (hint, None) for name, hint in get_type_hints(one, include_extras=True).items()}
    return {}


def _types(hint: Any) -> Iterator[type]:
    hint = getattr(hint, "__value__", hint)  # of a named alias
    origin = get_origin(hint)
    if origin is None:
        if isinstance(hint, type):
            yield hint
        return
    if isinstance(origin, type):
        yield origin
    for one in get_args(hint):
        yield from _types(one)
