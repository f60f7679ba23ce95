"""Console sign-in by OpenID Connect: redirect to the provider, then verify the ID token that comes back.

State, nonce and PKCE verifier are derived from one secret that only the browser keeps. Nothing is stored, and a
callback is accepted only from the browser that began (RFC 9700 §4.7).
"""

from __future__ import annotations

import hmac
import json
import logging
import math
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from identity.connections.discovery import Metadata, discover
from identity.errors import AswhomError, Misconfigured, PolicyDenied, Unavailable
from identity.http.client import Answer, Client, HttpRequest
from identity.model import ProviderConnection
from identity.oauth import jose
from identity.oauth.jose import Unusable
from identity.oauth.jwks import KeyRing
from identity.oauth.requests import Client as OAuthClient
from identity.oauth.requests import authorization_url, exchange_request
from identity.providers.openid import OIDC
from identity.secret import Secret

log = logging.getLogger(__name__)

LEEWAY = 60  # seconds of clock skew allowed to the provider
_WITHIN = timedelta(seconds=10)
_FRESH = timedelta(hours=1)  # lifetime of the provider's metadata: its addresses may change
_PAUSE = timedelta(seconds=10)  # after a failed discovery
_PATIENCE = timedelta(seconds=1)  # how long to wait for a discovery by another thread
_CAP = 256 * 1024
AT_ONCE = 4  # exchanges: anyone can send a code, and each holds a thread until the provider answers


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """The console's own registration with an OpenID provider."""

    issuer: str
    client_id: str
    client_secret: Secret = field(repr=False)
    redirect_uri: str
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    roles_claim: str | None = None


class Crowded(Unavailable):
    """Too many sign-ins at once. The code was not sent and stays valid."""


