"""`revoke`: withdraws authority immediately, or previews what that would stop."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, Row

from deploy.cli.at_stake import what_depends
from deploy.cli.command import PROBLEM, YES, confirm, invocation
from deploy.cli.output import Output
from deploy.cli.receipt_words import summary
from deploy.cli.revoke_again import revoke_again
from deploy.installation import Installation
from deploy.waiting import looks
from identity.errors import Unavailable
from identity.model import Scope, ScopeKind
from identity.providers.profile import Reach
from pipeline.desk.scopes import named_scope
from pipeline.ledger.paging import Record
from pipeline.revocation import declaration
from pipeline.revocation.declaration import Stage
from pipeline.revoker.preview import Preview, preview
from pipeline.views import operator_queries

_REASON = "an operator's decision"
#: The request made of a provider, by how far its revocation reaches.
_ENDS = {
    None: "the provider cannot be asked, so their credentials stay valid there until they end by themselves",
    Reach.TOKEN: "the provider is asked to end their tokens",
    Reach.AUTHORIZATION: "the provider is asked to end everything each person ever granted this client, which takes a "
    "live token; a new connect link waits until that is done or stuck",
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("kind", type=click.Choice([str(kind) for kind in ScopeKind]), required=False)
@click.argument("key", required=False)
@click.option(
    "--from",
    "file",
    type=_FILE,
    help="After a restore: repeat what is newer in this file of `revocations list --output`.",
)
@click.option(
    "--after",
    type=click.IntRange(0),
    help="With --from: revocations after this ledger number.  [default: the restore's]",
)
@click.option("--tenant", help="The tenant of the user or agent, if KEY is only a name.")
@click.option("--reason", show_default=_REASON, help="For the receipt and the audit.")
@click.option("--dry-run", is_flag=True, help="Show what would stop, and revoke nothing.")
@click.option("--wait", is_flag=True, help="Wait for the receipt.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait at most.")
@YES
@invocation
def revoke(
    at: Installation,
    out: Output,
    kind: str | None,
    key: str | None,
    file: Path | None,
    after: int | None,
    tenant: str | None,
    reason: str | None,
    dry_run: bool,
    wait: bool,
    timeout: float,
    yes: bool,
) -> int | None:
    """Withdraw authority immediately: of an account, user, agent, connection or tenant.

    Once this returns, no step that depends on it opens, whatever is queued. KEY is an id. A user is acme.ada, or ada
    with --tenant acme; an API key's agent is acme.support-bot, or support-bot if no other tenant has one; an account
    may also be TENANT/CONNECTION/PRINCIPAL. To withdraw only some scopes of an account, use `aswhom accounts narrow`.
    """
    if file is not None:
        if kind or key or tenant or wait or reason is not None:
            raise click.UsageError("with --from, do not also give KIND, KEY, --tenant, --reason or --wait")
        return revoke_again(at, out, file, after=after, dry_run=dry_run, yes=yes)
    if kind is None or key is None:
        raise click.UsageError("give KIND and KEY, or a list with --from")
    scope, whose = at.read(lambda c: named_scope(c, at.workflows, ScopeKind(kind), key, tenant=tenant))
    if dry_run:
        _show(out, scope, at.read(lambda c: preview(c, scope, at.workflows, now=at.now())))
        return None
    if not yes:
        confirm(f"Revoke {scope}? {what_depends(at, scope)}", yes=False)
    id, now = at.ids("rev"), at.now()
    cause = declaration.Cause(source="cli", by=at.operator, reason=reason or _REASON)

    def write(c: Connection) -> Row[Any]:
        declaration.declare(c, scope, cause, id=id, tenant=whose, now=now)
        return declaration.load_without_receipt(c, id)

    made = at.write(write, ahead=True)
    if scope.kind is ScopeKind.USER:
        out.note(
            "jobs accepted from now on may act as this user again: through accounts that they connect anew, and by "
            f"capabilities, which need no consent. To prevent that: `aswhom users stop {scope.key}`"
        )
    scoped = {"kind": kind, "key": scope.key}
    document: Record = {"id": id, "scope": scoped, "number": made.number, "effective_at": made.effective_at}
    if not wait:
        out.done(f"{scope} is revoked: {id}. What it stopped: `aswhom revocations show {id}`", document)
        try:  # printed first: interrupting a hanging broker must not hide that the revocation holds
            at.ring_revocations([id])
        except KeyboardInterrupt:
            out.note("workers were not told, and find out by themselves")
        return None
    try:
        # Printed first: whatever happens next, it is revoked.
        out.note(f"{scope} is revoked: {id}. Waiting for the receipt.")
        at.ring_revocations([id])
        return _tell(at, out, scope, document, within=timedelta(seconds=timeout))
    except (KeyboardInterrupt, Unavailable) as error:
        why = str(error) or "it was interrupted"
        out.done(
            f"{scope} is revoked: {id}. Its receipt was not waited for: {why}. See `aswhom revocations show {id}`",
            document,
        )
        return PROBLEM


def _show(out: Output, scope: Scope, stake: Preview) -> None:
    """Describe what a revocation would stop."""
    if out.as_json:
        out.document({"scope": {"kind": str(scope.kind), "key": scope.key}, "dry_run": True, **asdict(stake)})
        return
    out.sentence(f"Nothing is revoked. Revoking {scope} now would end {stake.accounts} active account(s).")
    if stake.keys:
        out.sentence(f"{len(stake.keys)} API key(s) would end: {', '.join(stake.keys)}.")
    if stake.jobs:
        out.table([asdict(one) for one in stake.jobs], ("workflow", "state", "jobs", "then"))
    else:
        out.sentence("No unfinished job depends on it.")
    out.sentence(
        f"{stake.calls_in_flight} call(s) are in flight and would be waited for; the outcome of {stake.unknown_calls} "
        "earlier call(s) is unknown."
    )
    if stake.refreshes_on_the_wire:
        out.sentence(
            f"{stake.refreshes_on_the_wire} refresh(es) are in flight: the tokens they obtain would not be used."
        )
    for undo in stake.to_undo:
        would = f"could not be undone: {undo.why_not}" if undo.why_not else f"would be followed by {undo.by}"
        out.sentence(f"{undo.steps} done step(s) {undo.action} of {undo.workflow} ({undo.tenant}) {would}.")
    for one in stake.provider:
        through = f"{one.accounts} account(s) at {one.provider} through {one.connection} ({one.credential})"
        out.sentence(f"{through}: {_ENDS[one.ends]}.")
    for service in stake.services:
        of = f"{', '.join(service.workflows)} of the tenant would have nobody to act as at {service.provider}"
        out.sentence(
            f"{service.account} is a service account: {of if service.workflows else 'nothing that is on needs it'}; "
            f"{service.unfinished_jobs} unfinished job(s) depend on it, whoever asked for them."
        )


def _tell(at: Installation, out: Output, scope: Scope, document: Record, *, within: timedelta) -> int | None:
    """Wait for the receipt and describe it."""
    id = document["id"]
    row = _wait_for_receipt(at, id, within=within)
    if row["state"] != Stage.QUIESCED:
        sentence = (
            f"{scope} is revoked: {id}; nothing new opens, but {within.total_seconds():g} s later it is still "
            f"{row['state']}. Is `aswhom up` running? Later: `aswhom revocations show {id}`"
        )
        out.done(sentence, {**document, "state": row["state"]})
        return PROBLEM
    out.done(
        f"{scope} is revoked: {id}. {summary(row['receipt'])}",
        {**document, "state": row["state"], "receipt": row["receipt"], "signature": row["signature"]},
    )
    return None


def _wait_for_receipt(at: Installation, id: str, *, within: timedelta) -> Record:
    """Return the revocation once it is quiesced or the time is over."""
    for _ in looks(within):
        row = at.read(lambda c: operator_queries.any_revocation(c, id))
        if row["state"] == Stage.QUIESCED:
            break
    return row
