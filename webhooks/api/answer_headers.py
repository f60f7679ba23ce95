"""Response headers of the API, as its document describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TEXT = {"type": "string"}

HEADERS: Mapping[str, Mapping[str, Any]] = {
    "Request-Id": {"description": "What the log calls the request", "schema": _TEXT},
    "RateLimit-Policy": {
        "description": "How many requests the key may make in how many seconds, where the key counts "
        "(draft-ietf-httpapi-ratelimit-headers)",
        "schema": _TEXT,
    },
    "RateLimit": {"description": "How many of them are left, for how many seconds", "schema": _TEXT},
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "What is wrong with the key, if one was sent (RFC 6750 §3)", "schema": _TEXT},
    "ETag": {"description": "Of the catalogue, for If-None-Match", "schema": _TEXT},
    "Location": {"description": "The path of what was made", "schema": _TEXT},
}

_OF_ALL = ("Request-Id", "RateLimit-Policy", "RateLimit")
_BY_STATUS: Mapping[str, tuple[str, ...]] = {
    "401": ("WWW-Authenticate",),
    "403": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
_BY_OPERATION: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("list_tools", "200"): ("ETag",),
    ("list_tools", "304"): ("ETag",),
    ("execute_tool", "200"): ("Location",),
    ("execute_tool", "202"): ("Location", "Retry-After"),
    ("show_job", "200"): ("Retry-After",),
    ("create_revocation", "201"): ("Location",),
}


def with_headers(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return *paths* with each response's headers described."""
    return {
        path: {method: {**told, "responses": dict(_answers(told))} for method, told in item.items()}
        for path, item in paths.items()
    }


def _answers(operation: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for status, answer in operation["responses"].items():
        of_it = _BY_OPERATION.get((operation["operationId"], status), ())
        named = (*_OF_ALL, *_BY_STATUS.get(status, ()), *of_it)
        yield status, {**answer, "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in named}}
