"""The profile of a provider: its deviations from the RFCs and the behaviour of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from identity.http.client import Answer, HttpRequest
from identity.model import Credential, ProviderConnection
from identity.providers.pace import CAUTIOUS, Pace
from identity.providers.sources import Source
from identity.secret import Secret

MIN_TTL = timedelta(minutes=5)


class ClientAuth(StrEnum):
    """Client authentication methods at the token endpoint, named as in OpenID Connect metadata."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    PRIVATE_KEY_JWT = "private_key_jwt"  # RFC 7523 §2.2


@dataclass(frozen=True, kw_only=True)
class ExternalIdentity:
    """The person who consented, as the provider identifies them."""

    id: str
    login: str | None
    places: frozenset[str] = frozenset()  # the workspace where the token acts, and its organization


@dataclass(frozen=True, kw_only=True)
class WhoAmI:
    """A request that asks the provider whose token it is."""

    request: Callable[[ProviderConnection, Secret], HttpRequest | None]  # None: this connection cannot be asked
    read: Callable[[ProviderConnection, Any], ExternalIdentity | None]  # takes the answer's JSON; None: it names nobody


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """A JWT that is exchanged for a token (RFC 7523 §2.1) instead of a refresh token."""

    issuer: str | None = None  # the key of `iss` in the connection's config; None: the client id
    audience: str | None = None  # None: the token endpoint's address
    scopes_inside: bool = False  # scopes are a claim of the assertion
    scopes_beside: bool = True  # scopes are a request parameter; if neither, the client registration has them
    needs_subject: bool = False  # `sub`, the user the token acts as, is required
    lifetime: timedelta = timedelta(minutes=3)


class Reach(StrEnum):
    """The extent of what one revocation request ends."""

    TOKEN = "token"  # noqa: S105 - only the presented token
    GRANT = "grant"  # all tokens of this consent
    AUTHORIZATION = "authorization"  # everything this person granted the client, including later consents


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """The provider's way of revoking a grant, and the meaning of its answers."""

    reach: Reach
    presents: str  # access_token or refresh_token: the token to name if there is a choice
    access_too: bool = False  # the access token may outlive the refresh token, so a second request ends it
    gone_statuses: frozenset[int] = frozenset()  # besides 2xx: it had ended already
    unclear_statuses: frozenset[int] = frozenset()  # had ended or nothing was done; ask `Profile.liveness`
    gone_codes: frozenset[str] = frozenset()  # error codes in the body that mean it had ended already
    by_itself: frozenset[Credential] = frozenset()  # token authenticates the request: 401 means ended


@dataclass(frozen=True, kw_only=True)
class RevokedToken:
    """A token to revoke, and the secret that may authenticate the request."""

    connection: ProviderConnection
    credential: Credential
    token: Secret
    client_secret: Secret | None  # None: the connection has none


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """A way to revoke individual tokens by name.

    It is used for a refresh token if `Revocation` needs an unexpired access token, and for the tokens of a refused
    connect if `Revocation` would end more than those.
    """

    request: Callable[[ProviderConnection, Sequence[Secret]], HttpRequest]
    taken: frozenset[int]  # statuses of success; after any other, nothing has changed
    most: int  # maximum number of tokens per request
    pace: Pace  # for the whole installation: these requests are anonymous


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """A request by the client, without using the token, that tells whether a user's token is valid."""

    request: Callable[[ProviderConnection, Secret, Secret], HttpRequest]  # takes client secret and token
    read: Callable[[Answer], bool | None]  # None: the answer does not tell


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One provider. Unverified values are the cautious ones; `sources` tells how each value was verified."""

    name: str
    title: str  # as the provider spells itself
    # Defaults for a new provider connection, whose row takes precedence. Empty: must be given or discovered.
    api_url: str
    authorize_url: str
    token_url: str
    revocation_url: str = ""
    called_too: tuple[str, ...] = ()  # further addresses called, whatever the connection's row says
    replies_at: str = ""  # where webhook interactions are answered, if not at the API
    client_auth: ClientAuth
    rotates: bool  # a refresh token can be used only once
    installation_of_app: bool = False  # an installation id belongs to one app
    grace_seconds: int = 0  # time in which the provider accepts the same refresh token again; 0 if unverified
    refresh_kills_access: bool = False  # the old access token ends when a new one is issued
    idle_limit: timedelta | None = None  # an unused refresh token expires after this; None: never
    absolute_lifetime: timedelta | None = None  # from consent to the end of its refresh tokens; informative
    default_lifetime: timedelta | None = None  # of an access token if the answer names none; None: unlimited
    min_ttl: timedelta = MIN_TTL  # refresh when less is left; at most half of a token's lifetime
    token_pace: Pace = CAUTIOUS  # refreshes, mintings and code exchanges per provider connection
    api_pace: Pace | None = None  # for installation tokens and revocations, if it differs from token_pace
    scope_separator: str = " "
    scopes_parameter: str = "scope"  # in the authorization URL
    sends_iss: bool = False  # RFC 9207: the callback must carry `iss`
    dead_codes: frozenset[str] = frozenset()  # besides invalid_grant: the refresh token is no longer valid
    spent_codes: frozenset[str] = frozenset()  # an authorization code was used or has expired
    client_codes: frozenset[str] = frozenset()  # besides invalid_client: the client registration is at fault
    bearer_types: frozenset[str] = frozenset()  # its names for bearer tokens, in lower case
    empty_scope_means_asked: bool = False  # an empty `scope` grants what was requested, not nothing
    secret_codes: frozenset[str] = frozenset()  # client_codes that a wrong client secret can cause
    transient_codes: frozenset[str] = frozenset()  # besides temporarily_unavailable and the like
    authorize_extra: Mapping[str, str] = field(default_factory=dict)
    client_credentials_extra: Mapping[str, str] = field(default_factory=dict)
    token_extra: Mapping[str, str] = field(default_factory=dict)  # parameters of every token request
    implies: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the scopes that a granted scope includes
    select: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None  # the part of an answer with the token
    whoami: WhoAmI | None = None
    assertion: Assertion | None = None  # None: no JWT bearer grant
    key_header: str = "authorization"  # that carries a static key
    key_scheme: str = "Bearer"  # precedes the key in that header; empty: only the key
    discovers: bool = False  # addresses come from issuer metadata (RFC 8414, OpenID Connect Discovery)
    revocation: Revocation | None = None  # None: grants cannot be revoked at the provider
    # The provider's deviation from RFC 7009; None: the RFC's request at the revocation endpoint.
    revoke: Callable[[RevokedToken], HttpRequest | None] | None = None
    renewal: Renewal | None = None  # None: once the access token has expired, the refresh token cannot be revoked
    liveness: Liveness | None = None  # needed if a revocation signal carries no time
    sources: Mapping[str, Source] = field(default_factory=dict)  # by field name

    @property
    def grace(self) -> timedelta:
        """The time in which the provider accepts the same refresh token again; zero if unverified."""
        return timedelta(seconds=self.grace_seconds)

    def pace_of(self, credential: Credential) -> Pace:
        """Return the rate limit of token requests with this kind of credential."""
        at_api = self.api_pace if credential is Credential.INSTALLATION else None
        return at_api or self.token_pace

    def covered(self, granted: Iterable[str]) -> frozenset[str]:
        """Return the granted scopes with those they include."""
        scopes = frozenset(granted)
        return scopes.union(*(self.implies.get(scope, frozenset()) for scope in scopes))
