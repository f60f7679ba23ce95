"""Tests the keys against the ledger's sealed secrets and its signed chain."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from deploy.checkup.finding import Finding, Subject, ok, wrong
from deploy.installation import Installation
from identity.audit.handovers import newest_kid, trusted_keys
from identity.audit.links import newest_checkpoint
from identity.audit.statements import Head, holds
from identity.errors import Misconfigured
from identity.keys.trusted_keys import key_id
from identity.sealed.proven_keys import KEPT

_TRIED = 50  # newest values of each column, so that recent use of a wrong key is found
_NAMED = 5
_WHERE_KEYS_ARE = (
    "Put that key's line back from keys/vault.retired, or copy keys/vault from a host that has it, or from the backup"
)


def sealed(at: Installation) -> Iterator[Finding]:
    """Check that the vault's keys open the sealed secrets."""
    if not _readable(at):
        return
    faults, tried = [], 0
    for name, value in at.read(_newest):
        tried += 1
        try:
            at.vault.check(value, name)
        except Misconfigured as fault:
            faults.append(str(fault))
    for says in faults[:_NAMED]:
        yield wrong(Subject.SEALED, f"{says}. {_WHERE_KEYS_ARE}")
    if len(faults) > _NAMED:
        yield wrong(Subject.SEALED, f"{len(faults) - _NAMED} more of the {tried} that were tried do not open")
    if not faults:
        yield ok(Subject.SEALED, f"the vault's keys open what is sealed: {tried} tried" if tried else "nothing yet")


def _readable(at: Installation) -> bool:
    """True if there are keys to test. Otherwise the check `keys` has reported why not."""
    try:
        return bool(at.keys.vault)
    except Misconfigured:
        return False


def _newest(connection: Connection) -> list[tuple[str, bytes]]:
    found = []
    for field in KEPT:
        newest = select(field.key, field.column).where(field.column.is_not(None)).order_by(field.key.desc())
        rows = connection.execute(newest.limit(_TRIED))
        found += [(f"{field} of {key}", bytes(value)) for key, value in rows]
    return found


def signing_key(at: Installation) -> Iterator[Finding]:
    """Check that this host has the key that last signed the ledger."""
    if not _readable(at):
        return
    key = at.signer.public_key()
    kid = key_id(key)
    newest = at.read(newest_kid)
    restore = "copy keys/signing from a host that has the right one, or restore it from the backup, and restart"
    if newest not in (None, kid):
        yield wrong(Subject.SIGNING_KEY, f"this host has key {kid}, and the ledger's is {newest}: {restore}")
        return

    def is_ours(connection: Connection) -> tuple[Head | None, bool]:
        head = newest_checkpoint(connection)
        return head, head is None or holds(head, trusted_keys(connection, key))

    head, ours = at.read(is_ours)
    if head is not None and not ours:
        yield wrong(
            Subject.SIGNING_KEY,
            f"key {kid} did not sign link {head.seq}, the last one of the audit: {restore}. If it is the right one, "
            "the chain was altered: `aswhom audit verify` says how far it is proven",
        )
    else:
        yield ok(Subject.SIGNING_KEY, f"key {kid} signs" + (f", as link {head.seq} of the audit was" if head else ""))
