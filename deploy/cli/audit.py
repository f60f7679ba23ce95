"""`audit`: who did what as whom, and whether the record is intact."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from deploy.cli.command import LIMIT, MOMENT, PROBLEM, command, new_file_option
from deploy.cli.filters import tell_unknown
from deploy.cli.output import Bar, Output
from deploy.cli.public_key import key_option, public_keys
from deploy.installation import Installation
from deploy.local_times import local_time
from deploy.new_file import refuse_unwritable, whole
from identity.audit.chain import FirstBad, Verified
from identity.audit.export import Audited, export_lines, verify_files
from identity.audit.links import links_behind, newest_checkpoint
from identity.audit.sealer import Sealer
from identity.audit.statements import (
    Head,
    WholeVerification,
    read_checkpoint,
    read_verification,
    sign_verification,
)
from identity.audit.verification import verify
from identity.errors import BadInput
from identity.keys.trusted_keys import TrustedKeys
from identity.model import AccessPattern
from pipeline.ledger.paging import Record
from pipeline.views import audit_queries
from pipeline.views.audit_queries import Search

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOLD_AT_ONCE = 256 * 1024  # bytes


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
def search(at: Installation, out: Output, limit: int, **wanted: Any) -> None:
    """Search the records, newest first."""
    rows = at.read(lambda c: audit_queries.found(c, Search(**wanted), limit=limit + 1))
    columns = ("id", "at", "kind", "tenant_id", "agent_id", "as_whom", "on_behalf_of", "action", "outcome", "reason")
    told = [{**row, "as_whom": _principal_in_words(row)} for row in rows]
    out.page(told, columns, limit=limit, empty="No such record")
    if not told:
        tell_unknown(at, out, **{name: wanted[name] for name in ("tenant", "kind", "action")})


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
        after, output = _follows(into), into / f"audit-{at.now():%Y-%m-%dT%H%M%S}.jsonl"
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


def _follows(folder: Path) -> int:
    """Return the highest chain number at which the folder's exports end, or 0.

    Raise BadInput for a file that is not an export.
    """
    return max((_last_seq(file) for file in folder.glob("audit-*.jsonl")), default=0)


def _last_seq(file: Path) -> int:
    last = b""
    with file.open("rb") as lines:
        for line in lines:
            last = line
    try:
        seq = json.loads(last)["seq"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{file} does not end as an export does: take it out of the folder") from error
    return int(seq)


@command(audit, "verify")
@click.argument("files", nargs=-1, type=_FILE)
@key_option
@click.option("--checkpoint", type=_FILE, help="A checkpoint that was kept elsewhere.")
@click.option(
    "--statement",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a signed statement to this new file if the whole chain in the ledger verifies.",
)
@click.option("--since", type=_FILE, help="Verify only what the ledger has after this earlier --statement file.")
def verify_chain(
    at: Installation,
    out: Output,
    files: tuple[Path, ...],
    key: Path | None,
    checkpoint: Path | None,
    statement: Path | None,
    since: Path | None,
) -> int | None:
    """Verify the chain, and name the first record that was altered, removed or inserted.

    FILES are consecutive exports. With FILES and --key nothing else is needed: no ledger, network or secret.

    --since does not find records that were altered before its statement: verify the whole chain from time to time.
    """
    if files and (statement or since):
        raise click.UsageError("--statement and --since apply to the ledger's own chain: do not also give FILES.")
    if statement and since:
        raise click.UsageError("--statement needs the whole chain verified: do not also give --since.")
    if statement:
        refuse_unwritable(statement)  # before hours of work
    keys = public_keys(at, key)
    known = None if checkpoint is None else read_checkpoint_file(checkpoint, keys)
    verified = None if since is None else read_verification(_text(since, "a statement"), keys)
    if files:
        with out.progress(sum(file.stat().st_size for file in files), what="verifying") as bar:
            audited = _audited(files, keys, known, bar)
    else:
        behind = at.read(partial(links_behind, after=0 if verified is None else verified.seq))
        with out.progress(behind, what="verifying") as bar:
            walked = verify(at.ledger, keys, checkpoint=known, since=verified, progress=bar.update)
        audited = Audited(outcome=walked, withheld=0)
    match audited.outcome:
        case Verified() as held:
            stated = statement
            if statement is not None and held.compared:
                stated = _state(at, out, held, statement)
            _tell(out, held, withheld=audited.withheld, since=verified, statement=stated)
            return None if held.compared and stated == statement else PROBLEM
        case FirstBad(seq=seq, why=why, proven=proven):
            told = f"THE CHAIN BREAKS at {seq}: {why}. Signatures prove what comes before {proven + 1}."
            out.done(told, {"verified": False, "seq": seq, "why": why, "proven": proven})
            return PROBLEM


@command(audit)
@new_file_option
def checkpoint(at: Installation, out: Output, output: Path | None) -> None:
    """Print the chain's length and head, signed. A copy kept elsewhere reveals a chain that was cut at its end."""
    sealer = Sealer(at.ledger, at.signer)
    with out.count("sealing") as tell:
        while sealed := sealer.seal(now=at.now()):
            tell("records", sealed)
    head = at.read(newest_checkpoint)
    if head is None:
        raise BadInput("nothing is sealed yet: there is no record")
    if output is None:
        click.echo(head.line())
        return
    with whole(output, at.ids("part")) as part:
        part.write_text(f"{head.line()}\n", encoding="utf-8")
    out.done(f"the checkpoint at {head.seq} is in {output}", {"file": str(output), "seq": head.seq})


