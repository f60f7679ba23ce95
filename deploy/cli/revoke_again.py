"""`revoke --from`: repeats revocations that a restored ledger has forgotten."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from deploy.cli.command import PROBLEM, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.accounts.grants import get_grant
from identity.accounts.scope_bounds import covered
from identity.accounts.scopes import newest_revocation
from identity.accounts.states import find_account
from identity.errors import BadInput
from identity.model import AccountKey, Scope, ScopeKind
from pipeline.desk.restored import marks
from pipeline.desk.scopes import named_scope
from pipeline.operators import names_of_revoker
from pipeline.revocation import declaration
from pipeline.revocation.tables import NARROWING, revocations

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A revocation as listed by `revocations list --output`."""

    id: str
    number: int
    scope: Scope
    reason: str
    people: tuple[str, ...]  # all names of the revoker, who does not approve compensations either


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """A narrowing as listed by `revocations list --output`."""

    id: str
    key: AccountKey
    keeps: tuple[str, ...]
    by_provider: bool  # which may have given the scopes back since, and nothing lists that


@dataclass(frozen=True, kw_only=True)
class Due:
    """A listed revocation that has to be repeated."""

    listed: Listed
    tenant: str | None
    is_known: bool  # False: the backup predates the scope


@dataclass(frozen=True, kw_only=True)
class SortedOut:
    """A list sorted by what has to be done. Scopes on which the ledger and the list agree are left out."""

    due: list[Due]
    done: list[Listed]  # revoked since the restore


def revoke_again(
    at: Installation, out: Output, file: Path, *, after: int | None, dry_run: bool, yes: bool
) -> int | None:
    """Repeat the list's newest revocation of each scope that the ledger has forgotten.

    That is one newer than the ledger's own of the scope, and if given, numbered after *after*. If the command is
    interrupted, run it again to continue with the rest.
    """
    listed, narrowings = _read(file)
    to_narrow = at.read(lambda c: _to_narrow(c, narrowings))
    for advice in to_narrow:
        out.note(f"this ledger has forgotten a narrowing, which --from does not repeat: {advice}")
    sorted_out = at.read(lambda c: _sorted_out(c, at, listed, after))
    due, done = sorted_out.due, sorted_out.done
    names = [str(one.listed.scope) for one in due]
    unknown = [str(one.listed.scope) for one in due if not one.is_known]
    told = {"listed": len(listed), "unknown": unknown, "done_before": [str(one.scope) for one in done]}
    told["to_narrow"] = to_narrow
    for name in unknown:
        out.note(f"{name} is not in this ledger, and is revoked in case it appears there later")
    newer = f"this ledger had forgotten those of {len(due) + len(done)} scope(s)"
    of = f"of the {len(listed)} revocation(s) in {file}, {newer}, and {len(done)} are revoked again already"
    if to_narrow and not (due or done):
        out.done("No revocation is missing: only narrowings are, as said above", {**told, "due": []})
        return None
    if not (due or done):
        than = "what this ledger has" if after is None else after
        out.done(
            f"Nothing is revoked: nothing in {file} is newer than {than}. Is it the newest list, and of this ledger?",
            {**told, "due": []},
        )
        return PROBLEM
    if dry_run:
        out.done("\n".join([f"Nothing is revoked; {of}. To be revoked again:", *names]), {**told, "due": names})
        return None
    if due:
        confirm(f"{at.which}: {of}. Revoke {len(due)} of them again ({_some(names)})?", yes=yes)
    made = [_declare(at, one) for one in due]
    out.done(f"{len(made)} scope(s) are revoked again; {of}", {**told, "revoked": made, "due": names})
    if made:
        at.ring_revocations(made)
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _declare(at: Installation, one: Due) -> str:
    id, now, listed = at.ids("rev"), at.now(), one.listed
    reason = f"{listed.reason} (again, since a restore had forgotten {listed.id})"
    cause = declaration.Cause(source="cli", by=at.operator, reason=reason, barred=listed.people)

    def write(c: Connection) -> int:
        return declaration.declare(c, listed.scope, cause, id=id, tenant=one.tenant, now=now)

    at.write(write, ahead=True)
    return id


