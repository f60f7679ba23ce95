"""Any OpenID provider, by its metadata, and any OAuth 2.0 server, by an operator's configuration."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from identity.http.client import HttpRequest
from identity.model import ProviderConnection
from identity.providers.profile import Assertion, ClientAuth, ExternalIdentity, Profile, Reach, Revocation, WhoAmI
from identity.providers.sources import assumed, read
from identity.quoting import kept
from identity.secret import Secret


def openid_user(userinfo_url: str | None = None) -> WhoAmI:
    """Return a WhoAmI for the userinfo endpoint (OpenID Connect Core §5.3): this one or the connection's."""

    def ask(connection: ProviderConnection, token: Secret) -> HttpRequest | None:
        url = connection.config.get("userinfo_url", userinfo_url)
        if url is None:
            return None
        headers = {"authorization": f"Bearer {token.reveal()}", "accept": "application/json"}
        return HttpRequest(method="GET", url=url, headers=headers)

    def read_subject(connection: ProviderConnection, document: Any) -> ExternalIdentity | None:
        match document:
            case {"sub": str(subject)} if subject:
                login = document.get("preferred_username")
                # A subject is unique only at its issuer (OpenID Connect Core §2), and this profile serves many.
                own = userinfo_url is not None
                name = subject if own else f"{connection.config.get('issuer', connection.id)}#{subject}"
                if kept(name) != name:
                    name = f"sha256:{sha256(name.encode(errors='surrogatepass')).hexdigest()}"
                return ExternalIdentity(id=name, login=login if isinstance(login, str) else None)
            case _:
                return None

    return WhoAmI(request=ask, read=read_subject)


_DISCOVERY = read("https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata")
_RFC6749 = read("https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1")
_RFC7009 = read("https://www.rfc-editor.org/rfc/rfc7009#section-2.1")
_RFC7523 = read("https://www.rfc-editor.org/rfc/rfc7523#section-2.1")
_UNKNOWN = assumed("it differs between servers; rotating is the cautious assumption")
# RFC 7009 §2.1: with the refresh token a server SHOULD also revoke access tokens, if it can. Both are presented.
_REVOCATION = Revocation(
    reach=Reach.GRANT, presents="refresh_token", access_too=True, gone_codes=frozenset({"invalid_token"})
)

OIDC = Profile(
    name="oidc",
    title="OpenID",
    api_url="",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.BASIC,
    rotates=True,
    whoami=openid_user(),
    assertion=Assertion(),
    discovers=True,
    revocation=_REVOCATION,
    sources={
        "api_url": assumed("the upstream's, given with --api-url; by default the issuer"),
        "authorize_url": _DISCOVERY,
        "token_url": _DISCOVERY,
        "client_auth": _DISCOVERY,
        "rotates": _UNKNOWN,
        "whoami": read("https://openid.net/specs/openid-connect-core-1_0.html#UserInfo"),
        "assertion": _RFC7523,
        "discovers": _DISCOVERY,
        "revocation": _RFC7009,
    },
)

OAUTH2 = Profile(
    name="oauth2",
    title="OAuth 2.0",
    api_url="",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.BASIC,
    rotates=True,
    whoami=openid_user(),
    assertion=Assertion(),
    revocation=_REVOCATION,
    sources={
        "api_url": assumed("given with --api-url"),
        "authorize_url": assumed("given with --authorize-url, or discovered by --issuer (RFC 8414)"),
        "token_url": assumed("given with --token-url, or discovered by --issuer (RFC 8414)"),
        "client_auth": _RFC6749,
        "rotates": _UNKNOWN,
        "whoami": assumed("asked only if the connection has a userinfo_url that answers with a sub"),
        "assertion": _RFC7523,
        "revocation": _RFC7009,
    },
)
