"""Authorization server metadata, discovered by issuer (OpenID Connect Discovery 1.0, RFC 8414).

An issuer may speak only for itself. The document must name exactly the issuer that was asked; otherwise a document's
author could redirect our client's secret elsewhere (RFC 8414 §3.3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from identity.connections.self_hosted import PKCE
from identity.errors import Misconfigured, Unavailable
from identity.http.client import Answer, Client, HttpRequest
from identity.providers.profile import ClientAuth

_CAP = 256 * 1024
_WITHIN = timedelta(seconds=10)
_PREFERRED = (ClientAuth.BASIC, ClientAuth.POST, ClientAuth.PRIVATE_KEY_JWT)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The parts of an authorization server's metadata that are used. Every address has passed the client's policy."""

    issuer: str
    authorize_url: str
    token_url: str
    revocation_url: str | None
    userinfo_url: str | None
    jwks_url: str | None  # for the keys that sign its ID tokens
    client_auths: tuple[str, ...]  # client authentication methods, in the server's words
    sends_iss: bool  # RFC 9207: its callbacks carry `iss`
    checks_challenges: bool  # RFC 7636: it declares support for S256

    def client_auth(self, *, has_secret: bool, has_key: bool) -> ClientAuth:
        """Return how a client with these credentials authenticates. Raises Misconfigured."""
        later = not has_secret and not has_key  # the credential will be added later, and may be either
        for auth in _PREFERRED:
            usable = has_key if auth is ClientAuth.PRIVATE_KEY_JWT else has_secret
            if (usable or later) and auth in self.client_auths:
                return auth
        offered = ", ".join(self.client_auths)
        wanted = "nothing here does that" if later else "this one has nothing that fits"
        raise Misconfigured(
            f"{self.issuer} authenticates clients by {offered}, and {wanted}: known are {', '.join(_PREFERRED)}"
        )

    def config(self) -> dict[str, str]:
        """Return the part that a provider connection keeps in its `config`."""
        kept = {"issuer": self.issuer, "sends_iss": "true" if self.sends_iss else ""}
        kept |= {PKCE: "S256" if self.checks_challenges else ""}
        kept |= {"revocation_url": self.revocation_url or "", "userinfo_url": self.userinfo_url or ""}
        return {name: value for name, value in kept.items() if value}


def discover(client: Client, issuer: str) -> Metadata:
    """Fetch the metadata of *issuer* through the guarded client. Raises Misconfigured, Unavailable."""
    client.policy.checked_url(issuer, what="the issuer")
    parts = urlsplit(issuer)
    if parts.query:
        raise Misconfigured("the issuer is not one: it has no query (RFC 8414 §2)")
    path = parts.path.rstrip("/")
    # OpenID's address, which appends, then that of RFC 8414 §3.1, which inserts.
    openid = f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration"
    oauth = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
    refused = None
    for url in (openid, oauth):
        outcome = client.send(
            HttpRequest(method="GET", url=url, headers={"accept": "application/json"}), within=_WITHIN, cap=_CAP
        )
        if not isinstance(outcome, Answer):
            raise Unavailable(f"{issuer} does not say what it is: {outcome.reason}")
        if outcome.status == 200:
            return _read(client, issuer, outcome.body)
        said = f"{issuer} does not say what it is: {url} answers {outcome.status}"
        if not 400 <= outcome.status < 500:
            raise Unavailable(said)
        # Some servers refuse a missing document, for example behind their sign-in, and serve the other.
        refused = refused or (said if outcome.status != 404 else None)
    if refused is not None:
        raise Unavailable(refused)
    raise Misconfigured(f"{issuer} has no metadata, neither OpenID's nor RFC 8414's: give its addresses instead")


def _read(client: Client, issuer: str, body: bytes) -> Metadata:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Misconfigured(f"the metadata of {issuer} is not a JSON object")
    if document.get("issuer") != issuer:
        raise Misconfigured(
            f"the metadata found at {issuer} is that of another issuer: give it letter by letter. Where it is one "
            "address for many issuers (Microsoft's /common and /organizations), none of it can be believed: add an "
            "`oauth2` connection with --authorize-url, --token-url and --config userinfo_url=…"
        )

    def address(name: str, *, required: bool = False) -> str | None:
        value = document.get(name)
        if value is None and not required:
            return None
        if not isinstance(value, str):
            raise Misconfigured(f"the metadata of {issuer} has no {name}")
        return client.policy.checked_url(value, what=f"the {name} of {issuer}")

    return Metadata(
        issuer=issuer,
        authorize_url=address("authorization_endpoint") or "",
        token_url=address("token_endpoint", required=True) or "",
        revocation_url=address("revocation_endpoint"),
        userinfo_url=address("userinfo_endpoint"),
        jwks_url=address("jwks_uri"),
        client_auths=_client_auths(document),
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        checks_challenges=_lists(document.get("code_challenge_methods_supported"), "S256"),
    )


def _lists(named: Any, word: str) -> bool:
    return isinstance(named, list) and word in named


def _client_auths(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the server's list; client_secret_basic if it has none (RFC 8414 §2)."""
    named = document.get("token_endpoint_auth_methods_supported")
    found = tuple(auth for auth in named if isinstance(auth, str)) if isinstance(named, list) else ()
    return found or (ClientAuth.BASIC,)