def _sorted_out(connection: Connection, at: Installation, listed: list[Listed], after: int | None) -> SortedOut:
    """Compare the list's newest revocation of each scope with the ledger's rows.

    The ledger's current number is no measure: its sequence may have advanced while a dump was made or before a standby
    took over, without any row for those numbers. Revocations made since the restore have numbers beyond every lost one
    (`pipeline.desk.restored.GAP`).
    """
    marked = [mark.after for mark in marks(connection)] if after is None else [after]
    if not marked:
        raise BadInput(
            "this ledger was never marked by `aswhom db restored`: give --after, the last ledger number the backup has"
        )
    found = SortedOut(due=[], done=[])
    for one in {one.scope: one for one in listed if one.number > (after or 0)}.values():
        known = newest_revocation(connection, [one.scope])
        if any(mark < known for mark in marked if after is not None or one.number <= mark):
            found.done.append(one)
        elif known < one.number:
            found.due.append(_due(connection, at, one))
    return found


def _due(connection: Connection, at: Installation, listed: Listed) -> Due:
    scope = listed.scope
    try:
        found, tenant = named_scope(connection, at.workflows, scope.kind, scope.key, tenant=None)
    except BadInput:
        return Due(listed=listed, tenant=None, is_known=False)
    is_known = found == scope  # and not an agent that only has the same name
    return Due(listed=listed, tenant=tenant if is_known else None, is_known=is_known)


def _to_narrow(connection: Connection, narrowings: list[Narrowing]) -> list[str]:
    """Return how to take back scopes that the restore revived, by the newest narrowing of each account."""
    found = []
    for one in {one.key: one for one in narrowings}.values():
        known = connection.execute(select(revocations.c.id).where(revocations.c.id == one.id)).first()
        account = find_account(connection, one.key)
        grant = None if known or account is None else get_grant(connection, account.id)
        if account is None or grant is None:
            continue
        allowed = covered(account.provider, one.keeps)
        if allowed.issuperset(grant.scopes):
            continue
        kept = ",".join(scope for scope in grant.scopes if scope in allowed)
        command = f"run `aswhom accounts narrow {account.id} --scopes {shlex.quote(kept)}`"
        # The command sets a ceiling, which would outlast a later permission of the provider's.
        look = f"the provider left {account.key} {kept}: compare it with what the provider shows now, and if it stands"
        found.append(f"{look}, {command}" if one.by_provider else command)
    return found


def _read(file: Path) -> tuple[list[Listed], list[Narrowing]]:
    """Return both lists oldest first, so that the last entry of a scope wins."""
    try:
        rows = list(reversed(json.loads(file.read_text(encoding="utf-8"))))
        narrows = [row["kind"] == NARROWING for row in rows]
        listed = [_listed(row) for row, is_one in zip(rows, narrows, strict=True) if not is_one]
        return listed, [_narrowing(row) for row, is_one in zip(rows, narrows, strict=True) if is_one]
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is not what `aswhom revocations list --output` writes") from error


def _listed(row: Mapping[str, Any]) -> Listed:
    number, scope = row["number"], Scope(kind=ScopeKind(str(row["kind"])), key=str(row["key"]))
    if not isinstance(number, int):
        raise TypeError
    if scope.kind is ScopeKind.ACCOUNT:
        AccountKey.parse(scope.key)
    people = names_of_revoker(str(row["requested_by"]), row.get("barred"))  # lists of older versions have no `barred`
    return Listed(id=str(row["id"]), number=number, scope=scope, reason=str(row["reason"]), people=people)


def _narrowing(row: Mapping[str, Any]) -> Narrowing:
    keeps = tuple(map(str, row["narrowing"]["keeps"]))
    by_provider = row["signal_id"] is not None
    return Narrowing(id=str(row["id"]), key=AccountKey.parse(str(row["key"])), keeps=keeps, by_provider=by_provider)
