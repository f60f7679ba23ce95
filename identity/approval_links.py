"""Approval links: one approval, one person and an expiry, signed by this installation.

A link authenticates its bearer, so give it only to the person it names. A copy of the ledger is not enough to forge
one.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from identity.keys.signing import Signer


@dataclass(frozen=True, kw_only=True)
class ApprovalLink:
    """The right of one person to answer one approval until it expires; *text* is the last part of the link's path."""

    approval: str
    principal: str
    expires_at: datetime
    text: str = ""


def write_approval_link(signer: Signer, *, approval: str, principal: str, expires_at: datetime) -> ApprovalLink:
    """Return a link for *principal* to answer *approval* until *expires_at*, truncated to whole seconds."""
    said = {"approval": approval, "for": principal, "until": int(expires_at.timestamp())}
    head = urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")
    text = f"{head}.{signer.sign(_signed(head)).rstrip('=')}"
    return ApprovalLink(approval=approval, principal=principal, expires_at=expires_at, text=text)


def read_approval_link(signer: Signer, text: str) -> ApprovalLink | None:
    """Return the content of a link that we signed, expired or not; None for any other text."""
    head, dot, signature = text.partition(".")
    if not dot or not text.isascii() or not signer.verifies(_signed(head), _padded(signature)):
        return None
    said: dict[str, Any] = json.loads(urlsafe_b64decode(_padded(head)))
    until = datetime.fromtimestamp(said["until"], UTC)
    return ApprovalLink(approval=said["approval"], principal=said["for"], expires_at=until, text=text)


def _signed(head: str) -> dict[str, str]:
    return {"approval_link": head}  # a document kind of its own: a connect link's signature does not verify here


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
