"""What a refusal is held against: first what it may be the fault of, then that this holds, as long as it does.

Those that take a connection run inside the transaction that ends the refresh.
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
from identity.minting.requests import AssertionRefused, in_words, may_be_of_account, may_be_of_secret, spare_secret
from identity.model import Credential, ProviderConnection
from identity.oauth.answers import UNNAMED_401, ClientRefused, Withheld
from identity.providers.profile import Profile


class Blame(StrEnum):
    """What is taken to be at fault, by what is known."""

    NOBODY_YET = "nobody yet"  # it may have been said of another secret than goes first now: that one is tried
    SUSPECT = "suspect"  # a gateway, one account, or the client: what others are told says which
    SECRET = "secret"  # noqa: S105 - the one that was shown, and another is live
    ACCOUNT = "account"  # or nobody: it pauses nothing
    PERSON = "person"  # is wanted there
    ASSERTION = "assertion"  # the key, the clock or the consent: the codes do not tell
    CLIENT = "client"  # the connection pauses


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
    """What *refusal* is held against; the order of the rules is the rule.

    *secrets* are the client's live ones, the one that was shown first, and *refused_keys* those with which it was
    refused just before, without a name. *unsure*: another may have been shown than goes first now.
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
    """Pause the provider connection, whose client was refused.

    *owner* is the connection as the request was made by it, at the ledger number *asked*, and *shown* were its live
    secrets, of which the first was shown. False if an operator changed any of it meanwhile, or resumed the connection:
    what was said before is not held against what holds now, which is to be tried.
    """
    if was_changed(connection, owner, asked=asked):
        return False
    live = live_secrets(connection, owner.id, shown[0].name) if shown else ()
    # A secret may have come between the look at them and the intent's number: that does not tell.
    if _which(live) != _which(shown):
        return False
    which = f", which authenticated by its {shown[0].name}" if shown else ""  # for who is to replace it
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
    """Hold it against one *secret* of the client that it was refused with *code*: *spare* goes first from now on.

    False if an operator changed *owner* meanwhile, as in `pause_client`: then it is to be tried again.
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
    """Record that *secret* is held refused. *code* is of a closed set, ours or a provider's row's."""
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
    """Hold it against the *refused* ones that another is accepted, against which nothing is held any more.

    Those of which it was not known before.
    """
    wrong = [secret for secret in refused if secret != accepted.id]
    if not wrong and accepted.refused_at is None:
        return []
    lock_connection(connection, owner)  # of two that find out otherwise, one waits
    accept_secret(connection, accepted.id)
    return [secret for secret in wrong if refuse_secret(connection, secret, at=now)]


def _is_known(secrets: Sequence[SealedSecret], refused_keys: Collection[str]) -> bool:
    """Whether the secret shown was known as refused: the fresh one was refused just before, and not by name."""
    if not secrets or secrets[0].refused_at is None:
        return False
    return any(one.refused_at is None and one.id in refused_keys for one in secrets)


def _which(secrets: Sequence[SealedSecret]) -> dict[str, datetime | None]:
    """Whatever their order: for an account that one was refused for, another goes first."""
    return {secret.id: secret.refused_at for secret in secrets}
