"""`tenants delete`: revokes everything, ends credentials at their providers, shreds them here, and keeps the audit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import click
from sqlalchemy import Connection, select

from deploy.cli.at_stake import what_depends
from deploy.cli.command import PROBLEM, YES, command, confirm
from deploy.cli.output import Output
from deploy.cli.tenants import tenants
from deploy.installation import Installation
from deploy.waiting import looks
from identity.accounts.scopes import standings
from identity.accounts.stops import set_stopped
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.sql.sequence import lock_exclusive
from identity.tables import accounts, grants
from identity.tenant_deletion import at_providers, revocations_of_stuck, shred
from identity.tenants import Tenants
from identity.withdrawals.stuck_leftovers import stuck_leftovers
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.revocation import declaration
from pipeline.revocation.declaration import Stage
from pipeline.revocation.receipt import outdate
from pipeline.revocation.tables import revocations
from pipeline.schedules.changes import end_for_tenant
from pipeline.views import operator_queries

_SOURCE = "deletion"
_NAMED = 20  # leftovers of refused connects to list


@command(tenants)
@click.argument("id")
@click.option("--give-up", is_flag=True, help="Also shred credentials that a provider could not be asked to end.")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds to wait for calls in flight and providers.",
)
@YES
def delete(at: Installation, out: Output, id: str, give_up: bool, timeout: float, yes: bool) -> int | None:
    """Delete a tenant for good: revoke everything, end its credentials at their providers, then shred them here.

    Its schedules and workflow settings are deleted as well. The audit and the receipts stay. If the timeout passes
    first, repeat the command to finish.
    """
    if at.read(lambda c: operator_queries.tenant(c, id))["deleted_at"] is not None:
        raise BadInput(f"tenant {id} was deleted before")
    scope = Scope(kind=ScopeKind.TENANT, key=id)
    if not yes:
        gone = f"{what_depends(at, scope)} Nobody can bring its credentials back."
        confirm(f"Delete tenant {id} for good? {gone}", yes=False)
    of = _revoked(at, scope)
    if waits_for := _waits_for(at, id, of, give_up=give_up, within=timedelta(seconds=timeout)):
        told = f"{id} is revoked and stopped ({of}), and not deleted yet: {waits_for}"
        out.done(told, {"id": id, "deleted": False, "revocation": of, "why": waits_for})
        return PROBLEM
    act = at.act()

    def write(c: Connection) -> tuple[Mapping[str, int], list[str]]:
        lock_exclusive(c, scope)  # must precede every read and write
        given_up = revocations_of_stuck(c, id)
        ended = end_for_tenant(c, id, now=act.now)
        touched = shred(c, id, act, besides=ended)
        outdate(c, given_up)  # receipts are reissued with the new outcome, even if the doorbell is lost
        return touched, given_up

    touched, given_up = at.write(write)
    at.ring_revocations(given_up)
    shredded = ", ".join(f"{number} {what}" for what, number in touched.items() if number) or "nothing was left"
    out.done(f"{id} is deleted ({of}). Shredded: {shredded}", {"id": id, "deleted": True, "revocation": of, **touched})
    return None


def _revoked(at: Installation, scope: Scope) -> str:
    """Return the deletion's revocation. Declare it, with a stop in the same commit, unless one is still in force."""
    new, act = at.ids("rev"), at.act()

    def write(c: Connection) -> tuple[str, bool]:
        if known := _in_force(c, scope):
            return known, False
        cause = declaration.Cause(source=_SOURCE, by=act.by, reason="the tenant is deleted")
        declaration.declare(c, scope, cause, id=new, tenant=scope.key, now=act.now)
        set_stopped(c, scope, act, stopped=True, tenant=scope.key)
        return new, True

    of, declared = at.write(write, ahead=True)
    if declared:
        at.ring_revocations([of])
    return of


def _in_force(c: Connection, scope: Scope) -> str | None:
    """Return the newest deletion revocation, or None if the tenant was reopened or somebody connected since."""
    columns = revocations.c
    of_deletion = (columns.kind == scope.kind) & (columns.key == scope.key) & (columns.source == _SOURCE)
    newest = c.execute(select(columns.id, columns.number).where(of_deletion).order_by(columns.number.desc())).first()
    if newest is None or not standings(c, [scope])[scope].stopped:
        return None
    in_tenant = select(accounts.c.id).where(accounts.c.tenant_id == scope.key)
    later = (grants.c.consented > newest.number) & grants.c.account_id.in_(in_tenant)
    return None if c.execute(select(grants.c.account_id).where(later).limit(1)).first() else newest.id


def _waits_for(at: Installation, tenant: str, of: str, *, give_up: bool, within: timedelta) -> str | None:
    """Return the reason the credentials are still needed when the time is over, or None if they are not."""
    for _ in looks(within):
        why = at.read(partial(_needed, tenant=tenant, of=of, give_up=give_up))
        if why is None:
            break
    return why


def _needed(c: Connection, *, tenant: str, of: str, give_up: bool) -> str | None:
    row = operator_queries.any_revocation(c, of)
    if row["state"] != Stage.QUIESCED:
        return f"its revocation is {row['state']}. Is `aswhom up` running? Repeat the command later"
    if row["collected_at"] is None:
        return "some credentials are still to be collected for revocation at their providers. Repeat the command later"
    if pending := at_providers(c, tenant, WithdrawalState.PENDING):
        return f"{pending} credential(s) have not ended at their providers yet. Repeat the command later"
    stuck = at_providers(c, tenant, WithdrawalState.STUCK)
    if stuck and not give_up:
        left = (one.id for one in stuck_leftovers(c, Tenants.of(tenant), limit=_NAMED))
        again = ", ".join(f"`aswhom revocations retry {one}`" for one in (*revocations_of_stuck(c, tenant), *left))
        return f"{stuck} credential(s) are stuck at their providers: {again}, or say --give-up"
    return None
