"""`revocations`: receipts of what revocations stopped, verifiable anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from deploy.cli.command import LIMIT, PROBLEM, YES, command, confirm, new_file_option
from deploy.cli.output import Output, as_document
from deploy.cli.public_key import key_option, public_keys
from deploy.cli.receipt_words import tell_receipt
from deploy.installation import Installation
from deploy.new_file import whole
from identity.errors import BadInput
from identity.hold import find_hold
from identity.withdrawals.stuck_leftovers import StuckLeftover, stuck_leftovers
from pipeline.desk import revocations as acts
from pipeline.ledger.paging import EVERY, Record, Turn
from pipeline.revocation.declaration import Stage, in_flight, load
from pipeline.revoker.inquiry import SAYS
from pipeline.revoker.proof import OddPages, disproof, holds, odd_pages
from pipeline.views import operator_queries, tenant_views

_KEYS = {"number", "cancelled", "stopping"}  # required in a page


@click.group()
def revocations() -> None:
    """Receipts of what revocations and narrowings stopped."""


@command(revocations, "list")
@LIMIT
@click.option("--stuck", is_flag=True, help="Only those that a provider could not be asked to follow.")
@new_file_option
def list_revocations(at: Installation, out: Output, limit: int, stuck: bool, output: Path | None) -> None:
    """List revocations and narrowings, newest first. With --output, write all of them as JSON and ignore --limit."""
    if output is not None:
        left = at.read(lambda c: stuck_leftovers(c, None, limit=None)) if stuck else []
        every = [_of_connect(one) for one in left]
        every += at.read(lambda c: tenant_views.revocations_page(c, None, EVERY, stuck=stuck).rows)
        with whole(output, at.ids("part")) as part:
            part.write_text(f"{as_document(every)}\n", encoding="utf-8")
        of_none = f", and what {len(left)} refused connect(s) had won" if left else ""
        of_one = len(every) - len(left)
        told = {"file": str(output), "revocations": of_one, "connects": len(left)}
        out.done(f"{of_one} revocation(s) are in {output}{of_none}", told)
        return
    rows = at.read(lambda c: tenant_views.revocations_page(c, None, Turn(limit=limit + 1), stuck=stuck).rows)
    columns = ("id", "kind", "key", "state", "cancelled_jobs", "stopped_jobs", "requested_by", "effective_at", "reason")
    if not stuck:
        out.page(rows, columns, limit=limit, empty="Nothing was ever revoked")
        return
    beside = [_of_connect(one) for one in at.read(lambda c: stuck_leftovers(c, None, limit=limit + 1))]
    out.rows([*rows[:limit], *beside[:limit]], columns, empty="Nothing is stuck")
    for what, found in (("revocations", rows), ("refused connects", beside)):
        if len(found) > limit:
            out.note(f"of the {what} only the first {limit} are shown: say --limit")


def _of_connect(one: StuckLeftover) -> Record:
    """Return a refused connect's leftover credential in the columns of a revocation, though it belongs to none."""
    key = {"id": one.id, "kind": "connect", "key": one.account, "tenant_id": one.tenant, "state": "stuck"}
    return {**key, "cancelled_jobs": 0, "stopped_jobs": 0, "requested_by": None, "effective_at": one.since} | {
        "reason": one.reason
    }


@command(revocations)
@click.argument("id")
def retry(at: Installation, out: Output, id: str) -> int | None:
    """Ask the provider again about stuck credentials of a revocation or of a refused connect.

    ID is a revocation's, or connect.N from `revocations list --stuck`. Housekeeping sends the request within seconds.
    """
    act = at.act()
    again = at.write(lambda c: acts.retry(c, id, act))
    if again == 0:
        out.done(f"Nothing of {id} is stuck.", {"revocation": id, "asked_again": 0})
        return PROBLEM
    out.done(f"{again} credential(s) of {id} are asked about again.", {"revocation": id, "asked_again": again})
    return None


@command(revocations, "give-up")
@click.argument("id")
@YES
def give_up(at: Installation, out: Output, id: str, yes: bool) -> int | None:
    """Stop asking about a refused connect's credential (connect.N), and shred it. It may stay valid at the provider.

    Use it for a credential that you ended at the provider yourself, or that the provider never ends on request.
    """
    confirm(f"Shred what {id} had won? Nobody can have its provider asked again.", yes=yes)
    act = at.act()
    if at.write(lambda c: acts.give_up(c, id, act)) == 0:
        out.done(f"{id} is not stuck.", {"id": id, "given_up": False})
        return PROBLEM
    out.done(f"{id} is given up and shredded.", {"id": id, "given_up": True})
    return None


