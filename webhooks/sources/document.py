"""Strict parsing of untrusted JSON and forms: UTF-8, an object, shallow, no duplicate keys, only finite numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, NoReturn
from urllib.parse import parse_qs

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MAX_DEPTH = 64
MAX_FIELDS = 100


class Malformed(Exception):
    """The body does not match its content type; the message never quotes it."""


def from_json(body: bytes | str) -> dict[str, Any]:
    """Return the object in *body*. Raises Malformed."""
    try:
        text = body.decode("utf-8") if isinstance(body, bytes) else body
        document = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        raise Malformed(f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # from None: the decoder's error carries the document
        raise Malformed("the body is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed("the JSON is not an object")
    if _is_deeper_than(MAX_DEPTH, document):
        raise Malformed(f"the JSON is nested deeper than {MAX_DEPTH} levels")
    return document


def is_form(body: bytes, fields: Collection[str]) -> bool:
    """True if the body is one of the sender's forms, starting with one of these *fields*, and not JSON.

    The body decides because it is signed. The content type is not signed: a signed body could be replayed under
    another.
    """
    name, equals, _ = body.partition(b"=")
    return bool(equals) and name.decode("latin-1") in fields


def check_content_type(content_type: str, *, form: bool) -> None:
    """Raise Malformed if the content type contradicts the body."""
    if (content_type.partition(";")[0].strip().lower() == FORM) is not form:
        raise Malformed("the body is not of its content type")


def from_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form (application/x-www-form-urlencoded). Raises Malformed."""
    try:
        fields = parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise Malformed("the body is not a form") from None
    if any(len(values) > 1 for values in fields.values()):
        raise Malformed("the form has a field twice")
    return {name: values[0] for name, values in fields.items()}


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259 §4: parsers differ on which duplicate counts, so accept neither.
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Malformed("the JSON has a key twice in one object")
    return document


def _no_constant(_: str) -> NoReturn:
    raise Malformed("the JSON has NaN or Infinity, which are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed("the JSON has a number too large to hold")
    return number


def _is_deeper_than(limit: int, document: Any) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
