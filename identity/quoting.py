"""Safe quotation of provider answers: names of errors, never a possible token; and text that a ledger can store."""

from __future__ import annotations

import re

# Words of letters: `invalid_grant`, `authentication error`, `ThrottlingException`. No token looks like that.
_NAME = re.compile(r"[A-Za-z]{1,24}(?:[ _.-][A-Za-z]{1,24}){0,7}")

# The same as a sentence: words made only of letters, and the punctuation around them.
_WORD = r"[(`'\"]?[A-Za-z]{1,24}(?:['/-][A-Za-z]{1,24}){0,3}[.,:;!?)`'\"]{0,2}"
_SENTENCE = re.compile(rf"{_WORD}(?: {_WORD}){{0,40}}")

# PostgreSQL's text type takes no NUL, and UTF-8 no lone surrogate. JSON can spell both.
_UNKEPT = re.compile(r"[\0\ud800-\udfff]")


def is_name(said: str) -> bool:
    """True if it looks like the name of an error, or of something that has one."""
    return _NAME.fullmatch(said) is not None


def error_name(said: str) -> str:
    """Return *said* if it looks like the name of an error, or a placeholder."""
    return said if is_name(said) else "an error that has no name"


def sentence(said: str) -> str | None:
    """Return *said* if it looks like a sentence in plain words; None if it may hold something confidential."""
    return said if len(said) <= 200 and _SENTENCE.fullmatch(said) else None


def quoted(sentence: str) -> str:
    """Return a `sentence` quoted as another's words, for an agent's model to read beside ours.

    It cannot end the quotation.
    """
    return f"\N{LEFT DOUBLE QUOTATION MARK}{sentence.rstrip('.')}\N{RIGHT DOUBLE QUOTATION MARK}"


def kept(said: str, *, longest: int = 200) -> str:
    """Return as much of *said*, which may be of any length, as a text column of the ledger can store."""
    return _UNKEPT.sub("\ufffd", said[:longest])
