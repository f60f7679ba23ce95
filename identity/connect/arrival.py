"""A provider's answer that came back for one session, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.connect.sessions import ConnectSession
from identity.model import ProviderConnection
from identity.providers.profile import Profile
from identity.providers.words import provider_name


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Of which session, through which provider connection, and when."""

    session: ConnectSession
    owner: ProviderConnection
    profile: Profile
    at: datetime

    @property
    def is_to_be_confirmed(self) -> bool:
        """Whether the product that made the link has to say that its own person consented."""
        return self.session.confirm or self.owner.confirms

    @property
    def provider(self) -> str:
        """As people call it."""
        return provider_name(self.owner.provider)
