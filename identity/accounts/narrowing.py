"""Narrowing: an account keeps some of its scopes. Nothing is revoked; a step that lacks a scope waits for consent.

A person's narrowing (`narrow`) bounds Aswhom's use of a token that still has all scopes at the provider. A refresh
whose answer names more scopes does not widen it again (RFC 6749 §6 forbids the provider to add any); a new consent
does. A provider that takes scopes away itself, or gives them back, is followed by `rescope`. Every removal of a scope
has a ledger number, after which no step that needs the scope opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from identity import audit
from identity.accounts.scope_bounds import covered, within
from identity.accounts.states import Account
from identity.audit import Act, AsWhom
from identity.errors import BadInput
from identity.model import Credential
from identity.sql.sequence import lock_exclusive_number_and_time
from identity.tables import grants

#: Credentials whose next token is requested with the remaining scopes: with none, it would have all of them.
BOUND_BY_SCOPES = (Credential.INSTALLATION, Credential.JWT_BEARER)


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """The scopes an account had and keeps, with the ledger number and database time of the change.

    *took*: scopes it had and may no longer use. A kept scope may include one that is no longer named.
    """

    had: tuple[str, ...]
    keeps: tuple[str, ...]
    took: tuple[str, ...]
    number: int
    at: datetime


def narrow(connection: Connection, account: Account, act: Act, *, keep: tuple[str, ...]) -> Narrowed:
    """Reduce the granted scopes to *keep*, under the account's lock.

    Raises BadInput if *keep* adds a scope or drops none, if a dropped scope is included in a kept one, and if *keep* is
    empty where tokens are requested by scope, since the next one would have them all.
    """
    keep = tuple(dict.fromkeys(keep))
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
    """Rewrite the granted scopes within the account's ceiling, narrower or wider; nothing is revoked.

    Returns None if no scope was taken away. The caller holds the account's lock exclusively. Raises Unavailable if the
    ledger's sequence is behind its rows.
    """
    mine = grants.c.account_id == account.id
    row = connection.execute(select(grants.c.scopes, grants.c.ceiling).where(mine)).one_or_none()
    if row is None:
        return None
    had, kept = tuple(row.scopes), tuple(within(account.provider, scopes, ceiling=row.ceiling))
    connection.execute(update(grants).where(mine).values(scopes=list(kept)))
    if not (took := _taken(account, had, kept)):
        return None
    number, at = lock_exclusive_number_and_time(connection, account.key.scope)  # locked already: for the check
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
