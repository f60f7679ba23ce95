"""The marker that tells what a step of ours made: an HTML comment, which an upstream keeps and does not show."""

from __future__ import annotations

import re

_MARKER = re.compile(r"<!-- aswhom:[0-9a-f]{32} -->")


def marker_of(digest: bytes) -> str:
    """The marker of the step with that hash."""
    return f"<!-- aswhom:{digest.hex()[:32]} -->"


def is_marked(text: str) -> bool:
    """Whether some step of ours made this, whoever's name it bears."""
    return _MARKER.search(text) is not None
