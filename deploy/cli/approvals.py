"""`approvals`: steps that wait for a person's approval, and the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from deploy.cli.command import LIMIT, PROBLEM, YES, command, confirm, in_full
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.errors import BadInput
from pipeline.approvals.shown import in_lines
from pipeline.approvals.views import ApprovalView, approval, approvals_page
from pipeline.approvals.votes import Channel, NotCounted, Vote, prohibition
from pipeline.desk import approvals as acts
from pipeline.ledger.paging import Turn
from pipeline.states import ApprovalState

STATES = [str(state) for state in ApprovalState]
AS = click.option("--as", "principal", required=True, metavar="USER", help="The user whose answer it is.")


@click.group()
def approvals() -> None:
    """Steps that wait for a person's approval."""


@command(approvals, "list")
@click.option("--tenant")
@click.option("--state", type=click.Choice([*STATES, "all"]), default="open", show_default=True)
@LIMIT
def list_approvals(at: Installation, out: Output, tenant: str | None, state: str, limit: int) -> None:
    """List approvals, newest first."""
    wanted = None if state == "all" else ApprovalState(state)
    _, found = at.read(lambda c: approvals_page(c, Turn(limit=limit + 1), tenant=tenant, state=wanted))
    rows = [{**asdict(one), **{key: one.shown[key] for key in ("does", "resource", "amount")}} for one in found]
    columns = ("id", "tenant", "does", "resource", "amount", "state", "expires_at")
    out.page(rows, columns, limit=limit, empty="Nothing waits")


@command(approvals)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """Show one approval: exactly what would be done, who may answer, and who has answered."""
    view = _found(at, id)
    if out.as_json:
        out.document(asdict(view))
        return
    for sentence in told(view):
        out.sentence(sentence)


@command(approvals)
@click.argument("id")
@AS
@YES
def approve(at: Installation, out: Output, id: str, principal: str, yes: bool) -> int | None:
    """Approve ID as USER. The operator vouches for who USER is, and the audit says so."""
    return _answer(at, out, id, principal, approves=True, yes=yes)


@command(approvals)
@click.argument("id")
@AS
@YES
def deny(at: Installation, out: Output, id: str, principal: str, yes: bool) -> int | None:
    """Deny ID as USER: the step is refused."""
    return _answer(at, out, id, principal, approves=False, yes=yes)


@command(approvals)
@click.argument("id")
@click.option("--for", "principal", required=True, metavar="USER", help="The approver. Nobody else can use the link.")
def link(at: Installation, out: Output, id: str, principal: str) -> None:
    """Print a short-lived link to a page where USER answers. If console sign-in is set up, they sign in first."""
    act, principal = at.act(), in_full(_found(at, id).tenant, principal)
    made, url = at.runtime.approving.invite(id, principal, now=act.now)
    at.write(lambda c: acts.link_made(c, made, act))
    out.note(f"for {principal} alone, until {local_time(made.expires_at)}")
    out.done(url, {"url": url, "for": principal, "expires_at": made.expires_at})


def _found(at: Installation, id: str) -> ApprovalView:
    view = at.read(lambda c: approval(c, id))
    if view is None:
        raise BadInput(f"there is no approval {id}: `aswhom approvals list --state all` shows them")
    return view


def _answer(at: Installation, out: Output, id: str, principal: str, *, approves: bool, yes: bool) -> int | None:
    view = _found(at, id)
    principal = in_full(view.tenant, principal)
    given = Vote(
        approval=id,
        tenant=view.tenant,
        principal=principal,
        yes=approves,
        digest=view.digest,
        channel=Channel.CLI,
        said_as=at.operator,
    )
    if (why_not := at.read(lambda c: prohibition(c, given))) is not None:
        raise BadInput(why_not)
    for sentence in told(view):
        out.sentence(sentence)
    confirm(f"{'Approve' if approves else 'Deny'} this as {principal}?", yes=yes)
    counted = at.runtime.approving.vote(given, now=at.now())
    if isinstance(counted, NotCounted):
        raise BadInput(counted.reason)
    state = counted.state
    out.done(f"counted; approval {id} is {state}", {"approval": id, "state": str(state)})
    return PROBLEM if state is ApprovalState.VOID else None


def told(view: ApprovalView) -> list[str]:
    """Describe what would be done and who decides, a sentence a line."""
    answers = [(one.name, "yes" if one.yes else "no", one.through, one.at) for one in view.answers]
    return [
        f"approval {view.id} of {view.tenant}, {view.state}" + (f": {view.reason}" if view.reason else ""),
        *in_lines(view.shown),
        *(f"{need.rule}: {need.said_yes} of {need.quorum} said yes, of {', '.join(need.names)}" for need in view.needs),
        *(f"{name} said {answer} ({through}, {local_time(at)})" for name, answer, through, at in answers),
        *_until(view),
    ]


def _until(view: ApprovalView) -> Iterator[str]:
    """Say what the expiry time still means. Denied and void approvals yield nothing."""
    by = local_time(view.expires_at)
    match view.state:
        case ApprovalState.OPEN:
            yield f"it expires at {by}, and that is a no"
        case ApprovalState.APPROVED if view.used_at is not None:
            yield f"its step opened at {local_time(view.used_at)}"
        case ApprovalState.APPROVED:
            yield f"if its step has not opened by {by}, that is a no"
        case _:
            pass
