"""`audit`: who did what as whom. Whether the record is intact: `deploy.cli.audit_chain`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from deploy.cli.command import LIMIT, MOMENT, command, new_file_option
from deploy.cli.filters import tell_unknown, tenants_of
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from deploy.new_file import whole
from identity.audit.export import export_lines, last_link
from identity.audit.links import links_behind
from identity.model import AccessPattern
from pipeline.ledger.paging import Record
from pipeline.views import audit_queries
from pipeline.views.audit_queries import Search


@click.group()
def audit() -> None:
    """Who did what as whom, in a sealed chain."""


@command(audit)
@click.option("--tenant")
@click.option("--job")
@click.option("--kind", help="step, attempt, account, revocation …, or a full kind: revocation.effective")
@click.option("--principal", help="The principal acted as, or on whose behalf.")
@click.option("--agent")
@click.option("--account")
@click.option("--action", help="For example github.Comment.")
@click.option("--outcome")
@click.option("--since", type=MOMENT, help="A day (UTC), or a time with its zone: 2026-12-01T08:00Z.")
@click.option("--until", type=MOMENT)
@LIMIT
def search(at: Installation, out: Output, limit: int, tenant: str | None, **wanted: Any) -> None:
    """Search the records, newest first."""
    search = Search(tenants=tenants_of(tenant), **wanted)
    rows = at.read(lambda c: audit_queries.found(c, search, limit=limit + 1))
    columns = ("id", "at", "kind", "tenant_id", "agent_id", "as_whom", "on_behalf_of", "action", "outcome", "reason")
    told = [{**row, "as_whom": _principal_in_words(row)} for row in rows]
    out.page(told, columns, limit=limit, empty="No such record")
    if not told:
        tell_unknown(at, out, tenant=tenant, kind=wanted["kind"], action=wanted["action"])


@command(audit)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """Show one record: what was done, as whom, by which agent, on whose behalf, and why it was allowed."""
    row = at.read(lambda c: audit_queries.record(c, id))
    if out.as_json:
        out.document({**row, "as_whom": _principal_in_words(row)})
        return
    consented = row["detail"].get("consented")
    for name, value in (
        ("what", " ".join(filter(None, (row["kind"], row["action"], row["outcome"])))),
        ("when", f"{local_time(row['at'])}, ledger number {row['number']}"),
        ("tenant", row["tenant_id"]),
        ("as whom", _principal_in_words(row)),
        ("by which agent", row["agent_id"]),
        ("on behalf of", row["on_behalf_of"]),
        ("account", row["account_id"] and f"{row['account_id']}, generation {row['generation']}"),
        ("consent", consented and f"the one that began at ledger number {consented}"),
        ("why", row["reason"]),
        ("job", " ".join(filter(None, (row["job_id"], row["step_id"], row["attempt_id"])))),
        ("in the chain", row["sealed_as"] or "not yet: the sealer comes every second"),
    ):
        if value:
            out.sentence(f"{name:<15} {value}")
    for name, value in row["detail"].items():
        if value is not None and name != "consented":
            out.sentence(f"{name:<15} {value}")


@command(audit)
@click.option("--tenant", help="Only this tenant's rows; other tenants' rows as digests only.")
@click.option("--after", default=0, help="Start after this chain number, the last of an earlier export.")
@new_file_option
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of exports: continue after the last one, in a new file audit-….jsonl.",
)
def export(
    at: Installation, out: Output, tenant: str | None, after: int, output: Path | None, into: Path | None
) -> None:
    """Write the sealed records as JSON Lines, for `audit verify` on any machine."""
    lines = 0
    if into is not None:
        if tenant is not None or after or output is not None:
            raise click.UsageError(
                "--into decides where to start and to write: do not also give --tenant, --after or --output."
            )
        after, output = _end_of(into), into / f"audit-{at.now():%Y-%m-%dT%H%M%S}.jsonl"
    with ExitStack() as files:
        file = sys.stdout.buffer
        if output is not None:
            file = files.enter_context(files.enter_context(whole(output, at.ids("part"))).open("wb"))
        on_screen = output is None and sys.stdout.isatty()  # a progress bar would be mixed into the records
        behind = at.read(lambda c: links_behind(c, after))
        bar = files.enter_context(out.progress(behind, what="exporting", hidden=on_screen))
        for line in export_lines(at.ledger, tenant=tenant, after=after, progress=bar.update):
            file.write(line)
            lines += 1
    last = json.loads(line)["seq"]  # the export's head line, if there were no records
    again = f"`--after {last}`" if into is None else f"`--into {into}` again"
    told = "anyone with the public key (`aswhom keys public`) can verify them"
    said = f"{lines - 1} record(s) exported; {told}; the next export is {again}"
    if output is None:
        out.note(said)
    else:
        out.done(said, {"file": str(output), "records": lines - 1, "after": last})


def _end_of(folder: Path) -> int:
    """Return the highest chain number at which the folder's exports end, or 0."""
    return max((_last_link(file) for file in folder.glob("audit-*.jsonl")), default=0)


def _last_link(file: Path) -> int:
    with file.open("rb") as lines:
        return last_link(str(file), lines)


def _principal_in_words(row: Record) -> str | None:
    """Return the acting principal in the words of `pipeline.views.wording`, with its id."""
    match row["pattern"], row["principal_id"]:
        case _, None:
            return None
        case AccessPattern.DELEGATED, principal:
            return f"user {principal}"
        case AccessPattern.SERVICE, principal:
            return f"the service ({principal})"
        case AccessPattern.CAPABILITY, principal:
            return f"{principal}, by a capability"
        case _, principal:
            return str(principal)
