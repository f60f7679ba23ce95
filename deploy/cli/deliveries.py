"""`deliveries`: incoming deliveries, their outcome, and what each would start now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
from sqlalchemy import Connection

from deploy.cli.command import LIMIT, MOMENT, PROBLEM, YES, command, confirm, tell
from deploy.cli.filters import tell_unknown, tenants_of
from deploy.cli.output import Output, Row
from deploy.installation import Installation
from identity.connections.registry import get_connection
from identity.errors import AswhomError, BadInput, Misconfigured
from identity.sql.store import CommitUnknown
from pipeline.authoring.matching import Considered
from pipeline.deliveries.replay import Replayed
from pipeline.deliveries.replay import replay as replay_delivery
from pipeline.deliveries.weighing import Does, Fate, Stored, weigh
from pipeline.ledger.paging import Record, Turn
from pipeline.model import DeliveryOutcome
from pipeline.views import operator_queries, tenant_views
from webhooks.stored_deliveries import reconsider

# Duplicates are not stored.
_OUTCOMES = [str(outcome) for outcome in DeliveryOutcome if outcome is not DeliveryOutcome.DUPLICATE]
_SETTLE = "settle"  # it leaves the list of the misread


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
    out.sentence(f"Which workflows it would start now, and why not the others: `aswhom deliveries explain {row['id']}`")


@command(deliveries)
@click.argument("id")
def explain(at: Installation, out: Output, id: str) -> None:
    """Show which workflows a delivery would start now, and why not the others.

    Reasons are filters, switches, configuration and existing jobs.
    """
    row = at.read(lambda c: operator_queries.any_delivery(c, id))
    stored, considered = _considered(at, row)
    weighed = at.read(lambda c: weigh(c, stored, considered, installed=at.workflows))
    told = _told(id, (*weighed.fates, *weighed.absent), weighed.settles)
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
) -> int | None:
    """Start what deliveries should have started: those named by IDS, received in a range, or failed.

    It can be repeated: a workflow gets no second job for a delivery, and a dead job is accepted again. Cancelled jobs
    stay cancelled without --cancelled. Signals are not replayed, nor are answers to approvals. Deliveries that cannot
    be read, or whose connection or tenant is misconfigured, are skipped and named; exits with 1 if one of IDS was. A
    delivery that can be read, and that no workflow misreads any more, is taken off the list of the misread (`settle`).
    """
    wanted: list[tuple[Stored, list[Considered]]] = []
    told: list[Row] = []
    left: list[str] = []
    among = _among(at, ids, limit, chosen)
    for id in among:
        try:
            stored, considered = _considered(at, at.read(partial(operator_queries.any_delivery, id=id)))
            look = partial(weigh, delivery=stored, considered=considered, installed=at.workflows, cancelled=cancelled)
            weighed = at.read(look)
        except (BadInput, Misconfigured) as error:
            if len(ids) == 1:
                raise
            left.append(id)
            _note_left_out(out, id, error)
            continue
        told += _told(stored.id, (*weighed.fates, *weighed.absent), weighed.settles)
        if weighed.acts or weighed.settles:
            wanted.append((stored, considered))
    columns = ("delivery", "workflow", "would", "reason", "job")
    if dry_run or not wanted:
        why = "no workflow listens to these" if among else "there is no such delivery"
        out.rows(told, columns, empty=f"Nothing would be started: {why}")
    else:
        confirm(_question(told), yes=yes)
        done: list[Row] = []
        try:
            _replay_all(at, out, wanted, left, done, cancelled=cancelled)
        except (AswhomError, CommitUnknown) as error:
            if done and not out.as_json:
                out.table(done, columns)
            again = "repeat the command: no workflow gets a second job for a delivery"
            return tell(out, error, next_step=again, done=done)
        out.rows(done, columns, empty="Nothing was left to start")
    return PROBLEM if ids and left else None


def _question(told: Sequence[Row]) -> str:
    starts = [one["delivery"] for one in told if one["would"] in (Does.START, Does.AGAIN)]
    settles = sum(one["would"] == _SETTLE for one in told)
    asked = [f"start {len(starts)} job(s) of {len(set(starts))} deliveries"] if starts else []
    asked += [f"take {settles} deliveries off the list of the misread"] if settles else []
    return f"{' and '.join(asked).capitalize()}?"


def _replay_all(
    at: Installation,
    out: Output,
    wanted: Sequence[tuple[Stored, list[Considered]]],
    left: list[str],
    done: list[Row],
    *,
    cancelled: bool,
) -> None:
    """Replay them one by one, and add what was done to *done*."""
    with out.progress(len(wanted), what="replaying") as bar:
        for stored, considered in wanted:
            try:
                replayed = _replay(at, stored, considered, cancelled=cancelled)
            except (BadInput, Misconfigured) as error:
                left.append(stored.id)
                _note_left_out(out, stored.id, error)
            else:
                fates = [fate for fate in replayed.fates if fate.does is not Does.NOTHING]
                done += _told(stored.id, fates, replayed.settled)
                at.ring_jobs(replayed.bells)
            bar.update(1)


def _note_left_out(out: Output, id: str, error: BadInput | Misconfigured) -> None:
    named = f"{id}: {error}" if isinstance(error, Misconfigured) else str(error)  # a BadInput names the delivery
    out.note(f"left out: {named}")


def _among(at: Installation, ids: tuple[str, ...], limit: int, chosen: dict[str, Any]) -> tuple[str, ...]:
    """Return the chosen deliveries, oldest first."""
    if bool(ids) is any(chosen.values()):
        raise click.UsageError("Say which: either ids, or --since, --until, --tenant, --failed or --misread.")
    if ids:
        return ids
    found = _newest(at, limit, chosen)
    if len(found) > limit:
        raise BadInput(f"that is more than {limit} deliveries: choose fewer, or say --limit")
    return tuple(row["id"] for row in reversed(found))


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
        return replay_delivery(
            c, stored, considered, act, installed=at.workflows, cancelled=cancelled, new_jobs=new_jobs
        )

    return at.write(write)


def _told(delivery: str, fates: Sequence[Fate], settles: str) -> list[Row]:
    """Return a row for each workflow, and one for the list of the misread if the delivery leaves it."""
    told: list[Row] = [
        {
            "delivery": delivery,
            "workflow": fate.workflow,
            "would": str(fate.does),
            "reason": fate.reason,
            "job": fate.job,
            "config": fate.config,
        }
        for fate in fates
    ]
    if settles:
        of_none = dict.fromkeys(("workflow", "job", "config"))
        told.append({"delivery": delivery, "would": _SETTLE, "reason": settles, **of_none})
    return told
