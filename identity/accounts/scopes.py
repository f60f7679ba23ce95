"""The memory of revocation: per scope, one number and an admin's stop (docs/decisions/0003)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, bindparam, case, exists, or_, select, true

from identity.accounts.states import find_account, move_account
from identity.model import AccountKey, AccountState, RuledOut, Scope, ScopeKind
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from identity.tables import scopes

#: Matches the rows of at most one scope a kind; `scope_keys` are its parameters.
IS_WANTED = or_(*(and_(scopes.c.kind == str(kind), scopes.c.key == bindparam(f"{kind}_key")) for kind in ScopeKind))
_FIND = Prepared(select(scopes).where(IS_WANTED))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The number of a scope's last revocation (0: never), and whether an admin has stopped it."""

    revoked: int = 0
    stopped: bool = False


NEVER = Standing()


def all_standings(connection: Connection, wanted: Iterable[Scope]) -> dict[Scope, Standing]:
    """Return the standings of any number of scopes of each kind.

    A scope without a row was never revoked and is left out.
    """
    by_kind: dict[ScopeKind, set[str]] = {}
    for scope in wanted:
        by_kind.setdefault(scope.kind, set()).add(scope.key)
    named = [and_(scopes.c.kind == str(kind), scopes.c.key.in_(sorted(keys))) for kind, keys in by_kind.items()]
    if not named:
        return {}
    return {
        Scope(kind=ScopeKind(row.kind), key=row.key): Standing(revoked=row.revoked, stopped=row.stopped)
        for row in connection.execute(select(scopes).where(or_(*named)))
    }


def standings(connection: Connection, wanted: Iterable[Scope]) -> dict[Scope, Standing]:
    """Return the standings of these scopes (at most one a kind) in one statement; NEVER for a scope without a row."""
    wanted = tuple(wanted)
    return remembered(wanted, _FIND.run(connection, scope_keys(wanted)))


def scope_keys(wanted: Iterable[Scope]) -> dict[str, str]:
    """Return the parameters of `IS_WANTED`."""
    return {f"{kind}_key": "" for kind in ScopeKind} | {f"{scope.kind}_key": scope.key for scope in wanted}


def remembered(wanted: Iterable[Scope], rows: Iterable[Row[Any]]) -> dict[Scope, Standing]:
    """Return the standing of each wanted scope by *rows* with the columns of `scopes`; NEVER if it has no row."""
    found = dict.fromkeys(wanted, NEVER)
    for row in rows:
        scope = row.kind and Scope(kind=ScopeKind(row.kind), key=row.key)
        if scope in found:
            found[scope] = Standing(revoked=row.revoked, stopped=row.stopped)
    return found


def revoked_since(
    connection: Connection, wanted: Iterable[Scope], number: int, *, or_stopped: bool = True
) -> RuledOut | None:
    """Return the first of these scopes that was revoked at or after *number*, or is stopped (an admin undoes it)."""
    return prohibition(standings(connection, wanted), number, or_stopped=or_stopped)


def newest_revocation(connection: Connection, wanted: Iterable[Scope]) -> int:
    """Return the number of the last revocation of any of these scopes; 0: never."""
    return max((standing.revoked for standing in standings(connection, wanted).values()), default=0)


def prohibition(found: dict[Scope, Standing], number: int, *, or_stopped: bool = True) -> RuledOut | None:
    """Return why *number* must not act: a scope is stopped, or was revoked at or after it. None if it may."""
    for scope, standing in found.items():
        if standing.stopped and or_stopped:
            return RuledOut(scope=scope, reason=f"{scope} is stopped")
        if standing.revoked >= number:
            return RuledOut(
                scope=scope, reason=f"{scope} was revoked since (ledger number {standing.revoked}, after {number})"
            )
    return None


def is_prohibited(number: ColumnElement[int], *, users: Sequence[ColumnElement[str]] = ()) -> ColumnElement[bool]:
    """Build `prohibition` in SQL for a row with that *number*: over `IS_WANTED`, and over further *users*."""
    wanted = or_(IS_WANTED, and_(scopes.c.kind == str(ScopeKind.USER), scopes.c.key.in_(users))) if users else IS_WANTED
    return exists().where(wanted, or_(scopes.c.stopped.is_(True), scopes.c.revoked >= number))


def is_revoked(table: Table, number: ColumnElement[int], *, or_stopped: bool = False) -> ColumnElement[bool]:
    """Build the revocation half of `prohibition` in SQL, for rows that name an account, by their *number*.

    With *or_stopped*, build all of it.
    """
    columns = table.c
    account = columns.tenant_id + "/" + columns.connection_id + "/" + columns.principal_id  # as `AccountKey` writes it
    keys = {
        ScopeKind.TENANT: columns.tenant_id,
        ScopeKind.CONNECTION: columns.connection_id,
        ScopeKind.USER: columns.principal_id,
        ScopeKind.ACCOUNT: account,
    }
    later = scopes.c.revoked >= number
    if or_stopped:
        later |= scopes.c.stopped
    return or_(*(exists().where(scopes.c.kind == str(kind), scopes.c.key == key, later) for kind, key in keys.items()))


def revoke_scope(connection: Connection, scope: Scope, number: int, *, reason: str, now: datetime) -> None:
    """Store a revocation: one row, however much depends on the scope. The caller holds the scope's lock exclusively.

    *number* was taken under that lock. A greater stored number stays. Revoking an account also moves its row to
    REVOKED.
    """
    _upsert(connection, scope, revoked=number)
    if scope.kind is ScopeKind.ACCOUNT:
        account = find_account(connection, AccountKey.parse(scope.key))
        if account is not None:
            move_account(connection, account.id, to=AccountState.REVOKED, reason=reason, now=now)


def remember_stop(connection: Connection, scope: Scope, *, stopped: bool) -> None:
    """Stop a scope, so that no step opens under it, or open it again. The number of its last revocation stays."""
    _upsert(connection, scope, stopped=stopped)


def _upsert(connection: Connection, scope: Scope, *, revoked: int = 0, stopped: bool | None = None) -> None:
    row = {"kind": scope.kind, "key": scope.key, "revoked": revoked, "stopped": bool(stopped)}
    _remember(connection.dialect.name, stops=stopped is not None).run(connection, row)


@cache
def _remember(dialect: str, *, stops: bool) -> Prepared:
    statement = insert_for(dialect, scopes)
    new = statement.excluded
    later = case((scopes.c.revoked > new.revoked, scopes.c.revoked), else_=new.revoked)
    values = {"stopped": new.stopped} if stops else {"revoked": later}
    return Prepared(statement.on_conflict_do_update(index_elements=["kind", "key"], set_=values, where=true()))
