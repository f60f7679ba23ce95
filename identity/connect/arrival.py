"""A provider's answer to one connect session, with its context."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.connect_sessions.sessions import ConnectSession
from identity.model import ProviderConnection
from identity.providers.profile import Profile
from identity.providers.words import provider_name


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """The session, provider connection and time of a provider's answer."""

    session: ConnectSession
    owner: ProviderConnection
    profile: Profile
    at: datetime

    @property
    def is_to_be_confirmed(self) -> bool:
        """True if the product that made the link must confirm that its own person consented."""
        return self.session.confirm or self.owner.confirms

    @property
    def provider(self) -> str:
        """The provider's name for people."""
        return provider_name(self.owner.provider)
