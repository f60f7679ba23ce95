"""Liveness check of a stored token: ask the provider whose it is. Changes nothing here.

A refusal is not a revocation: an IP rule, a suspended organisation and a renewal elsewhere answer 401 too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from identity.accounts.grants import ACCESS, Grant, get_grant, token_binding
from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account, get_account
from identity.connections.authorization import KEY, authorization
from identity.connections.registry import get_connection
from identity.connections.self_hosted import profile_for
from identity.http.client import Answer, Client, Outcome
from identity.keys.vault import Vault
from identity.model import Credential, ProviderConnection, RuledOut
from identity.providers.profile import ExternalIdentity, Profile, WhoAmI
from identity.providers.words import provider_name
from identity.sql.store import Store

_WITHIN = timedelta(seconds=15)


class Life(StrEnum):
    """The result of checking a token."""

    ALIVE = "alive"  # the provider says whose it is
    OTHER = "other"  # it works, and belongs to another account than the one that consented
    REFUSED = "refused"
    UNKNOWN = "unknown"  # no answer, or none that tells
    EXPIRED = "expired"  # by our own clock: not asked
    NONE = "none"  # there is no token to ask about
    REVOKED = "revoked"  # revoked here: not asked


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """The result of the check, and a sentence for people."""

    life: Life
    said: str
    external: ExternalIdentity | None = None


def ask_whose(
    store: Store,
    vault: Vault,
    http: Client,
    profiles: Mapping[str, Profile],
    account: str,
    *,
    now: datetime,
) -> Liveness:
    """Ask the provider whose the account's token is.

    Raises Misconfigured for an unknown account, and for a token of a type that must not be presented.
    """
    found, owner, grant, revoked = store.read(lambda c: _asked_of(c, account))
    profile, name = profile_for(profiles, owner), provider_name(found.provider)
    if grant is None or grant.access_sealed is None:
        return Liveness(life=Life.NONE, said="there is no token: it was never issued, has died, or was shredded")
    if revoked is not None:
        # Only the withdrawals listed in its receipt still present a revoked token.
        return Liveness(life=Life.REVOKED, said=f"{revoked.reason}: its token is shown to nobody any more")
    if grant.expires_at is not None and now >= grant.expires_at:
        return Liveness(life=Life.EXPIRED, said=f"the token expired at {grant.expires_at:%Y-%m-%d %H:%M} UTC")
    if profile.whoami is None or found.credential is Credential.INSTALLATION:
        return Liveness(life=Life.UNKNOWN, said=f"{name} cannot be asked whose such a token is")
    binding = token_binding(found.key.tenant, account, found.provider, ACCESS, grant.generation)
    token = vault.open(grant.access_sealed, binding)
    if (question := profile.whoami.request(owner, token)) is None:
        return Liveness(life=Life.UNKNOWN, said=f"nobody said where {name} can be asked: give userinfo_url by --config")
    shown = authorization(owner, token, token_type=grant.token_type)
    if grant.token_type == KEY:
        others = {header: value for header, value in question.headers.items() if header.lower() != "authorization"}
        question = replace(question, headers=others | dict([shown]))
    return _liveness_of(http.send(question, within=_WITHIN), found, owner, profile.whoami)


def _liveness_of(answer: Outcome, account: Account, owner: ProviderConnection, whoami: WhoAmI) -> Liveness:
    """Interpret the provider's answer about the account's token."""
    name = provider_name(account.provider)
    if not isinstance(answer, Answer):
        return Liveness(life=Life.UNKNOWN, said=f"{name} did not answer ({answer.reason})")
    if answer.status in (401, 403):
        return Liveness(life=Life.REFUSED, said=f"{name} refuses the token (status {answer.status})")
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    external = whoami.read(owner, document) if answer.status == 200 else None
    if external is None:
        # Slack and GraphQL refuse with 200 and give the reason in the body.
        unwilling = answer.status == 200 and document is not None
        life = Life.REFUSED if unwilling else Life.UNKNOWN
        return Liveness(life=life, said=f"{name} does not say whose the token is (status {answer.status})")
    who = external.login or external.id
    if (
        account.external_id is not None
        and account.external_id != external.id
        and account.credential is Credential.AUTHORIZATION_CODE
    ):
        said = f"{name} takes the token as that of {who}, not of {account.external_login or account.external_id}"
        return Liveness(life=Life.OTHER, said=said, external=external)
    return Liveness(life=Life.ALIVE, said=f"{name} takes the token as that of {who}", external=external)


def _asked_of(
    connection: Connection, account: str
) -> tuple[Account, ProviderConnection, Grant | None, RuledOut | None]:
    """Return an account, its provider connection, its grant, and the revocation that came after its consent, if any."""
    found = get_account(connection, account)
    grant = get_grant(connection, account)
    revoked = None
    if grant is not None:
        # A stop can be undone, so the token stays good.
        revoked = revoked_since(connection, found.key.scopes, grant.consented, or_stopped=False)
    return found, get_connection(connection, found.key.connection), grant, revoked
