"""`deliveries`: what came in, and what became of it."""

from __future__ import annotations

import click

from deploy.cli import queries
from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation


@click.group()
def deliveries() -> None:
    """What came in: signed deliveries, and what became of each."""


@command(deliveries, "list")
@click.option("--tenant")
@click.option("--outcome", help="accepted, ignored, unrecognised, signal")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_deliveries(at: Installation, out: Output, tenant: str | None, outcome: str | None, limit: int) -> None:
    """The deliveries, newest first."""
    rows = at.read(lambda c: queries.all_deliveries(c, tenant=tenant, outcome=outcome, limit=limit))
    columns = ("id", "connection_id", "tenant_id", "event", "outcome", "reason", "received_at")
    out.rows(rows, columns, empty="No such delivery")


@command(deliveries)
@click.argument("id")
@click.option("--body", is_flag=True, help="Print the body, and nothing else.")
def show(at: Installation, out: Output, id: str, body: bool) -> None:
    """One delivery."""
    row = at.read(lambda c: queries.delivery(c, id))
    content: bytes = row.pop("body")
    if body:
        click.echo(content.decode("utf-8", "replace"))
        return
    row["bytes"] = len(content)
    if out.as_json:
        out.document(row)
        return
    out.sentence(f"{row['id']}: {row['source']} {row['event']} by {row['connection_id']}, {row['outcome']}")
    out.sentence(f"because {row['reason']}" if row["reason"] else "")
    facts = ("tenant_id", "delivery_id", "body_sha256", "bytes", "received_at", "jobs")
    out.table([{"": fact.replace("_", " "), "is": row[fact]} for fact in facts], ("", "is"))
