"""Connect links: a session's id with this installation's signature, so that a copy of the ledger makes none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.keys.signing import Signer


@dataclass(frozen=True, kw_only=True)
class ConnectLink:
    """What is given to a person: good once, in one browser, to be opened until then."""

    session: str
    text: str  # the last part of the link's path
    scopes: tuple[str, ...]
    confirm: bool  # whoever asked for it has to say who came back
    expires_at: datetime


def _signed(session: str) -> dict[str, str]:
    return {"connect_link": session}  # a document of no other kind: no receipt's signature can be passed off as it


def write_link(signer: Signer, session: str) -> str:
    """The text of the link to *session*."""
    return f"{session}.{signer.sign(_signed(session)).rstrip('=')}"


def read_link(signer: Signer, text: str) -> str | None:
    """The session of a link that we signed."""
    session, dot, signature = text.rpartition(".")
    if not dot or not text.isascii() or not signer.verifies(_signed(session), signature + "=" * (-len(signature) % 4)):
        return None
    return session
