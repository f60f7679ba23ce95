"""Attributes a refusal to the secret, account, person, assertion or client at fault, and records it.

Functions that take a connection run inside the transaction that ends the refresh.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom
from identity.connections.registry import lock_connection, pause_connection, was_changed
from identity.connections.secrets import SealedSecret, accept_secret, live_secrets, refuse_secret
from identity.model import Credential, ProviderConnection
from identity.oauth.answers import UNNAMED_401, ClientRefused, Withheld
from identity.providers.profile import Profile
from identity.refresh.requests import AssertionRefused, in_words, may_be_of_account, may_be_of_secret, spare_secret


class Blame(StrEnum):
    """The party taken to be at fault, as far as is known."""

    NOBODY_YET = "nobody yet"  # another secret may have been presented than the first now: try again
    SUSPECT = "suspect"  # a gateway, one account, or the client: other accounts' refusals show which
    SECRET = "secret"  # noqa: S105 - the one that was presented, while another is live
    ACCOUNT = "account"  # or nobody: pauses nothing
    PERSON = "person"  # the provider wants the person to sign in
    ASSERTION = "assertion"  # the key, the clock or the consent: the codes do not tell
    CLIENT = "client"  # pauses the connection


Refusal = ClientRefused | AssertionRefused | Withheld


def blame(
    refusal: Refusal,
    *,
    credential: Credential,
    profile: Profile,
    secrets: Sequence[SealedSecret],
    refused_keys: Collection[str] = (),
    unsure: bool = False,
) -> Blame:
    """Return the party to blame for *refusal*; the order of the rules matters.

    *secrets* are the client's live secrets, the presented one first. *refused_keys* are those refused just before
    without a named error. *unsure*: a secret other than the one now first may have been presented.
    """
    code = refusal.code
    match refusal:
        case Withheld(person=person):
            return Blame.PERSON if person else Blame.ACCOUNT
        case _ if unsure:
            return Blame.NOBODY_YET
        case AssertionRefused():
            return Blame.ASSERTION
    if code == UNNAMED_401:
        return Blame.SUSPECT
    if spare_secret(secrets, profile, code) is not None:
        return Blame.SECRET
    if may_be_of_account(code, credential):
        return Blame.ACCOUNT
    if may_be_of_secret(profile, code) and _is_known(secrets, refused_keys):
        return Blame.ASSERTION if credential is Credential.JWT_BEARER else Blame.SUSPECT
    return Blame.CLIENT


def pause_client(
    connection: Connection, code: str, *, owner: ProviderConnection, asked: int, shown: Sequence[SealedSecret]
) -> bool:
    """Pause the provider connection whose client was refused.

    *owner* is the connection as the request used it, at the ledger number *asked*. *shown* are its live secrets at
    that time; the first was presented. False if an operator has changed any of this or resumed the connection since:
    the refusal says nothing about the new configuration, which must be tried.
    """
    if was_changed(connection, owner, asked=asked):
        return False
    live = live_secrets(connection, owner.id, shown[0].name) if shown else ()
    # A secret may have been added between reading them and taking the intent's number, which `was_changed` misses.
    if _which(live) != _which(shown):
        return False
    which = f", which authenticated by its {shown[0].name}" if shown else ""  # for the person who replaces it
    pause_connection(connection, owner.id, reason=f"its token endpoint refused the client{which} ({in_words(code)})")
    return True


def hold_against(
    connection: Connection,
    secret: str,
    code: str,
    *,
    spare: str,
    owner: ProviderConnection,
    asked: int,
    whom: AsWhom,
    audit_id: str,
    now: datetime,
) -> bool:
    """Mark one *secret* of the client refused with *code*: *spare* goes first from now on.

    False if an operator has changed *owner* since, as in `pause_client`: it must be tried again.
    """
    if was_changed(connection, owner, asked=asked):
        return False
    if refuse_secret(connection, secret, at=now):
        record_refused(connection, secret, code, spare=spare, owner=owner.id, whom=whom, audit_id=audit_id, now=now)
    return True


def record_refused(
    connection: Connection,
    secret: str,
    code: str,
    *,
    spare: str,
    owner: str,
    whom: AsWhom,
    audit_id: str,
    now: datetime,
) -> None:
    """Record in the audit that *secret* was refused. *code* is from a closed set, ours or a provider profile's."""
    audit.record(
        connection,
        "connection.secret_refused",
        whom,
        id=audit_id,
        at=now,
        outcome=code[:64],
        reason=f"{secret} was refused ({in_words(code)}); {spare} is used instead",
        detail={"connection": owner, "secret": secret, "spare": spare},
    )


def judge_secrets(
    connection: Connection, owner: str, refused: Sequence[str], *, accepted: SealedSecret, now: datetime
) -> list[str]:
    """Mark *refused* secrets as wrong now that another is *accepted*, and clear any mark on the accepted one.

    Return the newly marked ones.
    """
    wrong = [secret for secret in refused if secret != accepted.id]
    if not wrong and accepted.refused_at is None:
        return []
    lock_connection(connection, owner)  # serializes two callers with contrary findings
    accept_secret(connection, accepted.id)
    return [secret for secret in wrong if refuse_secret(connection, secret, at=now)]


def _is_known(secrets: Sequence[SealedSecret], refused_keys: Collection[str]) -> bool:
    """True if the presented secret was marked refused before and a fresh one was just refused without a named error."""
    if not secrets or secrets[0].refused_at is None:
        return False
    return any(one.refused_at is None and one.id in refused_keys for one in secrets)


def _which(secrets: Sequence[SealedSecret]) -> dict[str, datetime | None]:
    """Map ids to refusals, ignoring order: it differs between accounts (`refused_keys`)."""
    return {secret.id: secret.refused_at for secret in secrets}
