"""`accounts narrow`: reduces an account's scopes, with a receipt of the calls that were in flight."""

from __future__ import annotations

from dataclasses import asdict

import click
from sqlalchemy import Connection

from deploy.cli.accounts import accounts
from deploy.cli.command import YES, command, confirm, names
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.accounts.narrowing import Narrowed
from identity.accounts.states import get_account
from identity.model import PrincipalKind
from identity.providers import PROFILES
from pipeline.authoring.uses import SERVICE, USER
from pipeline.ledger.paging import Record
from pipeline.revocation.narrowing import NarrowingAtStake, narrow_account, preview_narrowing
from pipeline.views import operator_queries


@command(accounts, "narrow")
@click.argument("id")
@click.option("--scopes", required=True, callback=names, help="Scopes it keeps: a,b,c. Empty: none.")
@click.option("--reason", default="an operator's decision", show_default=True, help="For the receipt and the audit.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would wait for consent and what is in flight, and narrow nothing."
)
@YES
def narrow(
    at: Installation, out: Output, id: str, scopes: tuple[str, ...], reason: str, dry_run: bool, yes: bool
) -> None:
    """Reduce an account's scopes. A step that lacks one waits for consent; nothing is cancelled.

    Once this returns, no step that needs a dropped scope opens. Calls in flight at that moment are listed on the
    receipt.
    """
    row = at.read(lambda c: operator_queries.any_account(c, id))
    dropped = sorted(set(row["scopes"] or ()) - set(scopes))
    needing = _would_wait(at, row, scopes)
    document = {"id": row["id"], "keeps": scopes, "drops": dropped, "needed_by": needing}
    waiting = f"would wait for consent: {', '.join(needing)}" if needing else "no declared action needs them"
    if dry_run or not yes:
        had = row["scopes"] or ()
        stake = at.read(lambda c: preview_narrowing(c, get_account(c, row["id"]), had, scopes, at.workflows))
        waiting += f"; {_at_stake(stake)}"
        document |= asdict(stake)
    if dry_run:
        out.done(f"{row['id']} would lose {', '.join(dropped) or 'nothing'}; {waiting}", {**document, "dry_run": True})
        return
    confirm(f"Take {', '.join(dropped) or 'nothing'} from {row['id']}? {waiting}.", yes=yes)
    made, act = at.ids("rev"), at.act()

    def write(c: Connection) -> Narrowed:
        account = get_account(c, row["id"])
        return narrow_account(c, account, act, id=made, keep=scopes, source="cli", reason=reason)

    narrowed = at.write(write, ahead=True)
    had = ", ".join(narrowed.had) or "none"
    out.done(
        f"{row['id']} keeps {', '.join(scopes) or 'no scope'}; it had {had}. "
        f"Its receipt, with the calls that were out: `aswhom revocations show {made}`",
        {**document, "receipt": made, "number": narrowed.number, "effective_at": narrowed.at},
    )
    at.ring_revocations([made])


def _at_stake(stake: NarrowingAtStake) -> str:
    calls = f"{stake.calls_in_flight} call(s) that need them are in flight"
    if stake.unknown_calls:
        calls += f", and what became of {stake.unknown_calls} is not known"
    if not stake.jobs:
        return calls
    of = ", ".join(f"{number} of {workflow}" for workflow, number in stake.jobs.items())
    return f"{calls}; unfinished jobs that may come to one: {of}"


def _would_wait(at: Installation, row: Record, keep: tuple[str, ...]) -> list[str]:
    """Return declared actions for this kind of principal that the account's scopes allow and the kept ones do not."""
    whose = USER if row["kind"] == PrincipalKind.USER else SERVICE
    profile = PROFILES.get(row["provider"])
    before, after = (profile.covered(some) if profile else frozenset(some) for some in (row["scopes"] or (), keep))
    return sorted(
        f"{declared.name}: {action.action_name()}"
        for declared in at.workflows
        for action, who in declared.uses.items()
        if who & whose and action.facts.provider == row["provider"]
        if action.facts.scopes <= before and not action.facts.scopes <= after
    )
