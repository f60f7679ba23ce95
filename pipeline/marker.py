"""The marker of content made by our steps: an HTML comment, which upstreams keep but do not display."""

from __future__ import annotations

import re

_AT_THE_END = re.compile(r"^<!-- aswhom:[0-9a-f]{32} -->\s*\Z", re.MULTILINE)


def marker_of(digest: bytes) -> str:
    """Return the marker of the step with that hash."""
    return f"<!-- aswhom:{digest.hex()[:32]} -->"


def is_marked(text: str) -> bool:
    """True if one of our steps made this text, under any name: the marker is the last line, where we put it.

    A person's reply by mail may quote the marker elsewhere.
    """
    return _AT_THE_END.search(text) is not None
