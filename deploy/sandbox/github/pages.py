"""Paginated lists with GitHub's Link header."""

from collections.abc import Sequence
from typing import Any

from flask import Response, jsonify, request


def page_of(rows: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    """Return the rows of the requested page, and the headers that link to the other pages."""
    size = min(max(request.args.get("per_page", 30, type=int), 1), 100)
    number = max(request.args.get("page", 1, type=int), 1)
    last = max(1, -(-len(rows) // size))
    links = []
    if number < last:
        links = [_link(number + 1, "next"), _link(last, "last")]
    if number > 1:
        links += [_link(number - 1, "prev"), _link(1, "first")]
    return rows[(number - 1) * size : number * size], {"Link": ", ".join(links)} if links else {}


def listed(rows: Sequence[Any]) -> Response:
    chosen, headers = page_of(rows)
    answer = jsonify(chosen)
    answer.headers.update(headers)
    return answer


def listed_from_cursor(rows: Sequence[dict[str, Any]]) -> Response:
    """List as GitHub lists deliveries: from the `cursor` on, without page numbers."""
    size = min(max(request.args.get("per_page", 30, type=int), 1), 100)
    first = request.args.get("cursor", rows[0]["id"] if rows else 0, type=int)
    left = [row for row in rows if row["id"] <= first]
    answer = jsonify(left[:size])
    if len(left) > size:
        answer.headers["Link"] = f'<{request.base_url}?per_page={size}&cursor={left[size]["id"]}>; rel="next"'
    return answer


def _link(number: int, relation: str) -> str:
    arguments = "&".join(f"{name}={value}" for name, value in request.args.items() if name != "page")
    return f'<{request.base_url}?{arguments}{"&" if arguments else ""}page={number}>; rel="{relation}"'
