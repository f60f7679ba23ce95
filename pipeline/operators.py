"""Names of operators in audit rows, receipts and jobs: of API callers, and of people of the console."""

from __future__ import annotations

import re
from collections.abc import Sequence

from identity.agents.api_keys import Caller

_BY_API = "api:"


def api_operator(caller: Caller) -> str:
    """Return the name of an API caller in audit rows and receipts."""
    return f"{_BY_API}{caller.agent}:{caller.key}"


def key_of_operator(by: str) -> str | None:
    """Return the key in *by*, a name by `api_operator`; None if the operator used no key."""
    return by.rpartition(":")[2] if by.startswith(_BY_API) else None


def names_of(by: str, subject: str | None) -> tuple[str, ...]:
    """Return every name by which an alias may identify an operator, including the one they gave themselves."""
    if subject is None:
        return (by,)
    known = f"console:{subject}"
    given = by.removeprefix(f"{known} (")
    return (by, known) if given == by else (by, known, f"console:{given.removesuffix(')')}")


def names_of_revoker(by: str, barred: Sequence[str] | None) -> tuple[str, ...]:
    """Return every name of a revoker, from what their revocation has stored. A key is nobody's name."""
    if key_of_operator(by) is not None:
        return tuple(barred or ())
    if barred is None and by.startswith("console:") and by.endswith(")"):  # from before the names were stored
        named = by.removesuffix(")")
        # Subject and name may contain brackets. Every split counts: a name too many is safer than a missing one.
        splits = (part for at in re.finditer(r" \(", named) for part in (named[: at.start()], named[at.end() :]))
        return tuple(dict.fromkeys((by, *splits)))
    return (by, *(barred or ()))
