"""Checks on fields of events, configurations, actions and results, which must survive storage as JSON."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic.fields import ComputedFieldInfo, FieldInfo

_SECRETS = (Secret, SecretBytes, SecretStr)


@dataclass(frozen=True, kw_only=True)
class Held:
    """One field of a model, or of a type nested in it."""

    where: str  # for example `Opened.number`
    name: str
    types: tuple[type, ...]  # every class in its hint
    info: FieldInfo | ComputedFieldInfo | None  # None: not made by pydantic
    config: Mapping[str, Any]


def misfitting(error: ValidationError, *, at: tuple[str, ...] = (), most: int | None = 5, whole: str = "it") -> str:
    """Return the names, without values, of the first *most* invalid fields, and the count of the rest."""
    places = [".".join(map(str, (*at, *fault["loc"]))) or whole for fault in error.errors()]
    named = list(dict.fromkeys(places))
    more = f" and {len(named[most:])} more" if most is not None and named[most:] else ""
    return ", ".join(named[:most]) + more


def check_kept(model: type[BaseModel]) -> None:
    """Refuse fields that are stored as something else or not read back as stored. Raises TypeError."""
    for field in _held(model):
        if any(issubclass(one, _SECRETS) for one in field.types):
            raise TypeError(f"{field.where} would be stored as asterisks: secrets belong to provider connections")
        if isinstance(field.info, FieldInfo) and field.info.exclude:
            raise TypeError(f"{field.where} is excluded: it would not be stored, and so be its default in every run")
        if not _is_read_by_its_name(field):
            raise TypeError(
                f"{field.where} is stored under a name that it is not read by: "
                "an alias takes populate_by_name=True, and a computed field no extra='forbid'"
            )


def check_ordered(model: type[BaseModel]) -> None:
    """Refuse sets: processes write them in different orders, so their hash is not stable. Raises TypeError."""
    for field in _held(model):
        if any(issubclass(one, collections.abc.Set) for one in field.types):
            raise TypeError(f"{field.where} is a set, which has no order: use a tuple, sorted where that is the same")


def _is_read_by_its_name(field: Held) -> bool:
    """True if the field is read back under the name it is stored by."""
    info, config = field.info, field.config
    if info is None:
        return True
    if isinstance(info, ComputedFieldInfo):
        return config.get("extra") != "forbid"
    written = (info.serialization_alias if config.get("serialize_by_alias") else None) or field.name
    alias = info.validation_alias
    by_alias = config.get("validate_by_alias") is not False
    by_name = not by_alias or alias is None or config.get("populate_by_name") or config.get("validate_by_name")
    aliases: list[object] = [*alias.choices] if isinstance(alias, AliasChoices) else [alias]
    return (bool(by_name) and written == field.name) or (by_alias and written in aliases)


def _held(model: type[BaseModel]) -> Iterator[Held]:
    """Yield the fields of a model, and of the models, dataclasses and typed dicts in it."""
    seen: set[type] = set()
    left: list[type] = [model]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, (hint, info) in _own(one).items():
            types = tuple(_types(hint, set()))
            field = Held(where=f"{one.__name__}.{name}", name=name, types=types, info=info, config=_config(one))
            left += field.types
            yield field


def _own(one: type) -> dict[str, tuple[Any, FieldInfo | ComputedFieldInfo | None]]:
    if issubclass(one, BaseModel):
        one.model_rebuild(raise_errors=False)  # resolves references to classes defined later
        own = {name: (info.annotation, info) for name, info in one.model_fields.items()}
        return own | {name: (info.return_type, info) for name, info in one.model_computed_fields.items()}
    # TypedDict (from typing or typing_extensions) or NamedTuple.
    if is_dataclass(one) or hasattr(one, "__total__") or (issubclass(one, tuple) and hasattr(one, "_fields")):
        infos = getattr(one, "__pydantic_fields__", {})  # of a pydantic dataclass
        return {name: (hint, infos.get(name)) for name, hint in get_type_hints(one, include_extras=True).items()}
    return {}


def _config(one: type) -> Mapping[str, Any]:
    if issubclass(one, BaseModel):
        return one.model_config
    config: Mapping[str, Any] = getattr(one, "__pydantic_config__", {})
    return config


def _types(hint: Any, aliases: set[Any]) -> Iterator[type]:
    """Yield every class in a hint. *aliases* holds the type aliases already expanded, since they may be recursive."""
    if hasattr(hint, "__value__") and hint not in aliases:
        aliases.add(hint)
        yield from _types(hint.__value__, aliases)
    origin = get_origin(hint)
    if origin is None:
        if isinstance(hint, type):
            yield hint
        return
    if isinstance(origin, type):
        yield origin
    for one in get_args(hint):
        yield from _types(one, aliases)
