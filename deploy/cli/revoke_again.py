"""`revoke --from`: in a ledger that was put back, what was withdrawn since is withdrawn again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from deploy.cli.command import PROBLEM, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.scopes import newest_revocation
from pipeline import revocation
from pipeline.desk.scopes import named_scope
from pipeline.ledger.restored import marks

_SHOWN = 5


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


@dataclass(frozen=True, kw_only=True)
class SortedOut:
    """What becomes of a list; of a scope that the ledger remembers as the list does, nothing."""

    due: list[Due]
    missing: list[Listed]  # not in this ledger
    done: list[Listed]  # revoked since it was put back


def revoke_again(
    at: Installation, out: Output, file: Path, *, after: int | None, dry_run: bool, yes: bool
) -> int | None:
    """Revoke again each scope of which the list has a newer revocation than the ledger's rows, or one after *after*.

    Given again, after it was interrupted, it goes on with what is left.
    """
    listed = _read(file)
    sorted_out = at.read(lambda c: _sorted_out(c, at, listed, after))
    due, missing, done = sorted_out.due, sorted_out.missing, sorted_out.done
    told = {
        "listed": len(listed),
        "missing": [f"{one.kind}:{one.key}" for one in missing],
        "done_before": [f"{one.kind}:{one.key}" for one in done],
    }
    for one in missing:
        out.note(f"{one.kind}:{one.key} is not in this ledger, and left out")
    names = [str(one.scope) for one in due]
    newer = f"this ledger has forgotten those of {len(due) + len(missing) + len(done)} scope(s)"
    of = f"of the {len(listed)} revocation(s) in {file}, {newer}, and {len(done)} are revoked again already"
    if not (due or missing or done):
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
    id, now = at.ids("rev"), at.now()
    reason = f"{one.listed.reason} (again, since a restore had forgotten {one.listed.id})"

    def write(c: Connection) -> int:
        return revocation.declare(
            c, id=id, scope=one.scope, tenant=one.tenant, source="cli", by=at.operator, reason=reason, now=now
        )

    at.write(write, ahead=True)
    return id


def _sorted_out(connection: Connection, at: Installation, listed: list[Listed], after: int | None) -> SortedOut:
    """By the newest of each scope in the list, and what the ledger's rows remember of it.

    By no number of the ledger as a whole: its sequence may have gone on while a dump was made, or before a standby
    took over, and what was numbered in between is in no row. What was revoked since it was put back has a number
    beyond every one that was lost (`pipeline.ledger.restored.GAP`).
    """
    marked = [mark.after for mark in marks(connection)] if after is None else [after]
    if not marked:
        raise BadInput("this ledger was never marked by `aswhom db restored`: say with --after what the list is new to")
    found = SortedOut(due=[], missing=[], done=[])
    for one in {(one.kind, one.key): one for one in listed if one.number > (after or 0)}.values():
        known = newest_revocation(connection, [Scope(kind=one.kind, key=one.key)])
        if any(mark < known for mark in marked if after is not None or one.number <= mark):
            found.done.append(one)
        elif known < one.number:
            try:
                scope, tenant = named_scope(connection, at.workflows, one.kind, one.key, tenant=None)
            except BadInput:
                found.missing.append(one)
            else:
                found.due.append(Due(listed=one, scope=scope, tenant=tenant))
    return found


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