class SignIn:
    """The relying party. One instance serves all threads; create it after any fork."""

    def __init__(
        self, settings: SignInSettings, http: Client, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._http = http
        self._keys = KeyRing.giving_authority(http)
        self._metadata: Metadata | None = None
        self._asked_at = -math.inf  # when the metadata was last fetched
        self._failed: float | None = None  # when discovery last failed, unless it has succeeded since
        self._lock = threading.Lock()
        self._exchanges = threading.BoundedSemaphore(AT_ONCE)

    def begin(self, browser: Secret) -> str:
        """Return the provider's address for the browser that keeps *browser*. Raises Unavailable, Misconfigured."""
        owner = self._owner()
        profile = replace(OIDC, authorize_extra={"nonce": _derived(browser, "nonce")})
        return authorization_url(
            owner,
            profile,
            redirect_uri=self.settings.redirect_uri,
            scopes=self.settings.scopes,
            state=_derived(browser, "state"),
            verifier=_derived(browser, "verifier"),
        )

    def finish(self, browser: Secret, answer: Mapping[str, str], *, jti: str, now: datetime) -> Mapping[str, Any]:
        """Return the claims of the person who came back. Raises PolicyDenied for an invalid answer; Unavailable.

        After Crowded, the same answer is still valid.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), _derived(browser, "state").encode()):
            raise PolicyDenied("this sign-in was begun in another browser, or is over")
        # RFC 9207 §2.4: a provider that announces `iss` must send it, also in error responses.
        unsaid = None if self._discovered().sends_iss else self.settings.issuer
        if answer.get("iss", unsaid) != self.settings.issuer:
            raise PolicyDenied("the answer is another provider's, or does not say whose it is")
        if "error" in answer or "code" not in answer:
            raise PolicyDenied("the provider did not sign you in")
        if not self._exchanges.acquire(blocking=False):
            raise Crowded("too many sign-ins are under way: load this page again in a moment", retry_after=_PATIENCE)
        try:
            tokens = self._exchange(answer["code"], _derived(browser, "verifier"), jti=jti, now=now)
            claims = self._verified(tokens, nonce=_derived(browser, "nonce"), now=now)
            return _together(claims, self._userinfo(tokens, claims["sub"]))
        finally:
            self._exchanges.release()

    def _discovered(self) -> Metadata:
        """Return the provider's metadata, refetched hourly; until that succeeds, the old metadata serves.

        Anyone can trigger this, so a provider that hangs must block only one thread.
        """
        known = self._metadata
        if known is not None and not self._is_due():
            return known
        patience = _PATIENCE.total_seconds() if self._failed is None and known is None else 0
        if not self._lock.acquire(timeout=patience):
            if known is not None:
                return known
            raise Unavailable("the sign-in provider has not said yet what it is", retry_after=_PAUSE)
        try:
            if self._metadata is None or self._is_due():
                self._metadata = self._asked(self._metadata)
            return self._metadata
        finally:
            self._lock.release()

    def _is_due(self) -> bool:
        return self._monotonic() - self._asked_at >= _FRESH.total_seconds()

    def _asked(self, known: Metadata | None) -> Metadata:
        """Fetch the metadata; return *known* if that fails."""
        if self._failed is not None and self._monotonic() - self._failed < _PAUSE.total_seconds():
            if known is not None:
                return known
            raise Unavailable("the sign-in provider did not say what it is a moment ago", retry_after=_PAUSE)
        try:
            found = discover(self._http, self.settings.issuer)
        except AswhomError as error:
            self._failed = self._monotonic()
            if known is None:
                raise
            log.warning("the sign-in provider did not say what it is: %s", error, extra={"action": "sign_in.unasked"})
            return known
        self._failed, self._asked_at = None, self._monotonic()
        return found

    def _owner(self) -> ProviderConnection:
        found = self._discovered()
        settings = self.settings
        auth = found.client_auth(has_secret=True, has_key=False)
        return ProviderConnection(
            id="console",
            tenant=None,
            provider=OIDC.name,
            client_id=settings.client_id,
            scopes=settings.scopes,
            api_url=found.issuer,
            authorize_url=found.authorize_url,
            token_url=found.token_url,
            config={"client_auth": str(auth)},
        )

    def _exchange(self, code: str, verifier: str, *, jti: str, now: datetime) -> Mapping[str, Any]:
        client = OAuthClient(
            connection=self._owner(), profile=OIDC, secret=self.settings.client_secret, now=now, jti=jti
        )
        request = exchange_request(client, code=code, verifier=verifier, redirect_uri=self.settings.redirect_uri)
        tokens = self._document(request)
        if tokens is None or not isinstance(tokens.get("id_token"), str):
            raise PolicyDenied("the provider does not accept the code: it was used, or has expired")
        return tokens

    def _verified(self, tokens: Mapping[str, Any], *, nonce: str, now: datetime) -> Mapping[str, Any]:
        """Validate the ID token (OpenID Connect Core §3.1.3.7) and return its claims."""
        found = self._discovered()
        token = tokens["id_token"]
        if found.jwks_url is None:
            raise Misconfigured(f"{found.issuer} names no jwks_uri, so its ID tokens cannot be verified")
        try:
            signed = jose.read(token.encode())
            key = self._keys.key(found.jwks_url, signed)
            if key is None or not signed.is_signed_by(key):
                raise PolicyDenied("the ID token is signed by a key that is not the provider's")
            claims = CodeIDToken(
                jose.claims(signed.payload) or {},
                # For `at_hash`, Authlib knows Ed25519 only by its name before RFC 9864.
                {"alg": "EdDSA" if signed.algorithm == "Ed25519" else signed.algorithm},
                {"iss": {"essential": True, "value": found.issuer}, "aud": {"value": self.settings.client_id}},
                {"nonce": nonce, "client_id": self.settings.client_id, "access_token": tokens.get("access_token")},
            )
            claims.validate(now=int(now.timestamp()), leeway=LEEWAY)
        except (JoseError, Unusable, ValueError, TypeError) as error:  # the latter two for odd claims
            raise PolicyDenied(f"the ID token does not hold: {type(error).__name__}") from error
        return dict(claims)

    def _userinfo(self, tokens: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
        """Return the userinfo claims of the same subject (OpenID Connect Core §5.3.2), or none."""
        url = self._discovered().userinfo_url
        token = tokens.get("access_token")
        if url is None or not isinstance(token, str):
            return {}
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        said = self._document(HttpRequest(method="GET", url=url, headers=headers))
        return said if said is not None and said.get("sub") == subject else {}

    def _document(self, request: HttpRequest) -> Mapping[str, Any] | None:
        """Return the JSON object of a 200 answer, or None. Raises Unavailable."""
        outcome = self._http.send(request, within=_WITHIN, cap=_CAP, fresh=True)
        if not isinstance(outcome, Answer) or outcome.status >= 500:
            raise Unavailable("the sign-in provider does not answer")
        try:
            said = json.loads(outcome.body) if outcome.status == 200 else None
        except (ValueError, RecursionError):
            said = None
        return said if isinstance(said, dict) else None


def _together(claims: Mapping[str, Any], elsewhere: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge claims; the ID token wins. `email_verified` counts only together with `email` of the same source."""
    merged = {**elsewhere, **claims}
    whole = [said for said in (claims, elsewhere) if "email" in said and "email_verified" in said]
    if whole:
        return merged | {"email": whole[0]["email"], "email_verified": whole[0]["email_verified"]}
    merged.pop("email_verified", None)
    return merged


def _derived(browser: Secret, purpose: str) -> str:
    """Derive 43 base64url characters, valid as a PKCE verifier (RFC 7636 §4.1) and as a state."""
    made = hmac.digest(browser.reveal().encode(), purpose.encode(), sha256)
    return urlsafe_b64encode(made).rstrip(b"=").decode()