@command(revocations)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> int | None:
    """Show one revocation or narrowing, its receipt, and whether the receipt is authentic.

    It has to be signed by this installation, for this revocation, and be the newest revision. The --json output can be
    saved as a file for `revocations verify`.
    """
    row = at.read(lambda c: operator_queries.any_revocation(c, id))
    if row["receipt"] is None:
        _tell_unfinished(at, out, row)
        return None
    keys = public_keys(at, None)
    why = at.read(lambda c: disproof(c, keys, row))
    if out.as_json:
        out.document({**row, "verified": why is None} | ({"why": why} if why else {}))
        return PROBLEM if why else None
    _tell_whose(out, row)
    tell_receipt(out, row["receipt"])
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
@click.option("--page", type=click.IntRange(1), help="Only this page of the receipt, from 1.")
def list_jobs(at: Installation, out: Output, id: str, page: int | None) -> int | None:
    """List the jobs a revocation reached, page by page. All pages are checked against the digests on the receipt.

    The --json output can be saved as a file for `revocations verify --pages`.
    """
    row = at.read(lambda c: operator_queries.any_revocation(c, id))
    pages = at.read(lambda c: operator_queries.revocation_pages_of(c, id))
    odd = odd_pages(row["receipt"], pages) if row["receipt"] else OddPages()
    if page is not None:
        if page > len(pages):
            raise BadInput(f"revocation {id} has {len(pages)} page(s)")
        pages = pages[page - 1 : page]
    if out.as_json:
        out.document({"id": id, "pages": pages, "altered": list(odd.altered), "missing": list(odd.missing)})
    for one in pages:
        for said in ("cancelled", "stopping"):
            for job in one[said]:
                out.sentence(f"{said} {job}")
    if odd:
        out.sentence(f"THE PAGES ARE NOT THOSE ON THE RECEIPT: {odd}.")
        return PROBLEM
    return None


@command(revocations)
@click.argument("receipt", metavar="RECEIPT")
@key_option
@click.option(
    "--pages",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also verify its pages, in a file that `revocations jobs --json` wrote: all present, none altered.",
)
def verify(at: Installation, out: Output, receipt: str, key: Path | None, pages: Path | None) -> int | None:
    """Verify a receipt's signature. RECEIPT is a revocation's id, or a file that `revocations show --json` wrote.

    With a file and --key nothing else is needed: no ledger, network or secret. Only the ledger knows which revision is
    the newest: given an id, the receipt is also checked against its row and against the digest in the audit.
    """
    keys = public_keys(at, key)
    in_file = Path(receipt).is_file()
    if not in_file and ("/" in receipt or "." in receipt):  # an id contains neither
        raise BadInput(
            f"there is no file {receipt}, and no revocation is named so: `aswhom revocations list` shows them"
        )
    stored = _from_file(Path(receipt)) if in_file else at.read(lambda c: operator_queries.any_revocation(c, receipt))
    document, signature = stored.get("receipt"), stored.get("signature")
    if not isinstance(document, Mapping) or not isinstance(signature, str):
        raise BadInput(f"{receipt} has no signed receipt (yet): see `aswhom revocations show`")
    why = None if in_file else at.read(lambda c: disproof(c, keys, stored))
    if in_file and not holds(keys, document, signature):
        why = "the receipt was altered, or signed with another key"
    if why is None and pages is not None and (odd := odd_pages(document, _pages_in(pages))):
        why = f"its pages in {pages} are not those that were signed: {odd}"
    said = {"verified": why is None, "revocation": document.get("revocation"), "revision": document.get("revision")}
    if why:
        out.done(f"THE RECEIPT DOES NOT HOLD: {why}.", said)
        return PROBLEM
    of_pages = "" if pages is None else f", and so do its {len(document['pages'])} page(s)"
    out.done(f"The signature holds{of_pages}: {document['revocation']}, revision {document['revision']}.", said)
    if not out.as_json:
        tell_receipt(out, document)
    return None


def _tell_whose(out: Output, row: Record) -> None:
    what = f"{row['kind']} {row['key']} was revoked"
    if row["narrowing"] is not None:
        what = f"account {row['key']} was narrowed to {', '.join(row['narrowing']['keeps']) or 'no scope'}"
    out.sentence(f"{row['id']}: {what} by {row['requested_by']}: {row['reason']}")


def _tell_unfinished(at: Installation, out: Output, row: Record) -> None:
    """Describe a revocation that has no receipt yet, and the calls it waits for."""
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
    further = "" if row["state"] == Stage.EFFECTIVE else f", and {row['state']}"
    out.sentence(f"It is effective{further}: there is no receipt yet.")
    if calls:
        out.sentence(f"{len(calls)} call(s) were in flight when it became effective, and are waited for:")
        out.table(calls, ("attempt", "job", "principal", "state", "until"))


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a JSON file") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds no receipt")
    return document


def _is_page(one: object) -> bool:
    return isinstance(one, Mapping) and one.keys() >= _KEYS and isinstance(one["number"], int)


def _pages_in(path: Path) -> list[Mapping[str, Any]]:
    match _from_file(path):
        case {"pages": [*pages]} if all(_is_page(one) for one in pages):
            return pages
    raise BadInput(f"{path} holds no pages: `aswhom revocations jobs ID --json` prints them, without --page")
