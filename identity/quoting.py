"""What may be quoted of an answer: the name of an error, never what might be a token that it echoes."""

from __future__ import annotations

import re

# Letters in words: `invalid_grant`, `authentication error`, `ThrottlingException`. No token is made like that.
_NAME = re.compile(r"[A-Za-z]{1,24}(?:[ _.-][A-Za-z]{1,24}){0,7}")


def error_name(said: str) -> str:
    """*said*, if it looks like the name of an error."""
    return said if _NAME.fullmatch(said) else "an error that has no name"
