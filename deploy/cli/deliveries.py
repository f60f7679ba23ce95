"""`deliveries`: incoming deliveries, their outcome, and what each would start now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
from sqlalchemy import Connection

from deploy.cli.command import LIMIT, MOMENT, YES, command, confirm
from deploy.cli.filters import tell_unknown, tenants_of
from deploy.cli.output import Output, Row
from deploy.installation import Installation
from identity.connections.registry import get_connection
from identity.errors import BadInput
from pipeline.authoring.matching import Considered
from pipeline.deliveries.replay import Does, Fate, Replayed, Stored, unmarks, weigh
from pipeline.deliveries.replay import replay as replay_delivery
from pipeline.ledger.paging import Record, Turn
from pipeline.model import DeliveryOutcome
from pipeline.views import operator_queries, tenant_views
from webhooks.stored_deliveries import reconsider

# Duplicates are not stored.
_OUTCOMES = [str(outcome) for outcome in DeliveryOutcome if outcome is not DeliveryOutcome.DUPLICATE]


@click.group()
def deliveries() -> None:
    """Incoming signed deliveries, and their outcome."""


def _chosen(run: Any) -> Any:
    """Add the options that select deliveries."""
    for option in (
        click.option(
            "--failed",
            is_flag=True,
            help="Only deliveries unrecognised, refused, not read by a workflow, or with a dead or cancelled job.",
        ),
        click.option("--misread", is_flag=True, help="Only deliveries unrecognised, or not read by a workflow."),
        click.option("--until", type=MOMENT, help="Received before this day (UTC), or time with its zone."),
        click.option("--since", type=MOMENT, help="Received on or after this day (UTC), or time with its zone."),
        click.option("--tenant"),
    ):
        run = option(run)
    return run


@command(deliveries, "list")
@_chosen
@click.option("--outcome", type=click.Choice(_OUTCOMES))
@LIMIT
def list_deliveries(at: Installation, out: Output, limit: int, **chosen: Any) -> None:
    """List deliveries, newest first."""
    rows = _newest(at, limit, chosen)
    columns = ("id", "connection_id", "tenant_id", "event", "outcome", "reason", "received_at")
    out.page(rows, columns, limit=limit, empty="No such delivery")
    if not rows:
        tell_unknown(at, out, tenant=chosen["tenant"])


@command(deliveries)
@click.argument("id")
@click.option("--body", is_flag=True, help="Print the body, and nothing else.")
def show(at: Installation, out: Output, id: str, body: bool) -> None:
    """Show one delivery."""
    if body and out.as_json:
        raise click.UsageError("--body prints the body and nothing else: leave out --json.")
    row = at.read(lambda c: operator_queries.any_delivery(c, id))
    content: bytes = row.pop("body")
    if body:
        click.echo(content.decode("utf-8", "replace"))
        return
    row["bytes"] = len(content)
    if out.as_json:
        out.document(row)
        return
    out.sentence(f"{row['id']}: {row['source']} {row['event']} by {row['connection_id']}, {row['outcome']}")
    if row["reason"]:
        out.sentence(f"because {row['reason']}")
    facts = ("tenant_id", "delivery_id", "body_sha256", "bytes", "received_at", "jobs")
    out.table([{"": fact.replace("_", " "), "is": row[fact]} for fact in facts], ("", "is"))


@command(deliveries)
@click.argument("id")
def explain(at: Installation, out: Output, id: str) -> None:
    """Show which workflows a delivery would start now, and why not the others.

    Reasons are filters, switches, configuration and existing jobs.
    """
    row = at.read(lambda c: operator_queries.any_delivery(c, id))
    stored, considered = _considered(at, row)
    fates = at.read(lambda c: weigh(c, stored, considered))
    told = [_told(id, fate) for fate in fates]
    out.sentence(f"{id}: {row['source']} {row['event']} by {row['connection_id']}, {row['outcome']}: {row['reason']}")
    out.rows(told, ("workflow", "would", "reason", "job", "config"), empty="No workflow listens to it")


@command(deliveries)
@click.argument("ids", nargs=-1)
@_chosen
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Refuse to replay more.")
@click.option("--cancelled", is_flag=True, help="Also restart jobs that a revocation or a person cancelled.")
@click.option("--dry-run", is_flag=True, help="Show what would be started, and start nothing.")
@YES
def replay(
    at: Installation,
    out: Output,
    ids: tuple[str, ...],
    limit: int,
    cancelled: bool,
    dry_run: bool,
    yes: bool,
    **chosen: Any,
) -> None:
    """Start what deliveries should have started: those named by IDS, received in a range, or failed.

    It can be repeated: a workflow gets no second job for a delivery, and a dead job is accepted again. Cancelled jobs
    stay cancelled without --cancelled. Signals are not replayed. In a range, deliveries whose body can no longer be
    read are skipped and named. A delivery that no workflow misreads any more is taken off the list of the misread.
    """
    weighed, told, unmarking = [], [], 0
    rows = _rows(at, ids, limit, chosen)
    for row in rows:
        try:
            stored, considered = _considered(at, row)
        except BadInput as error:
            if ids:
                raise
            out.note(f"left out: {error}")
            continue
        fates = at.read(partial(weigh, delivery=stored, considered=considered, cancelled=cancelled))
        told += [_told(row["id"], fate) for fate in fates]
        off = at.read(partial(unmarks, delivery=stored, considered=considered, fates=fates))
        unmarking += off
        if off or any(fate.does is not Does.NOTHING for fate in fates):
            weighed.append((stored, considered))
    wanted = [one for one in told if one["would"] != Does.NOTHING]
    columns = ("delivery", "workflow", "would", "reason", "job")
    if dry_run or not wanted:
        why = "no workflow listens to these" if rows else "there is no such delivery"
        out.rows(told, columns, empty=f"Nothing would be started: {why}")
    if dry_run:
        if unmarking:
            why = "no workflow that is on lacks its job"
            out.note(f"{unmarking} deliveries would no longer be marked as misread: {why}")
        return
    starts = f"start {len(wanted)} job(s) of {len({one['delivery'] for one in wanted})} deliveries" if wanted else ""
    takes = f"take {unmarking} deliveries off the list of the misread" if unmarking else ""
    if asked := " and ".join(filter(None, (starts, takes))):
        confirm(f"{asked.capitalize()}?", yes=yes)
    done: list[Row] = []
    unmarked = 0
    with out.progress(len(weighed), what="replaying") as bar:
        for stored, considered in weighed:
            replayed = _replay(at, stored, considered, cancelled=cancelled)
            done += [_told(stored.id, fate) for fate in replayed.fates if fate.does is not Does.NOTHING]
            unmarked += replayed.unmarked
            at.ring_jobs(replayed.bells)
            bar.update(1)
    if wanted:
        out.rows(done, columns, empty="Nothing was left to start")
    if unmarked:
        out.note(f"{unmarked} deliveries are no longer marked as misread: no workflow that is on lacks its job")


def _rows(at: Installation, ids: tuple[str, ...], limit: int, chosen: dict[str, Any]) -> list[dict[str, Any]]:
    if bool(ids) is any(chosen.values()):
        raise click.UsageError("Say which: either ids, or --since, --until, --tenant, --failed or --misread.")
    if not ids:
        found = _newest(at, limit, chosen)
        if len(found) > limit:
            raise BadInput(f"that is more than {limit} deliveries: choose fewer, or say --limit")
        ids = tuple(row["id"] for row in reversed(found))
    return [at.read(partial(operator_queries.any_delivery, id=id)) for id in ids]


def _newest(at: Installation, limit: int, chosen: dict[str, Any]) -> Sequence[Record]:
    """Return the newest deliveries, and one more than *limit* if there are more."""
    tenants, turn = tenants_of(chosen["tenant"]), Turn(limit=limit + 1)
    wanted = {name: value for name, value in chosen.items() if name != "tenant"}
    return at.read(lambda c: tenant_views.deliveries_page(c, tenants, turn, **wanted).rows)


def _considered(at: Installation, row: dict[str, Any]) -> tuple[Stored, list[Considered]]:
    """Let the workflows consider a stored body again. Raise BadInput if it cannot be read."""
    owner = at.read(lambda c: get_connection(c, row["connection_id"]))
    return reconsider(row, owner, at.workflows)


def _replay(at: Installation, stored: Stored, considered: list[Considered], *, cancelled: bool) -> Replayed:
    new_jobs, act = [at.ids("job") for _ in considered], at.act()

    def write(c: Connection) -> Replayed:
        return replay_delivery(c, stored, considered, act, cancelled=cancelled, new_jobs=new_jobs)

    return at.write(write)


def _told(delivery: str, fate: Fate) -> dict[str, Any]:
    return {
        "delivery": delivery,
        "workflow": fate.workflow,
        "would": str(fate.does),
        "reason": fate.reason,
        "job": fate.job,
        "config": fate.config,
    }
