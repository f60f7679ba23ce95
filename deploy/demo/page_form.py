"""The one form of a page, as a browser fills it in: of the pretend providers' pages, and of our own."""

from __future__ import annotations

import re
from html import unescape

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')
_ACTION = re.compile(r'<form method="post" action="([^"]+)">')


def action(page: str) -> str | None:
    """Where its form is sent; None: it has none that says."""
    found = _ACTION.search(page)
    return unescape(found[1]) if found else None


def hidden(page: str) -> dict[str, str]:
    """What its form carries without being asked."""
    return {unescape(name): unescape(value) for name, value in _HIDDEN.findall(page)}
