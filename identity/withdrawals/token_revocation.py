"""Token revocation (RFC 7009, or the provider's own way): the request, and whether its answer says it ended."""

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
    """Which token the request is about: `access_token` or `refresh_token`."""
    return ACCESS if profile.revocation is None or credential in MINTED else profile.revocation.presents


def can_be_asked(profile: Profile, owner: ProviderConnection, credential: Credential) -> bool:
    """Whether the provider can be asked to end a token that was obtained as *credential*."""
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
    """The request that ends *token*, obtained as *credential*; None: the provider cannot be asked for it.

    *hint* is which of the two it is, in RFC 7009's words.

    By RFC 7009 unless the provider's row has its own way. Raises Misconfigured.
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
    """The row's revocation endpoint, for tokens of the row's token endpoint alone.

    A token is shown to the server that issued it: one of a server of one's own must not go to the public one.
    """
    return profile.revocation_url if owner.token_url == profile.token_url else ""


def has_ended(profile: Profile, answer: Answer, *, credential: Credential) -> bool:
    """Whether the answer says that the token of *credential* has ended, now or before. False: ask again later."""
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
    """Whether the server says that it ends no tokens of that kind (RFC 7009 §2.2.1)."""
    return _code(answer) == "unsupported_token_type"


def refuses_token(outcome: Outcome) -> bool:
    """Whether the server refused what was said of this token: of another it may say else. Not of the client, or all."""
    return isinstance(outcome, Answer) and 400 <= outcome.status < 500 and outcome.status not in (401, 408, 429)


def _code(answer: Answer) -> str | None:
    """The error in the body; RFC 7009's success has an empty one."""
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
