"""Parsing of a page's only form, as a browser would submit it, for provider pages and our own."""

from __future__ import annotations

import re
from html import unescape

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')
_ACTION = re.compile(r'<form method="post" action="([^"]+)">')


def action(page: str) -> str | None:
    """Return the form's action URL, or None."""
    found = _ACTION.search(page)
    return unescape(found[1]) if found else None


def hidden(page: str) -> dict[str, str]:
    """Return the form's hidden fields."""
    return {unescape(name): unescape(value) for name, value in _HIDDEN.findall(page)}
