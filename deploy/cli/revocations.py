"""`revoke` and `revocations`: withdrawing authority, and the receipts that say what that stopped."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import click
from sqlalchemy import Connection

from deploy.cli import queries
from deploy.cli.agents import agent_scope
from deploy.cli.command import PROBLEM, command, confirm, invocation
from deploy.cli.output import Output
from deploy.cli.queries import Row
from deploy.cli.tenants import user_id
from deploy.installation import Installation
from identity.model import Scope, ScopeKind
from identity.tables import principals, provider_connections, tenants
from pipeline import revocation

QUIESCED = "quiesced"


def _scope(at: Installation, c: Connection, kind: ScopeKind, key: str, tenant: str | None) -> tuple[Scope, str | None]:
    """What is meant, and whose it is. Raises BadInput for what there is not: a slip must not look like a success."""
    match kind:
        case ScopeKind.ACCOUNT:
            row = queries.account(c, key)
            return Scope(kind=kind, key=str(queries.account_key(row))), row["tenant_id"]
        case ScopeKind.USER:
            row = queries.one(
                c, principals, user_id(tenant, key) if tenant else key, what="user", listed_by="tenants people"
            )
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.CONNECTION:
            row = queries.one(c, provider_connections, key, what="provider connection", listed_by="connections list")
            return Scope(kind=kind, key=row["id"]), row["tenant_id"]
        case ScopeKind.AGENT:
            return agent_scope(at, c, key)  # it may be revoked before its first job
        case ScopeKind.TENANT:
            row = queries.one(c, tenants, key, what="tenant", listed_by="tenants list")
            return Scope(kind=kind, key=row["id"]), row["id"]


@click.command()
@click.argument("kind", type=click.Choice([str(kind) for kind in ScopeKind]))
@click.argument("key")
@click.option("--tenant", help="Whose user it is, where KEY is only her name.")
@click.option("--reason", default="an operator's decision", show_default=True, help="For the receipt and the audit.")
@click.option("--wait", is_flag=True, help="Wait for the receipt.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait at most.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@invocation
def revoke(
    at: Installation,
    out: Output,
    kind: str,
    key: str,
    tenant: str | None,
    reason: str,
    wait: bool,
    timeout: float,
    yes: bool,
) -> int | None:
    """Withdraw authority, now: account, user, agent, connection or tenant.

    From the moment this returns, no step that depends on it opens, whatever is queued. KEY is an id; an account is also
    TENANT/CONNECTION/PRINCIPAL.
    """
    scope, owner = at.read(lambda c: _scope(at, c, ScopeKind(kind), key, tenant))
    jobs, accounts = at.read(lambda c: queries.reach(c, scope))
    confirm(f"Revoke {scope}? {jobs} unfinished job(s) and {accounts} active account(s) depend on it.", yes=yes)
    id, now = at.ids("rev"), at.now()

    def write(c: Connection) -> int:
        return revocation.declare(
            c, id=id, scope=scope, tenant=owner, source="cli", by=at.operator, reason=reason, now=now
        )

    number = at.write(write)
    at.ring_revocations([id])
    document: Row = {"id": id, "scope": {"kind": kind, "key": scope.key}, "number": number, "effective_at": now}
    if not wait:
        out.done(f"{scope} is revoked: {id}. What it stopped: `aswhom revocations show {id}`", document)
        return None
    row = wait_for_receipt(at, id, within=timedelta(seconds=timeout))
    if row["state"] != QUIESCED:
        sentence = (
            f"{scope} is revoked: {id}; nothing new opens, but {timeout:g} s later it is still {row['state']}. "
            f"Is `aswhom up` running? Later: `aswhom revocations show {id}`"
        )
        out.done(sentence, {**document, "state": row["state"]})
        return PROBLEM
    out.done(
        f"{scope} is revoked: {id}. {summary(row)}",
        {**document, "state": row["state"], "receipt": row["receipt"], "signature": row["signature"]},
    )
    return None


def wait_for_receipt(at: Installation, id: str, *, within: timedelta) -> Row:
    """The revocation, once it is quiesced or the time is over."""
    deadline = time.monotonic() + within.total_seconds()
    waiting = threading.Event()
    while True:
        row = at.read(lambda c: queries.revocation(c, id))
        if row["state"] == QUIESCED or time.monotonic() >= deadline:
            return row
        waiting.wait(0.1)


def summary(row: Row) -> str:
    """A receipt in a sentence."""
    receipt = row["receipt"]
    took = (row["quiesced_at"] - row["effective_at"]).total_seconds()
    cancelled, flying = len(receipt["cancelled_jobs"]), len(receipt["in_flight"])
    return (
        f"{cancelled} job(s) cancelled, {flying} call(s) were in flight and have ended, {took:.1f} s from start to end."
    )


@click.group()
def revocations() -> None:
    """What revocations stopped: their receipts."""


@command(revocations, "list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_revocations(at: Installation, out: Output, limit: int) -> None:
    """The revocations, newest first."""
    rows = at.read(lambda c: queries.all_revocations(c, limit=limit))
    columns = ("id", "kind", "key", "state", "cancelled_jobs", "stopped_jobs", "requested_by", "effective_at", "reason")
    out.rows(rows, columns, empty="Nothing was ever revoked")


@command(revocations)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> int | None:
    """One revocation: its receipt, and whether the signature is this installation's."""
    row = at.read(lambda c: queries.revocation(c, id))
    verified = at.signer.verifies(row["receipt"], row["signature"]) if row["receipt"] else None
    if out.as_json:
        out.document({**row, "verified": verified})
        return None if verified in (True, None) else PROBLEM
    out.sentence(f"{id}: {row['kind']} {row['key']} was revoked by {row['requested_by']}: {row['reason']}")
    if verified is None:
        out.sentence(f"It is effective, and {row['state']}: calls may still be in flight, so there is no receipt yet.")
        return None
    out.sentence(summary(row))
    calls = row["receipt"]["in_flight"]
    if calls:
        out.table(calls, ("attempt", "job", "step", "ended", "outcome"))
    for job in row["receipt"]["cancelled_jobs"][:50]:
        out.sentence(f"cancelled {job}")
    if not verified:
        out.sentence("THE SIGNATURE DOES NOT HOLD: the receipt was altered, or signed by another installation's key.")
        return PROBLEM
    out.sentence("The signature holds.")
    return None
