"""What a tenant's service acts by: a token that stays the same, one that rotates, or the right to have one minted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.errors import BadInput
from identity.http.authorization import KEY
from identity.model import MINTED, Credential, TokenAnswer
from identity.secret import Secret


@dataclass(frozen=True, kw_only=True)
class ServiceCredential:
    """As an admin gives it. Raises ValueError without the tokens it comes with, BadInput if no header can hold one."""

    kind: Credential
    token: Secret | None = None
    refresh_token: Secret | None = None
    external_id: str | None = None  # the installation's; for JWT bearer, whom the service acts as
    resources: tuple[str, ...] | None = None  # what an installation's tokens are narrowed to
    ceiling: tuple[str, ...] | None = None  # the scopes beyond which no answer and no signal of the provider widens it

    def __post_init__(self) -> None:
        if (self.token is None) != (self.kind in MINTED):
            raise ValueError("a static or rotating credential comes with its token, and no other does")
        if (self.refresh_token is None) != (self.kind is not Credential.ROTATING):
            raise ValueError("a rotating credential comes with its refresh token, and no other does")
        if not all(given.fits_header() for given in (self.token, self.refresh_token) if given is not None):
            raise BadInput(
                "a token holds white space, a control character or one that is not ASCII, so it is not one: give it "
                "alone, on one line"
            )

    def answer(self, *, scopes: tuple[str, ...], now: datetime) -> TokenAnswer | None:
        """What was given, as if a provider had answered with it; None: its tokens are minted when they are needed."""
        if self.token is None:
            return None
        return TokenAnswer(
            access_token=self.token,
            refresh_token=self.refresh_token,
            # Nobody says how old a token is that was pasted: one that rotates is renewed before its first use.
            expires_at=now if self.refresh_token else None,
            scopes=scopes,
            token_type=KEY if self.kind is Credential.STATIC else "bearer",
        )
