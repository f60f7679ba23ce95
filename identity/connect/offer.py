"""What a link offers to whoever opens it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.connect.awaited import Awaited
from identity.model import AccountKey, AccountState


@dataclass(frozen=True, kw_only=True)
class ConnectOffer:
    """What the person is asked, before anything happens."""

    session: str
    key: AccountKey
    provider: str
    authorize_url: str
    scopes: tuple[str, ...]
    awaited: Awaited | None
    state: AccountState | None  # of the account that is there already
    reason: str | None  # why that one is not active
    expires_at: datetime
