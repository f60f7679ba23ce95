"""Token revocation (RFC 7009 or the provider's own way): building the request and reading the answer."""

from __future__ import annotations

import json

from identity.errors import Misconfigured
from identity.http.client import Answer, HttpRequest, Outcome
from identity.model import MINTED, Credential, ProviderConnection
from identity.oauth.requests import Client, revocation_request
from identity.providers.profile import Profile, RevokedToken
from identity.secret import Secret

ACCESS, REFRESH = "access_token", "refresh_token"


def presented(profile: Profile, credential: Credential) -> str:
    """Return the kind of token to revoke: `access_token` or `refresh_token`."""
    return ACCESS if profile.revocation is None or credential in MINTED else profile.revocation.presents


def can_be_asked(profile: Profile, owner: ProviderConnection, credential: Credential) -> bool:
    """True if the provider can be asked to end a token obtained as *credential*."""
    if profile.revocation is None:
        return False
    if profile.revoke is None:
        return credential not in (Credential.STATIC, Credential.INSTALLATION)
    some = Secret("some")
    return (
        profile.revoke(RevokedToken(connection=owner, credential=credential, token=some, client_secret=some))
        is not None
    )


def revoke_request(client: Client, *, credential: Credential, token: Secret, hint: str) -> HttpRequest | None:
    """Return the request that ends *token*, obtained as *credential*; None if the provider cannot be asked.

    It follows RFC 7009 unless the provider's profile has its own way. *hint* is RFC 7009's `token_type_hint`.
    Raises Misconfigured.
    """
    profile, owner = client.profile, client.connection
    if profile.revocation is None:
        return None
    if profile.revoke is not None:
        return profile.revoke(
            RevokedToken(connection=owner, credential=credential, token=token, client_secret=client.secret)
        )
    if credential in (Credential.STATIC, Credential.INSTALLATION):
        return None
    url = owner.config.get("revocation_url") or _endpoint(profile, owner)
    if not url:
        if profile.discovers:
            return None  # its metadata names no revocation endpoint
        raise Misconfigured(
            f"provider connection {owner.id} has no revocation endpoint beside its own token endpoint: "
            "give it with --config revocation_url=…"
        )
    return revocation_request(client, token=token, hint=hint, url=url)


def _endpoint(profile: Profile, owner: ProviderConnection) -> str:
    """Return the profile's revocation endpoint, but only for tokens of the profile's token endpoint.

    A token goes only to the server that issued it: a self-hosted server's must not reach the public one.
    """
    return profile.revocation_url if owner.token_url == profile.token_url else ""


def has_ended(profile: Profile, answer: Answer, *, credential: Credential) -> bool:
    """True if the answer confirms that the token has ended, now or earlier. Otherwise ask again later."""
    if profile.revocation is None:
        return False
    if answer.status in profile.revocation.gone_statuses:
        return True
    if answer.status == 401 and credential in profile.revocation.by_itself:
        return True
    code = _code(answer)
    if code is not None:
        return code in profile.revocation.gone_codes
    return 200 <= answer.status < 300


def ends_none_such(answer: Answer) -> bool:
    """True if the server says that it revokes no tokens of this kind (RFC 7009 §2.2.1)."""
    return _code(answer) == "unsupported_token_type"


def refuses_token(outcome: Outcome) -> bool:
    """True if the server refused this token's request, but not the client (401) or any request now (408, 429)."""
    return isinstance(outcome, Answer) and 400 <= outcome.status < 500 and outcome.status not in (401, 408, 429)


def _code(answer: Answer) -> str | None:
    """Return the error code in the body; a success of RFC 7009 has an empty body."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"error": str(code)}:
            return code
        case {"ok": False}:
            return "unnamed"
        case _:
            return None
