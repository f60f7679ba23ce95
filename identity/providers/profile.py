"""The row that describes a provider: where it departs from the RFCs, and what its tokens do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from identity.http import Answer, HttpRequest
from identity.model import ProviderConnection
from identity.pace import CAUTIOUS, Pace
from identity.secret import Secret

MIN_TTL = timedelta(minutes=5)


class ClientAuth(StrEnum):
    """How the client names itself at the token endpoint, in Authlib's words."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"


@dataclass(frozen=True, kw_only=True)
class ExternalIdentity:
    """Who consented, as the provider names them."""

    id: str
    login: str | None


@dataclass(frozen=True, kw_only=True)
class WhoAmI:
    """How to ask the provider whose token it is."""

    request: Callable[[ProviderConnection, Secret], HttpRequest]
    read: Callable[[Any], ExternalIdentity | None]  # the answer's JSON; None: it names nobody


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """How to ask the provider, as the client and without using it, whether a token of a user is alive."""

    request: Callable[[ProviderConnection, Secret, Secret], HttpRequest]  # the client's secret, and the token
    read: Callable[[Answer], bool | None]  # None: the answer does not tell


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One provider. A value that was not verified is the cautious one."""

    name: str
    # Defaults for a new provider connection; its row decides.
    api_url: str
    authorize_url: str
    token_url: str
    client_auth: ClientAuth
    rotates: bool  # a refresh token is used once
    grace_seconds: int = 0  # how long the provider lets the same refresh token be presented again; unverified is 0
    refresh_kills_access: bool = False  # the old access token dies when the new one is issued
    idle_limit: timedelta | None = None  # a refresh token that is not used for so long dies; None: it does not
    default_lifetime: timedelta | None = None  # of an access token whose answer names none; None: it does not expire
    min_ttl: timedelta = MIN_TTL  # refresh when less is left; at most half of a token's life
    token_pace: Pace = CAUTIOUS  # of refreshes, mintings and code exchanges through one provider connection
    scope_separator: str = " "
    scopes_parameter: str = "scope"  # in the authorization URL
    sends_iss: bool = False  # RFC 9207: the callback must carry `iss`
    dead_codes: frozenset[str] = frozenset()  # besides invalid_grant: the refresh token is no good any more
    client_codes: frozenset[str] = frozenset()  # besides invalid_client: the client registration is at fault
    transient_codes: frozenset[str] = frozenset()  # besides temporarily_unavailable and the like
    authorize_extra: Mapping[str, str] = field(default_factory=dict)
    client_credentials_extra: Mapping[str, str] = field(default_factory=dict)
    implies: Mapping[str, frozenset[str]] = field(default_factory=dict)  # a granted scope and those it covers as well
    select: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None  # the part of an answer that holds the token
    whoami: WhoAmI | None = None
    liveness: Liveness | None = None  # needed where a revocation signal carries no time

    def covered(self, granted: Iterable[str]) -> frozenset[str]:
        """The granted scopes and what they imply."""
        scopes = frozenset(granted)
        return scopes.union(*(self.implies.get(scope, frozenset()) for scope in scopes))
