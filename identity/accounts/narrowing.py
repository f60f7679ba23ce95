"""Narrowing: an account keeps some of its scopes. Nothing is revoked; a step that lacks one waits for consent.

The provider's token still has them all: what is narrowed is what Aswhom uses it for. A refresh whose answer names more
does not widen it again (RFC 6749 §6 forbids the provider to add any); a new consent does. Whatever takes a scope away
says at which ledger number: no step that needs it opens after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from identity import audit
from identity.accounts.states import Account
from identity.audit import Act, AsWhom
from identity.errors import BadInput
from identity.model import Credential
from identity.scope_bounds import covered, within
from identity.sql.sequence import lock_exclusive_number_and_time, next_number_and_time
from identity.tables import grants

#: Whose next token is asked for by the scopes that are left: without any it would have all there are.
BOUND_BY_SCOPES = (Credential.INSTALLATION, Credential.JWT_BEARER)


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """What an account had, what it keeps, and since when, by the ledger's number and its clock.

    *took*: what it had and is not allowed any more. A kept scope may include one that is not named any more.
    """

    had: tuple[str, ...]
    keeps: tuple[str, ...]
    took: tuple[str, ...]
    number: int
    at: datetime


def narrow(connection: Connection, account: Account, act: Act, *, keep: tuple[str, ...]) -> Narrowed:
    """Rewrite the granted scopes to *keep*, under the account's lock.

    Raises BadInput for scopes that it does not have, for all of them, for one that another kept one includes, and for
    none where a token is asked for by its scopes: without any it would have them all.
    """
    number, at = lock_exclusive_number_and_time(connection, account.key.scope)
    row = connection.execute(select(grants.c.scopes).where(grants.c.account_id == account.id)).one_or_none()
    if row is None:
        raise BadInput(f"account {account.key} was never connected: it has no scopes")
    had = tuple(row.scopes)
    if refusal := _prohibition(account, had, keep):
        raise BadInput(refusal)
    rewritten = update(grants).where(grants.c.account_id == account.id)
    connection.execute(rewritten.values(scopes=list(keep), ceiling=list(keep)))
    whom, detail = AsWhom.of_account(account.key, id=account.id), {"had": list(had), "keeps": list(keep)}
    audit.record_act(connection, "account.narrowed", whom, act, number=number, outcome="narrowed", detail=detail)
    return Narrowed(had=had, keeps=keep, took=_taken(account, had, keep), number=number, at=at)


def rescope(connection: Connection, account: Account, scopes: tuple[str, ...]) -> Narrowed | None:
    """Rewrite the granted scopes, narrower or wider but within what it was bounded to; nothing is revoked.

    None: it is allowed all that it was before. The caller holds the account's lock exclusively.
    """
    mine = grants.c.account_id == account.id
    row = connection.execute(select(grants.c.scopes, grants.c.ceiling).where(mine)).one_or_none()
    if row is None:
        return None
    had, kept = tuple(row.scopes), tuple(within(account.provider, scopes, ceiling=row.ceiling))
    connection.execute(update(grants).where(mine).values(scopes=list(kept)))
    if not (took := _taken(account, had, kept)):
        return None
    number, at = next_number_and_time(connection)
    return Narrowed(had=had, keeps=kept, took=took, number=number, at=at)


def _taken(account: Account, had: tuple[str, ...], keeps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(had) - covered(account.provider, keeps)))


def _prohibition(account: Account, had: tuple[str, ...], keep: tuple[str, ...]) -> str | None:
    named = f"account {account.key} has {', '.join(had) or 'no scopes of its own'}"
    if unknown := sorted(set(keep) - set(had)):
        return f"{named}: narrowing cannot add {', '.join(unknown)}, a new consent can"
    dropped = set(had) - set(keep)
    if not dropped:
        return f"{named}: there is nothing to narrow"
    if account.credential in BOUND_BY_SCOPES and not keep:
        return f"{named}: without any, its next token would be asked for without a bound: stop or revoke it instead"
    if still := sorted(dropped & covered(account.provider, keep)):
        return f"{', '.join(still)} would stay allowed: a kept scope includes it at {account.provider}"
    return None
