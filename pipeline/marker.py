"""The marker that tells what a step of ours made: an HTML comment, which an upstream keeps and does not show."""

from __future__ import annotations

import re

_AT_THE_END = re.compile(r"^<!-- aswhom:[0-9a-f]{32} -->\s*\Z", re.MULTILINE)


def marker_of(digest: bytes) -> str:
    """The marker of the step with that hash."""
    return f"<!-- aswhom:{digest.hex()[:32]} -->"


def is_marked(text: str) -> bool:
    """Whether some step of ours made this, whoever's name it bears: the marker is its last line, where we put it.

    A person's reply by mail quotes what it answers, marker and all.
    """
    return _AT_THE_END.search(text) is not None