def read_checkpoint_file(file: Path, keys: TrustedKeys) -> Head:
    """Return the checkpoint stored in a file. Raise BadInput if it is malformed or its signature does not verify."""
    return read_checkpoint(_text(file, "a checkpoint"), keys)


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as {what}: it is not a text in UTF-8") from error


def _state(at: Installation, out: Output, held: Verified, file: Path) -> Path | None:
    """Write the signed statement that the whole chain verified. Return None, with a note, if that is impossible."""
    last, number = held.first + held.count - 1, held.accounted
    if number is None:
        raise AssertionError("what was not walked as a whole is not stated")
    said = sign_verification(at.signer, seq=last, digest=held.head, number=number, at=at.now())
    try:
        with whole(file, at.ids("part")) as part:
            part.write_text(f"{said.line()}\n", encoding="utf-8")
    except BadInput as fault:  # the result of the walk is told all the same
        out.note(str(fault))
        return None
    return file


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


def _audited(files: tuple[Path, ...], keys: TrustedKeys, checkpoint: Head | None, bar: Bar) -> Audited:
    with ExitStack() as opened:
        lines = [(file.name, _watched(opened.enter_context(file.open("rb")), bar)) for file in files]
        return verify_files(lines, keys, checkpoint=checkpoint)


def _watched(lines: Iterable[bytes], bar: Bar) -> Iterator[bytes]:
    """Yield the lines unchanged, and report their bytes to *bar* in batches of some hundred lines."""
    told = 0
    for line in lines:
        told += len(line)
        if told >= _TOLD_AT_ONCE:
            bar.update(told)
            told = 0
        yield line
    bar.update(told)


def _tell(
    out: Output, held: Verified, *, withheld: int, since: WholeVerification | None, statement: Path | None
) -> None:
    more = f"; {held.unsealed} newer one(s) are not sealed yet" if held.unsealed else ""
    # None also if its records were pruned, and the whole chain was walked.
    after = since if since is not None and held.accounted is None else None
    if after is not None:
        more += f"; records before {held.first} were verified at {after.at.isoformat()}, not now"
    elif held.first > 1:
        more += f"; it begins at {held.first}"
    if not held.compared:
        more += "; THE CHECKPOINT IS OLDER THAN THESE RECORDS AND WAS NOT COMPARED: keep newer ones"
    if statement is not None:
        more += f"; {statement} says so, for --since" if held.compared else f"; {statement} was not written"
    if withheld:
        more += f"; {withheld} record(s) were exported as digests only"
    document = {"verified": True, "first": held.first, "count": held.count, "head": held.head}
    document |= {"signed_at": held.signed_at, "unsealed": held.unsealed, "withheld": withheld}
    document |= {"compared": held.compared, "whole": after is None}
    out.done(f"the chain holds: {held.count} record(s){more}", document)
