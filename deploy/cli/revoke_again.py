"""`revoke --from`: in a ledger that was put back, what was withdrawn since is withdrawn again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from deploy.cli.command import confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.scopes import newest_revocation
from pipeline import revocation
from pipeline.desk.scopes import named_scope
from pipeline.ledger.restored import last_mark


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A revocation as `revocations list --output` has it."""

    id: str
    number: int
    kind: ScopeKind
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Due:
    """One of them that is to be made again."""

    listed: Listed
    scope: Scope
    tenant: str | None


def revoke_again(at: Installation, out: Output, file: Path, *, after: int | None, dry_run: bool, yes: bool) -> None:
    """Revoke what the list has that is newer than the ledger number *after*, by default the last that was put back.

    Given again, after it was interrupted, it goes on with what is left.
    """
    listed = _read(file)
    since = _since(at) if after is None else after
    newer = {(one.kind, one.key): one for one in listed if one.number > since}
    due, missing = at.read(lambda c: _sorted_out(c, at, list(newer.values()), since))
    told = {
        "after": since,
        "listed": len(listed),
        "missing": [f"{one.kind}:{one.key}" for one in missing],
        "done_before": len(newer) - len(due) - len(missing),
    }
    for one in missing:
        out.note(f"{one.kind}:{one.key} is not in this ledger, and left out")
    names = [str(one.scope) for one in due]
    of = f"of the {len(listed)} in {file}, {len(newer)} scope(s) were revoked after {since}"
    if dry_run:
        out.done("\n".join([f"Nothing is revoked; {of}. To be revoked again:", *names]), {**told, "due": names})
        return
    if due:
        confirm(f"{at.which}: {of}. Revoke {len(due)} of them again ({', '.join(names[:5])} …)?", yes=yes)
    made = [_declare(at, one) for one in due]
    out.done(f"{len(made)} scope(s) are revoked again; {of}", {**told, "revoked": made, "due": names})
    if made:
        at.ring_revocations(made)


def _since(at: Installation) -> int:
    mark = at.read(last_mark)
    if mark is None:
        raise BadInput("this ledger was never marked by `aswhom db restored`: say with --after what the list is new to")
    return mark.last


def _declare(at: Installation, one: Due) -> str:
    id, now = at.ids("rev"), at.now()
    reason = f"{one.listed.reason} (again, since a restore had forgotten {one.listed.id})"

    def write(c: Connection) -> int:
        return revocation.declare(
            c, id=id, scope=one.scope, tenant=one.tenant, source="cli", by=at.operator, reason=reason, now=now
        )

    at.write(write, ahead=True)
    return id


def _sorted_out(
    connection: Connection, at: Installation, newer: list[Listed], after: int
) -> tuple[list[Due], list[Listed]]:
    """Those that are to be revoked, and those that this ledger has not; the others were, after it was put back."""
    due, missing = [], []
    for one in newer:
        try:
            scope, tenant = named_scope(connection, at.workflows, one.kind, one.key, tenant=None)
        except BadInput:
            missing.append(one)
            continue
        if newest_revocation(connection, [scope]) <= after:
            due.append(Due(listed=one, scope=scope, tenant=tenant))
    return due, missing


def _read(file: Path) -> list[Listed]:
    try:
        return list(_listed(json.loads(file.read_text(encoding="utf-8"))))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is not what `aswhom revocations list --output` writes") from error


def _listed(rows: list[dict[str, object]]) -> Iterator[Listed]:
    """The oldest first, so that of several of a scope the last says why."""
    for row in reversed(rows):
        number, kind = row["number"], ScopeKind(str(row["kind"]))
        if not isinstance(number, int):
            raise TypeError
        yield Listed(id=str(row["id"]), number=number, kind=kind, key=str(row["key"]), reason=str(row["reason"]))
