"""Connect links: a session id signed by this installation, so that a copy of the ledger cannot forge one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.keys.signing import Signer


@dataclass(frozen=True, kw_only=True)
class ConnectLink:
    """A link for a person: valid once, in one browser, to be opened before *expires_at*."""

    session: str
    text: str  # the last part of the link's path
    scopes: tuple[str, ...]
    confirm: bool  # the product that asked for it must confirm who came back
    expires_at: datetime


def _signed(session: str) -> dict[str, str]:
    return {"connect_link": session}  # a document type of its own: no receipt's signature passes for a link's


def write_link(signer: Signer, session: str) -> str:
    """Return the text of the link to *session*."""
    return f"{session}.{signer.sign(_signed(session)).rstrip('=')}"


def read_link(signer: Signer, text: str) -> str | None:
    """Return the session of a link signed by us, or None."""
    session, dot, signature = text.rpartition(".")
    if not dot or not text.isascii() or not signer.verifies(_signed(session), signature + "=" * (-len(signature) % 4)):
        return None
    return session
