"""The fields of events, configurations, actions and results, which are stored as JSON and read back by any process."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, kw_only=True)
class Held:
    """One field, of a model or of what it holds."""

    of: type
    name: str
    types: tuple[type, ...]  # every class in its hint
    info: FieldInfo | None  # None: it is no model's


def check_ordered(model: type[BaseModel]) -> None:
    """Refuse sets: processes write them in different orders, so what has one has no hash. Raises TypeError."""
    for field in _held(model):
        if any(issubclass(one, collections.abc.Set) for one in field.types):
            raise TypeError(f"{_named(field)} is a set, which has no order: use a tuple, sorted where that is the same")


def _named(field: Held) -> str:
    return f"{field.of.__name__}.{field.name}"


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


def _own(one: type) -> dict[str, tuple[Any, FieldInfo | None]]:
    if issubclass(one, BaseModel):
        one.model_rebuild(raise_errors=False)  # what it names may have been defined after it
        return {name: (info.annotation, info) for name, info in one.model_fields.items()}
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
