"""The content of the page behind a connect link."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.connect.awaited import Awaited
from identity.model import AccountKey, AccountState


@dataclass(frozen=True, kw_only=True)
class ConnectOffer:
    """The request shown to the person before anything happens."""

    session: str
    key: AccountKey
    provider: str
    authorize_url: str
    scopes: tuple[str, ...]
    awaited: Awaited | None
    state: AccountState | None  # of the existing account, if any
    reason: str | None  # why the existing account is not active
    expires_at: datetime
