"""Routing of operator-defined senders to workflows: by sender name and by an event field of the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from identity.errors import Misconfigured
from pipeline.approvals.news import SOURCE as OURS
from webhooks.sources.document import Malformed

UNTYPED = "untyped"
RESERVED = frozenset({"github", "linear", "slack", OURS})  # a stranger's body must not pass for theirs

_SENDER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_EVENT = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


def listened_as(config: Mapping[str, str]) -> str:
    """Return the name by which workflows know the sender; empty: the source's name. Raises Misconfigured."""
    sender = config.get("sender", "")
    if sender in RESERVED:
        raise Misconfigured(f"sender={sender} would pass for {sender} itself: choose another name")
    if sender and not _SENDER.fullmatch(sender):
        raise Misconfigured("sender= takes up to 32 of a-z, 0-9, _ and -, and begins with a letter")
    return sender


def only(config: Mapping[str, str], *known: str) -> None:
    """Raise Misconfigured for unknown settings, since a misspelt one would have no effect."""
    if unknown := sorted(set(config) - set(known)):
        raise Misconfigured(f"it has no setting {', '.join(unknown)}: it takes {', '.join(known)}")


def at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None."""
    found: Any = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def event_of(document: Mapping[str, Any], path: str) -> str:
    """Return the event that the body names at *path*; `untyped` if it names none. Raises Malformed."""
    named = at(document, path)
    if named is None:
        return UNTYPED
    if not isinstance(named, str) or not _EVENT.fullmatch(named):
        raise Malformed(f"its {path} is not the name of an event")
    return named
