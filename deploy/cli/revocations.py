"""`revocations`: what they stopped, by receipts that can be checked anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from deploy.cli.command import LIMIT, PROBLEM, command, new_file_option
from deploy.cli.output import Output, as_document
from deploy.cli.public_key import key_option, public_keys
from deploy.installation import Installation
from deploy.new_file import whole
from identity.errors import BadInput
from identity.hold import find_hold
from pipeline.desk import revocations as acts
from pipeline.ledger import queries, views
from pipeline.ledger.paging import EVERY, Record, Turn
from pipeline.ledger.revocation_pages import page_digest
from pipeline.revocation import in_flight, load
from pipeline.revocation.inquiry import SAYS
from pipeline.revocation.proof import disproof, holds
from pipeline.revocation.unasked import why_not_asked

NAMED = 50  # of the jobs and the accounts on a receipt, for people; how many there are is said


@click.group()
def revocations() -> None:
    """What revocations stopped: their receipts."""


@command(revocations, "list")
@LIMIT
@click.option("--stuck", is_flag=True, help="Those alone that a provider could not be asked to follow.")
@new_file_option
def list_revocations(at: Installation, out: Output, limit: int, stuck: bool, output: Path | None) -> None:
    """The revocations, newest first; with --output all of them, as JSON, whatever --limit says."""
    if output is not None:
        every = at.read(lambda c: views.revocations_page(c, None, EVERY, stuck=stuck).rows)
        with whole(output, at.ids("part")) as part:
            part.write_text(f"{as_document(every)}\n", encoding="utf-8")
        out.done(f"{len(every)} revocation(s) are in {output}", {"file": str(output), "revocations": len(every)})
        return
    rows = at.read(lambda c: views.revocations_page(c, None, Turn(limit=limit + 1), stuck=stuck).rows)
    columns = ("id", "kind", "key", "state", "cancelled_jobs", "stopped_jobs", "requested_by", "effective_at", "reason")
    out.page(rows, columns, limit=limit, empty="Nothing is stuck" if stuck else "Nothing was ever revoked")


@command(revocations)
@click.argument("id")
def retry(at: Installation, out: Output, id: str) -> int | None:
    """Have the provider asked again for what is stuck of a revocation. Housekeeping asks within seconds."""
    act = at.act()
    again = at.write(lambda c: acts.retry(c, id, act))
    if again == 0:
        out.done(f"Nothing of {id} is stuck.", {"revocation": id, "asked_again": 0})
        return PROBLEM
    out.done(f"{again} credential(s) of {id} are asked about again.", {"revocation": id, "asked_again": again})
    return None


@command(revocations)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> int | None:
    """One revocation: its receipt, and whether this installation signed it, for this revocation and as its newest.

    With --json, what is printed is a file that `revocations verify` takes.
    """
    row = at.read(lambda c: queries.revocation(c, id))
    if row["receipt"] is None:
        _tell_unfinished(at, out, row)
        return None
    keys = public_keys(at, None)
    why = at.read(lambda c: disproof(c, keys, row))
    if out.as_json:
        out.document({**row, "verified": why is None} | ({"why": why} if why else {}))
        return PROBLEM if why else None
    _tell_whose(out, row)
    _tell(out, row["receipt"])
    if (doubt := row["receipt"]["doubt"]) in SAYS:
        out.sentence(f"Of its signal: {SAYS[doubt]}.")
    if row["receipt"]["provider"]["answer"] == "pending" and (hold := at.read(find_hold)) is not None:
        out.sentence(f"The installation is {hold.sentence}.")
    if why:
        out.sentence(f"THE RECEIPT DOES NOT HOLD: {why}.")
        return PROBLEM
    out.sentence("The signature holds.")
    return None


@command(revocations, "jobs")
@click.argument("id")
@click.option("--page", type=click.IntRange(1), help="This page of the receipt alone, from 1.")
def list_jobs(at: Installation, out: Output, id: str, page: int | None) -> int | None:
    """The jobs a revocation reached, page by page; each page is held against the digest on the receipt."""
    row = at.read(lambda c: queries.revocation(c, id))
    pages = at.read(lambda c: queries.revocation_pages_of(c, id))
    if page is not None:
        if page > len(pages):
            raise BadInput(f"revocation {id} has {len(pages)} page(s)")
        pages = pages[page - 1 : page]
    listed = {one["sha256"] for one in (row["receipt"] or {}).get("pages", ())}
    altered = [one["number"] for one in pages if page_digest(one) not in listed] if row["receipt"] else []
    if out.as_json:
        out.document({"id": id, "pages": pages, "altered": altered})
    for one in pages:
        for said in ("cancelled", "stopping"):
            for job in one[said]:
                out.sentence(f"{said} {job}")
    if altered:
        out.sentence(f"PAGE(S) {', '.join(map(str, altered))} ARE NOT THE ONES ON THE RECEIPT.")
        return PROBLEM
    return None


@command(revocations)
@click.argument("receipt", metavar="RECEIPT")
@key_option
def verify(at: Installation, out: Output, receipt: str, key: Path | None) -> int | None:
    """Check a signature: RECEIPT is a revocation's id, or a file that `revocations show --json` wrote.

    With a file and --key nothing else is needed: no ledger, no network, no secret. Whether it is the newest revision,
    the ledger knows: by its id, what is said beside the receipt and the audit's digest are held against it too.
    """
    keys = public_keys(at, key)
    in_file = Path(receipt).is_file()
    if not in_file and ("/" in receipt or "." in receipt):  # an id has neither
        raise BadInput(
            f"there is no file {receipt}, and no revocation is named so: `aswhom revocations list` shows them"
        )
    stored = _from_file(Path(receipt)) if in_file else at.read(lambda c: queries.revocation(c, receipt))
    document, signature = stored.get("receipt"), stored.get("signature")
    if not isinstance(document, Mapping) or not isinstance(signature, str):
        raise BadInput(f"{receipt} has no signed receipt (yet): see `aswhom revocations show`")
    why = None if in_file else at.read(lambda c: disproof(c, keys, stored))
    if in_file and not holds(keys, document, signature):
        why = "the receipt was altered, or signed with another key"
    said = {"verified": why is None, "revocation": document.get("revocation"), "revision": document.get("revision")}
    if why:
        out.done(f"THE RECEIPT DOES NOT HOLD: {why}.", said)
        return PROBLEM
    out.done(f"The signature holds: {document['revocation']}, revision {document['revision']}.", said)
    if not out.as_json:
        _tell(out, document)
    return None


def summary(receipt: Mapping[str, Any]) -> str:
    """A receipt in a sentence."""
    began, ended = (datetime.fromisoformat(receipt[name]) for name in ("effective_at", "quiesced_at"))
    calls = receipt["in_flight"]
    presumed = sum(call["ended"] != "ended" for call in calls)
    how = f"{len(calls)} call(s) were in flight and have ended"
    if presumed:
        how += f", {presumed} of them presumably: no answer came before their deadline"
    took = (ended - began).total_seconds()
    return f"{receipt['cancelled_count']} job(s) cancelled, {how}, {took:.1f} s from start to end."


def _tell_whose(out: Output, row: Record) -> None:
    out.sentence(f"{row['id']}: {row['kind']} {row['key']} was revoked by {row['requested_by']}: {row['reason']}")


def _tell_unfinished(at: Installation, out: Output, row: Record) -> None:
    """One without a receipt: what it waits for."""
    flying = at.read(lambda c: in_flight(c, load(c, row["id"])))
    calls: list[Record] = [
        {
            "attempt": one.id,
            "job": one.job_id,
            "principal": one.principal_id,
            "state": one.state,
            "until": one.settled_by,
        }
        for one in flying
    ]
    if out.as_json:
        out.document({**row, "verified": None, "in_flight": calls})
        return
    _tell_whose(out, row)
    out.sentence(f"It is effective, and {row['state']}: there is no receipt yet.")
    if calls:
        out.sentence(f"{len(calls)} call(s) were in flight when it became effective, and are waited for:")
        out.table(calls, ("attempt", "job", "principal", "state", "until"))


def _tell(out: Output, receipt: Mapping[str, Any]) -> None:
    """What is on a receipt, for people."""
    out.sentence(summary(receipt))
    if receipt["finished_jobs"]:
        out.sentence(f"Ended by themselves before their next step: {', '.join(receipt['finished_jobs'])}")
    if receipt["skipping_jobs"]:
        skipping = f"{receipt['skipping_jobs']} job(s) had not finished by then"  # a stricter step may yet stop them
        out.sentence(f"{skipping}, and could go on without the steps that needed it.")
    if receipt["in_flight"]:
        out.table(receipt["in_flight"], ("attempt", "job", "principal", "ended", "outcome"))
    if asked := receipt.get("token_requests"):
        out.sentence(f"{len(asked)} request(s) for tokens were on the wire; what they win after it is used by nobody:")
        out.table(asked, ("id", "kind", "account", "began_at", "outcome"))
    for unknown in {call["job"]: call for call in receipt["in_flight"] if call["outcome"] == "unknown"}:
        out.sentence(
            f"What became of the call of {unknown} is not known: look, then as `aswhom jobs show {unknown}` says."
        )
    for one in receipt["compensations"]:
        by = f" by {one['by_job']}" if one["by_job"] else ""
        why = f": {one['reason']}" if one["reason"] else ""
        out.sentence(f"{one['action']} of {one['job']}: compensation {one['outcome']}{by}{why}")
    for job in receipt["cancelled_jobs"][:NAMED]:
        out.sentence(f"cancelled {job}")
    if receipt["cancelled_count"] > NAMED:
        out.sentence(f"… all {receipt['cancelled_count']}: `aswhom revocations jobs {receipt['revocation']}`")
    _tell_provider(out, receipt)


def _tell_provider(out: Output, receipt: Mapping[str, Any]) -> None:
    match receipt["provider"]["answer"]:
        case "not_asked":
            out.sentence(f"The provider was not asked: {why_not_asked(receipt)}.")
        case "stuck":
            out.sentence(f"STUCK at the provider: act, then `aswhom revocations retry {receipt['revocation']}`.")
        case "given_up":
            out.sentence("Given up when the tenant was deleted: what was stuck may still be valid at the provider.")
        case answer:
            out.sentence(f"At the provider: {answer}.")
    accounts = receipt["provider"]["accounts"]
    for one in accounts[:NAMED]:
        why = f": {one['reason']}" if one["reason"] else ""
        out.sentence(f"{one['account']}, generation {one['generation']} ({one['of']}): {one['answer']}{why}")
    if len(accounts) > NAMED:
        out.sentence(f"… all {len(accounts)}: `aswhom revocations show {receipt['revocation']} --json`")


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a JSON file") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds no receipt")
    return document
