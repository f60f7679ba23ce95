"""What may be quoted of an answer: the name of an error, never what might be a token; and what a ledger can keep."""

from __future__ import annotations

import re

# Letters in words: `invalid_grant`, `authentication error`, `ThrottlingException`. No token is made like that.
_NAME = re.compile(r"[A-Za-z]{1,24}(?:[ _.-][A-Za-z]{1,24}){0,7}")

# The same, as a sentence: words of letters alone, with what stands between and around words.
_WORD = r"[(`'\"]?[A-Za-z]{1,24}(?:['/-][A-Za-z]{1,24}){0,3}[.,:;!?)`'\"]{0,2}"
_SENTENCE = re.compile(rf"{_WORD}(?: {_WORD}){{0,40}}")

# A text column of PostgreSQL takes no NUL, and UTF-8 no half of a surrogate pair: JSON can spell both.
_UNKEPT = re.compile(r"[\0\ud800-\udfff]")


def is_name(said: str) -> bool:
    """Whether it looks like the name of an error, or of what has one."""
    return _NAME.fullmatch(said) is not None


def error_name(said: str) -> str:
    """*said*, if it looks like the name of an error."""
    return said if is_name(said) else "an error that has no name"


def sentence(said: str) -> str | None:
    """*said*, if it looks like a sentence in plain words; None: it may hold what nobody should read."""
    return said if len(said) <= 200 and _SENTENCE.fullmatch(said) else None


def quoted(sentence: str) -> str:
    """A `sentence` as another's words, which an agent's model may read beside ours: none can end the quotation."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{sentence.rstrip('.')}\N{RIGHT DOUBLE QUOTATION MARK}"


def kept(said: str, *, longest: int = 200) -> str:
    """*said*, which may be of any length, as much of it as a text column of the ledger keeps."""
    return _UNKEPT.sub("\ufffd", said[:longest])
