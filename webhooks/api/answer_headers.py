"""Response headers of the API, as its document describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TEXT = {"type": "string"}

HEADERS: Mapping[str, Mapping[str, Any]] = {
    "Request-Id": {"description": "Id of the request in the log", "schema": _TEXT},
    "RateLimit-Policy": {
        "description": "Rate limit of the key, if one was accepted: requests per window in seconds "
        "(draft-ietf-httpapi-ratelimit-headers)",
        "schema": _TEXT,
    },
    "RateLimit": {"description": "Requests left in the window, and seconds until it resets", "schema": _TEXT},
    "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "What is wrong with the key, if one was sent (RFC 6750 §3)", "schema": _TEXT},
    "ETag": {"description": "Version of the catalogue, for If-None-Match", "schema": _TEXT},
    "Location": {"description": "Path of the job or revocation", "schema": _TEXT},
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
