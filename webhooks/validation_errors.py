"""Validation errors in JSON's terms: the reader may be a model, which then corrects its call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_MOST = 20
_ARRAYS = frozenset({"tuple_type", "list_type", "iterable_type"})
_OBJECTS = frozenset({"dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"})
_BOUNDS: Mapping[str, tuple[str, str]] = {"too_short": ("least", "min_length"), "too_long": ("most", "max_length")}


def misfits(error: ValidationError, *within: str, model: type[BaseModel] | None = None) -> list[dict[str, str]]:
    """Return the first places where something did not fit and why, never with the value.

    *within*: the path of the validated object in the request. *model*: what it did not fit, for naming valid fields.
    """
    found = error.errors(include_url=False)[:_MOST]
    return [{"where": _where(*within, *one["loc"]), "why": _why(one, model)} for one in found]


def left_out(error: ValidationError, model: type[BaseModel], sent: Mapping[str, Any]) -> set[str]:
    """Return the fields that were sent as null, refused, and have a default: models write null for omitted fields.

    Only top-level nulls count: a null inside a sent value was meant.
    """
    refused = {str(one["loc"][0]) for one in error.errors(include_url=False) if one["loc"]}
    nulls = {name for name in refused if name in sent and sent[name] is None}
    return {name for name in nulls if name in model.model_fields and not model.model_fields[name].is_required()}


def _where(*places: str | int) -> str:
    """Join path parts, each truncated: unknown names are the sender's, and of any length."""
    return ".".join(str(place)[:50] for place in places)


def _why(error: ErrorDetails, model: type[BaseModel] | None) -> str:
    said = _in_json(error)
    if model is None or len(error["loc"]) != 1:
        return said
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        there = ", ".join(model.model_fields) or "none"
        return f"There is no such parameter: there are {there}"
    about = model.model_fields[name].description if name in model.model_fields else None
    return f"{said}. It is: {about}" if about else said


def _in_json(error: ErrorDetails) -> str:
    """Return pydantic's message, except those that speak of Python types."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _ARRAYS:
        return _wanted("array", error["input"])
    if kind in _OBJECTS:
        return _wanted("object", error["input"])
    if kind in _BOUNDS:
        word, bound = _BOUNDS[kind]
        return f"Array should have at {word} {context[bound]} items"
    if kind == "extra_forbidden":
        return "Nothing here has that name: leave it out"
    return error["msg"]


def _wanted(what: str, sent: Any) -> str:
    said = f"Input should be a JSON {what}"
    return f"{said}, and this is a string: if it is JSON, parse it first" if isinstance(sent, str) else said
