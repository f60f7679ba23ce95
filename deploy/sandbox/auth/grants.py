"""Grants, with their codes, access tokens and rotating refresh tokens.

The rules:

- a code and a refresh token each work once;
- a second presentation of either kills its grant, newest tokens included, unless the provider does not rotate or
  allows a grace period;
- only fingerprints are kept, and lifetimes are checked at use.
"""

import base64
import hashlib
import hmac
import itertools
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deploy.sandbox.auth.providers import PROVIDERS, Provider
from deploy.sandbox.auth.registry import Client, Person
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock

CODE_LIFE = timedelta(minutes=10)


class Refused(Exception):
    """A refusal by the token endpoint. *code* is RFC 6749's error code."""

    def __init__(self, code: str, description: str, *, grant: "Grant | None" = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.grant = grant


@dataclass(kw_only=True, eq=False)
class Grant:
    id: str
    client: Client
    person: Person | None  # None: the app acts as itself
    acts_as_app: bool
    organization: str | None
    scopes: tuple[str, ...]
    alive: bool = True
    accesses: list["Access"] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Code:
    grant: Grant  # dormant until the code is redeemed
    redirect_uri: str
    challenge: str
    expires_at: datetime
    used: bool = False


@dataclass(kw_only=True, eq=False)
class Access:
    grant: Grant
    expires_at: datetime
    alive: bool = True


@dataclass(kw_only=True, eq=False)
class Refresh:
    grant: Grant
    expires_at: datetime | None
    used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The tokens of a successful answer."""

    grant: Grant
    access_token: str
    refresh_token: str | None


@dataclass(frozen=True, kw_only=True)
class Which:
    """A selection of a provider's grants: a client's, a person's, an organization's, or all."""

    provider: str
    client_id: str | None = None
    person: Person | None = None
    organization: str | None = None

    def takes(self, grant: Grant) -> bool:
        return (
            grant.client.provider == self.provider
            and self.client_id in (None, grant.client.client_id)
            and self.person in (None, grant.person)
            and self.organization in (None, grant.organization)
        )


class Grants:
    """The store. A caller that also logs its decision holds `lock` around both."""

    def __init__(self, *, clock: Clock, providers: Mapping[str, Provider] = PROVIDERS) -> None:
        self.lock = threading.RLock()
        self._clock = clock
        self._providers = providers
        self._numbers = itertools.count(1)
        self._grants: list[Grant] = []
        self._codes: dict[str, Code] = {}
        self._access: dict[str, Access] = {}
        self._refresh: dict[str, Refresh] = {}

    def consent(
        self,
        client: Client,
        person: Person,
        *,
        redirect_uri: str,
        challenge: str,
        scopes: tuple[str, ...],
        acts_as_app: bool,
    ) -> str:
        """Return the code for a consent of *person*."""
        with self.lock:
            grant = self._grant(
                client, person, organization=person.organization, scopes=scopes, acts_as_app=acts_as_app
            )
            code = secrets.token_hex(10)
            self._codes[fingerprint(code)] = Code(
                grant=grant, redirect_uri=redirect_uri, challenge=challenge, expires_at=self._clock() + CODE_LIFE
            )
            return code

    def redeem(self, client: Client, code: str, *, verifier: str, redirect_uri: str | None) -> Pair:
        with self.lock:
            held = self._codes.get(fingerprint(code))
            if held is None:
                raise Refused("invalid_grant", "the code is not known")
            grant = held.grant
            if held.used:
                grant.alive = False  # RFC 6749 §4.1.2: revoke what was issued for it
                raise Refused("invalid_grant", "the code was used before", grant=grant)
            if grant.client != client:
                raise Refused("invalid_grant", "the code is another client's", grant=grant)
            if held.expires_at <= self._clock() or not grant.alive:
                raise Refused("invalid_grant", "the code has expired or was revoked", grant=grant)
            if redirect_uri is not None and redirect_uri != held.redirect_uri:
                raise Refused("invalid_grant", "the redirect_uri differs", grant=grant)
            if not hmac.compare_digest(_s256(verifier), held.challenge):
                raise Refused("invalid_grant", "the code_verifier does not match", grant=grant)
            held.used = True
            return self._issue(grant)

    def rotate(self, client: Client, token: str) -> Pair:
        with self.lock:
            held = self._refresh.get(fingerprint(token))
            if held is None:
                raise Refused("invalid_grant", "the refresh token is not known")
            grant = held.grant
            if grant.client != client:
                raise Refused("invalid_grant", "the refresh token is another client's", grant=grant)
            provider, now = self._provider(grant), self._clock()
            grace = timedelta(seconds=provider.grace_seconds)
            if held.used_at is not None and now >= held.used_at + grace:
                grant.alive = False  # RFC 9700 §4.14.2: the family dies with a reused member
                raise Refused("invalid_grant", "the refresh token was used before", grant=grant)
            if not grant.alive or (held.expires_at and held.expires_at <= now):
                raise Refused("invalid_grant", "the refresh token has expired or was revoked", grant=grant)
            if provider.refresh_kills_access:
                for access in grant.accesses:
                    access.alive = False
            if not provider.rotates:
                return self._issue(grant, refreshable=False)
            held.used_at = held.used_at or now
            return self._issue(grant)

    def for_person(self, client: Client, person: Person, *, scopes: tuple[str, ...]) -> Pair:
        """Issue the tokens of a consent of *person*, without a browser."""
        with self.lock:
            grant = self._grant(client, person, organization=person.organization, scopes=scopes, acts_as_app=False)
            return self._issue(grant)

    def for_app(self, client: Client, *, scopes: tuple[str, ...]) -> Pair:
        with self.lock:
            grant = self._grant(client, None, organization=client.organization, scopes=scopes, acts_as_app=True)
            return self._issue(grant, refreshable=False)

    def find(self, token: str) -> Access | None:
        """Return the access token, dead or alive."""
        with self.lock:
            return self._access.get(fingerprint(token))

    def is_live(self, access: Access) -> bool:
        with self.lock:
            return access.alive and access.grant.alive and access.expires_at > self._clock()

    def kill(self, token: str) -> bool:
        """End the grant of an access or refresh token. Return False if there was none to end."""
        with self.lock:
            held = self._access.get(fingerprint(token)) or self._refresh.get(fingerprint(token))
            if held is None or not held.grant.alive:
                return False
            held.grant.alive = False
            return True

    def expire(self, which: Which) -> int:
        """Expire the live access tokens of matching grants now. Refresh tokens stay valid."""
        with self.lock:
            now = self._clock()
            accesses = [access for grant in self._matching(which) for access in grant.accesses]
            ended = [access for access in accesses if access.alive and access.expires_at > now]
            for access in ended:
                access.expires_at = now
            return len(ended)

    def revoke(self, which: Which) -> int:
        with self.lock:
            ended = self._matching(which)
            for grant in ended:
                grant.alive = False
            return len(ended)

    def _matching(self, which: Which) -> list[Grant]:
        return [grant for grant in self._grants if grant.alive and which.takes(grant)]

    def _grant(
        self,
        client: Client,
        person: Person | None,
        *,
        organization: str | None,
        scopes: tuple[str, ...],
        acts_as_app: bool,
    ) -> Grant:
        grant = Grant(
            id=f"grant-{next(self._numbers)}",
            client=client,
            person=person,
            acts_as_app=acts_as_app,
            organization=organization,
            scopes=scopes,
        )
        self._grants.append(grant)
        return grant

    def _issue(self, grant: Grant, *, refreshable: bool = True) -> Pair:
        provider, now = self._provider(grant), self._clock()
        access = provider.access_prefix + secrets.token_hex(18)
        issued = Access(grant=grant, expires_at=now + timedelta(seconds=grant.client.access_seconds))
        grant.accesses.append(issued)
        self._access[fingerprint(access)] = issued
        refresh = None
        if refreshable and "refresh_token" in grant.client.grants:
            refresh = provider.refresh_prefix + secrets.token_hex(38)
            life = provider.refresh_seconds
            self._refresh[fingerprint(refresh)] = Refresh(
                grant=grant, expires_at=now + timedelta(seconds=life) if life else None
            )
        return Pair(grant=grant, access_token=access, refresh_token=refresh)

    def _provider(self, grant: Grant) -> Provider:
        return self._providers[grant.client.provider]


def _s256(verifier: str) -> str:
    """Return the S256 code challenge (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
