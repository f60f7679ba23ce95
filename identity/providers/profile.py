"""The row that describes a provider: where it departs from the RFCs, and what its tokens do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from identity.http.client import Answer, HttpRequest
from identity.model import Credential, ProviderConnection
from identity.providers.sources import Source
from identity.refresh.pace import CAUTIOUS, Pace
from identity.secret import Secret

MIN_TTL = timedelta(minutes=5)


class ClientAuth(StrEnum):
    """How the client names itself at the token endpoint, in the words of OpenID Connect's metadata."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    PRIVATE_KEY_JWT = "private_key_jwt"  # RFC 7523 §2.2


@dataclass(frozen=True, kw_only=True)
class ExternalIdentity:
    """Who consented, as the provider names them."""

    id: str
    login: str | None
    places: frozenset[str] = frozenset()  # the workspace, and the organization above it, where the token acts


@dataclass(frozen=True, kw_only=True)
class WhoAmI:
    """How to ask the provider whose token it is."""

    request: Callable[[ProviderConnection, Secret], HttpRequest | None]  # None: this connection cannot be asked
    read: Callable[[ProviderConnection, Any], ExternalIdentity | None]  # the answer's JSON; None: it names nobody


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """The JWT that is exchanged for a token (RFC 7523 §2.1), where there is no refresh token."""

    issuer: str | None = None  # the name in the connection's config that holds `iss`; None: the client id
    audience: str | None = None  # None: the token endpoint's address
    scopes_inside: bool = False  # the scopes are a claim of the assertion
    scopes_beside: bool = True  # the scopes are a parameter of the request; neither: the client registration has them
    needs_subject: bool = False  # `sub` is whom the token acts as; otherwise it may be left out
    lifetime: timedelta = timedelta(minutes=3)


class Reach(StrEnum):
    """What one request to revoke ends."""

    TOKEN = "token"  # noqa: S105 - the presented token alone
    GRANT = "grant"  # all tokens of this consent
    AUTHORIZATION = "authorization"  # all that this person ever consented to for this client, later consents too


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """How the provider is asked to end a grant, and what its answer means."""

    reach: Reach
    presents: str  # access_token or refresh_token: which of the two the request is about, if there is a choice
    access_too: bool = False  # the access token is then ended by a request of its own: it may outlive the other
    gone_statuses: frozenset[int] = frozenset()  # besides 2xx: it had ended before
    unclear_statuses: frozenset[int] = frozenset()  # it had ended, or it was not done: `Profile.liveness` tells which
    gone_codes: frozenset[str] = frozenset()  # the same, as an error code in the body
    by_itself: frozenset[Credential] = frozenset()  # whose token authenticates the request: a 401 says it had ended


@dataclass(frozen=True, kw_only=True)
class RevokedToken:
    """What is to end, and what the request may be authenticated by."""

    connection: ProviderConnection
    credential: Credential
    token: Secret
    client_secret: Secret | None  # None: the connection has none


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """How tokens are ended by their own names.

    For a refresh token where `Revocation` wants an access token that has not expired, and for those of a connect that
    was refused, where `Revocation` reaches further.
    """

    request: Callable[[ProviderConnection, Sequence[Secret]], HttpRequest]
    taken: frozenset[int]  # the statuses that say so; any other, and it is as it was
    most: int  # tokens in one request
    pace: Pace  # of all that this installation asks: nobody says there who they are


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """How to ask the provider, as the client and without using it, whether a token of a user is alive."""

    request: Callable[[ProviderConnection, Secret, Secret], HttpRequest]  # the client's secret, and the token
    read: Callable[[Answer], bool | None]  # None: the answer does not tell


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One provider. A value that was not verified is the cautious one; `sources` says which were, and where."""

    name: str
    title: str  # as the provider writes itself
    # Defaults for a new provider connection; its row decides. Empty: it has to be given, or discovered.
    api_url: str
    authorize_url: str
    token_url: str
    revocation_url: str = ""
    called_too: tuple[str, ...] = ()  # further addresses that are called, whatever the connection's row says
    replies_at: str = ""  # where what a webhook began is answered, if not by the API
    client_auth: ClientAuth
    rotates: bool  # a refresh token is used once
    installation_of_app: bool = False  # the installation that an event names is of one app: another app never names it
    grace_seconds: int = 0  # how long the provider lets the same refresh token be presented again; unverified is 0
    refresh_kills_access: bool = False  # the old access token dies when the new one is issued
    idle_limit: timedelta | None = None  # a refresh token that is not used for so long dies; None: it does not
    absolute_lifetime: timedelta | None = None  # from consent to the end of its refresh tokens; nothing here acts on it
    default_lifetime: timedelta | None = None  # of an access token whose answer names none; None: it does not expire
    min_ttl: timedelta = MIN_TTL  # refresh when less is left; at most half of a token's life
    token_pace: Pace = CAUTIOUS  # of refreshes, mintings and code exchanges through one provider connection
    api_pace: Pace | None = None  # of installations' tokens, and of ending tokens, where it is another than token_pace
    scope_separator: str = " "
    scopes_parameter: str = "scope"  # in the authorization URL
    sends_iss: bool = False  # RFC 9207: the callback must carry `iss`
    dead_codes: frozenset[str] = frozenset()  # besides invalid_grant: the refresh token is no good any more
    spent_codes: frozenset[str] = frozenset()  # the same of an authorization code: it was used, or has expired
    client_codes: frozenset[str] = frozenset()  # besides invalid_client: the client registration is at fault
    bearer_types: frozenset[str] = frozenset()  # token types, in lower case, that are its names for bearer
    empty_scope_means_asked: bool = False  # an answer with an empty `scope` grants what was asked for, not nothing
    secret_codes: frozenset[str] = frozenset()  # those among client_codes that a wrong client secret explains
    transient_codes: frozenset[str] = frozenset()  # besides temporarily_unavailable and the like
    authorize_extra: Mapping[str, str] = field(default_factory=dict)
    client_credentials_extra: Mapping[str, str] = field(default_factory=dict)
    token_extra: Mapping[str, str] = field(default_factory=dict)  # of every request for a token
    implies: Mapping[str, frozenset[str]] = field(default_factory=dict)  # a granted scope and those it covers as well
    select: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None  # the part of an answer that holds the token
    whoami: WhoAmI | None = None
    assertion: Assertion | None = None  # None: no JWT bearer grant
    key_header: str = "authorization"  # of a static key
    key_scheme: str = "Bearer"  # before the key in that header; empty: the key stands alone
    discovers: bool = False  # its addresses come from its issuer's metadata (RFC 8414, OpenID Connect Discovery)
    revocation: Revocation | None = None  # None: the provider cannot be asked to end a grant
    # Where the provider departs from RFC 7009; None: as the RFC has it, at the revocation endpoint.
    revoke: Callable[[RevokedToken], HttpRequest | None] | None = None
    renewal: Renewal | None = None  # None: with the access token expired, what renews it cannot be ended
    liveness: Liveness | None = None  # needed where a revocation signal carries no time
    sources: Mapping[str, Source] = field(default_factory=dict)  # by the name of a field

    def pace_of(self, credential: Credential) -> Pace:
        """How often tokens of such an account may be asked for."""
        at_api = self.api_pace if credential is Credential.INSTALLATION else None
        return at_api or self.token_pace

    def covered(self, granted: Iterable[str]) -> frozenset[str]:
        """The granted scopes and what they imply."""
        scopes = frozenset(granted)
        return scopes.union(*(self.implies.get(scope, frozenset()) for scope in scopes))
