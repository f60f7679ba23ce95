"""Google: user tokens whose refresh tokens do not rotate, and service accounts that sign assertions."""

from __future__ import annotations

from datetime import timedelta

from identity.providers.openid import openid_user
from identity.providers.profile import Assertion, ClientAuth, Profile, Reach, Revocation
from identity.providers.sources import assumed, heard, read

_WEB = heard("https://developers.google.com/identity/protocols/oauth2/web-server")
_EXPIRATION = read("https://developers.google.com/identity/protocols/oauth2#expiration")
_SERVICE = heard("https://developers.google.com/identity/protocols/oauth2/service-account")
_USERINFO = "https://openidconnect.googleapis.com/v1/userinfo"

GOOGLE = Profile(
    name="google",
    title="Google",
    api_url="https://www.googleapis.com",
    authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
    token_url="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
    revocation_url="https://oauth2.googleapis.com/revoke",
    called_too=(_USERINFO,),
    client_auth=ClientAuth.POST,
    rotates=False,
    # Six months without use. Apps in testing: seven days after consent, which no answer tells.
    idle_limit=timedelta(days=180),
    default_lifetime=timedelta(hours=1),
    # Without `consent`, a second consent brings no refresh token.
    authorize_extra={"access_type": "offline", "prompt": "consent"},
    # Requested by OpenID's scope names, it answers with its own.
    implies={f"https://www.googleapis.com/auth/userinfo.{what}": frozenset({what}) for what in ("email", "profile")},
    whoami=openid_user(_USERINFO),
    assertion=Assertion(
        issuer="service_account", scopes_inside=True, scopes_beside=False, lifetime=timedelta(minutes=59)
    ),
    revocation=Revocation(
        reach=Reach.AUTHORIZATION,
        presents="refresh_token",
        gone_codes=frozenset({"invalid_token"}),
    ),
    sources={
        "api_url": assumed("the host of most Google APIs; for others give --api-url"),
        "authorize_url": _WEB,
        "token_url": _WEB,
        "revocation_url": _WEB,
        "client_auth": _WEB,
        "rotates": _WEB,
        "idle_limit": _EXPIRATION,
        "default_lifetime": heard("https://developers.google.com/identity/protocols/oauth2/web-server (its example)"),
        "authorize_extra": _WEB,
        "implies": heard(
            "https://developers.google.com/identity/protocols/oauth2/scopes#oauth2 (both names, one meaning)"
        ),
        "called_too": heard("https://accounts.google.com/.well-known/openid-configuration"),
        "whoami": heard("https://accounts.google.com/.well-known/openid-configuration"),
        "assertion": _SERVICE,
        "revocation": assumed("revoking removes the app from the person's account, so it is taken to end everything"),
    },
)
