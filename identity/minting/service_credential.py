"""The credential of a tenant's service: a static token, a rotating one, or the right to have one minted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.connections.authorization import KEY
from identity.errors import BadInput
from identity.model import MINTED, Credential, TokenAnswer
from identity.secret import Secret


@dataclass(frozen=True, kw_only=True)
class ServiceCredential:
    """A credential as an admin supplies it.

    Raises ValueError if its tokens do not match its kind, BadInput if one cannot be sent in a header.
    """

    kind: Credential
    token: Secret | None = None
    refresh_token: Secret | None = None
    external_id: str | None = None  # the installation's; for JWT bearer, the subject the service acts as
    resources: tuple[str, ...] | None = None  # the repositories that an installation's tokens are limited to
    # upper bound of its scopes, which no answer and no signal of the provider widens
    ceiling: tuple[str, ...] | None = None

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
        """Return what was supplied as if a provider had answered with it; None if its tokens are minted when needed."""
        if self.token is None:
            return None
        return TokenAnswer(
            access_token=self.token,
            refresh_token=self.refresh_token,
            # The age of a pasted token is unknown, so one that rotates is renewed before its first use.
            expires_at=now if self.refresh_token else None,
            scopes=scopes,
            token_type=KEY if self.kind is Credential.STATIC else "bearer",
        )
