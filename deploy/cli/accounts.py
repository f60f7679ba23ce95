"""`accounts`: the accounts that calls are made as, why one cannot be used, and how to get it back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import click
from sqlalchemy import Connection

from deploy.cli.command import DONE, MANY, PROBLEM, YES, command, confirm, names, tell
from deploy.cli.connect import give_link
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from identity import audit
from identity.accounts.liveness import Life, ask_whose
from identity.audit import AsWhom
from identity.connections.registry import get_connection
from identity.errors import AswhomError, BadInput
from identity.model import AccountKey, AccountState, Credential
from identity.providers import PROFILES
from identity.refresh.person_wanted import awaiting_person, try_without
from identity.sql.store import CommitUnknown
from pipeline.accounts import facts
from pipeline.accounts.connecting import wake_waiting
from pipeline.ledger.paging import Record
from pipeline.views import operator_queries, tenant_views

T = TypeVar("T")

log = logging.getLogger(__name__)

_STATES = click.Choice([str(state) for state in AccountState])


@click.group()
def accounts() -> None:
    """Connected accounts, as which calls are made."""


@command(accounts, "list")
@click.option("--tenant")
@click.option("--provider", help="github, linear, slack …")
@click.option("--state", type=_STATES)
@click.option("--unusable", is_flag=True, help="Only accounts with which no step opens now, for any reason.")
@MANY
def list_accounts(
    at: Installation,
    out: Output,
    tenant: str | None,
    provider: str | None,
    state: str | None,
    unusable: bool,
    limit: int,
) -> None:
    """List accounts without their credentials: why one is not active, and what to do."""

    def read(c: Connection) -> list[Record]:
        found = tenant_views.accounts_by_whom(
            c, tenant, limit + 1, state=state, provider=provider, usable=False if unusable else None
        )
        return facts.all_told(c, found)

    rows = at.read(read)
    columns = ("id", "tenant_id", "connection_id", "principal_id", "external_login", "state", "expires_at", "why")
    empty = "No such account: `aswhom connect link` makes the link for a person"
    out.page(rows, columns, limit=limit, empty=empty)
    for row in rows[:limit]:
        if row["next"] and row["state"] != AccountState.PENDING:
            out.sentence(f"{row['id']}: {row['next']}")


@command(accounts)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """Show one account, by its id or as TENANT/CONNECTION/PRINCIPAL: its state, the reason, and what to do."""
    row = at.read(lambda c: facts.whole(c, operator_queries.any_account(c, id)))
    if out.as_json:
        out.document(row)
        return
    out.sentence(f"{row['id']}: {row['principal']} of {row['tenant_id']} at {row['provider']}, {row['state']}")
    out.sentence(f"Why: {row['why']}")
    out.sentence(f"Next: {row['next'] or 'nothing'}\n")
    shown = ("credential", "external_login", "external_id", "generation", "consented", "scopes", "obtained_at")
    out.table(
        [
            {"": fact.replace("_", " "), "is": row[fact]}
            for fact in (*shown, "expires_at", "last_used_at", "keepalive_due", "keepalive_error")
        ],
        ("", "is"),
    )
    if (story := row["latest_refresh"]) is not None:
        because = f" ({story['why']})" if story["why"] else ""
        out.sentence(f"\nLatest refresh: {story['says']}{because}. Next: {story['next'] or 'nothing'}")
        columns = ("intent", "generation", "state", "presented", "started_at", "settled_by", "finished_at", "retry_at")
        out.table([story], columns)
    if row["waiting_jobs"]:
        out.sentence("\nJobs that wait for this account")
        out.table(row["waiting_jobs"], ("id", "workflow", "reason", "expires_at"))


@command(accounts)
@click.argument("id")
@click.option(
    "--scopes",
    callback=names,
    help="Scopes to ask for: a,b,c.  [default: as before, plus those that waiting jobs lack]",
)
@click.option("--return-to", metavar="URL", help="Where the last page leads. Must be a registered return URL.")
@click.option("--any-account", is_flag=True, help="Accept a different login at the provider than before.")
def reconnect(
    at: Installation, out: Output, id: str, scopes: tuple[str, ...] | None, return_to: str | None, any_account: bool
) -> None:
    """Print a link at which the person consents again."""
    row = at.read(lambda c: facts.whole(c, operator_queries.any_account(c, id)))
    if row["credential"] != Credential.AUTHORIZATION_CODE:
        raise BadInput(
            f"{row['id']} is a service's account, to which no person consents: {row['next'] or 'it needs nothing'}"
        )
    why = None if row["state"] == AccountState.ACTIVE and row["next"] is None else row["why"]
    if why:
        out.sentence(f"Why: {why}")
    give_link(
        at,
        out,
        AccountKey.of(row),
        scopes=scopes,
        return_to=return_to,
        any_account=any_account,
        also={"why": why},
    )


@command(accounts)
@click.argument("id")
def refresh(at: Installation, out: Output, id: str) -> int:
    """Refresh the account's token now, even if the current one is still valid.

    Concurrent refreshes present the token only once.
    """
    row = at.read(lambda c: operator_queries.any_account(c, id))
    account, before = row["id"], row["generation"]
    if row["credential"] == Credential.STATIC:
        raise BadInput(f"{account} has a token that stays the same: `aswhom accounts add-static` replaces it")
    if before is None:
        raise BadInput(f"{account} was never connected. Next: {_next_token(at, account)}")
    try:
        after = at.runtime.coordinator.refresh(account, after_generation=before)
    except (AswhomError, CommitUnknown) as error:  # the refresh was still forced, and the token may have been presented
        _note_refresh(at, row, "failed", generation=before, error=type(error).__name__, why=str(error))
        return tell(out, error, next_step=_looked_at(lambda: _next_token(at, account), account))
    renewed = after > before
    _note_refresh(at, row, "renewed" if renewed else "kept", generation=after)
    now = _looked_at(lambda: at.read(lambda c: operator_queries.any_account(c, account)), account)
    until = now and now["expires_at"]
    next_ = None if renewed else _looked_at(lambda: _next_token(at, account), account)
    if renewed:
        said = f"{account} has generation {after}"
        if now is not None:
            said += "; its token " + (f"expires at {local_time(until)}" if until else "does not expire")
    else:
        said = f"{account} keeps generation {after}, which has not expired: no newer token is available now"
    out.done(
        said + (f". Next: {next_}" if next_ else ""),
        {"id": account, "renewed": renewed, "generation": after, "expires_at": until, "next": next_},
    )
    return DONE if renewed else PROBLEM


@command(accounts)
@click.argument("id", required=False)
@click.option("--connection", help="All accounts of this provider connection that wait for their person.")
@YES
def retry(at: Installation, out: Output, id: str | None, connection: str | None, yes: bool) -> None:
    """Retry accounts that wait for their person with their current tokens.

    Use it once the provider no longer asks for the person.
    """
    if (id is None) == (connection is None):
        raise BadInput("give the ID of one account, or --connection for all accounts of a provider connection")
    if connection is None:
        waiting = [at.read(lambda c: operator_queries.any_account(c, id or ""))["id"]]
    else:
        waiting = at.read(lambda c: awaiting_person(c, get_connection(c, connection).id))
        if not waiting:
            raise BadInput(f"no account of {connection} waits for its person: there is nothing to retry")
        confirm(f"Try {len(waiting)} accounts of {connection} again?", yes=yes)
    refused = {account: why for account in waiting if (why := _try_again(at, account)) is not None}
    if id is not None and refused:
        ((account, why),) = refused.items()
        raise BadInput(
            f"{account}: {why}, so another try would change nothing: `aswhom accounts show {account}` says what is next"
        )
    retried = [account for account in waiting if account not in refused]
    out.done(f"To be tried again with their current tokens: {', '.join(retried) or 'none'}", {"retried": retried})


def _try_again(at: Installation, account: str) -> str | None:
    """Return None once the account is queued to be tried again, or the reason it cannot be."""
    act = at.act()

    def write(c: Connection) -> str | None:
        tried = try_without(c, account, act)
        if isinstance(tried, str):
            return tried
        wake_waiting(c, tried)
        return None

    return at.write(write)


def _note_refresh(at: Installation, row: Record, outcome: str, *, generation: int, **detail: str) -> None:
    """Audit a forced refresh.

    If the ledger is unavailable, only log: an operator would repeat a failed command, and rotate the token again.
    """
    whom, act = AsWhom.of_account(AccountKey.of(row), id=row["id"], generation=generation), at.act()
    try:
        at.write(lambda c: audit.record_act(c, "account.refresh_forced", whom, act, outcome=outcome, detail=detail))
    except (AswhomError, CommitUnknown) as error:
        log.warning(
            "a forced refresh may not be in the audit",
            extra={
                "action": "account.refresh_unaudited",
                "account": row["id"],
                "outcome": outcome,
                "generation": generation,
                "error": type(error).__name__,
                "reason": str(error),
            },
        )


def _looked_at(look: Callable[[], T], account: str) -> T | None:
    """Return what *look* reads, or None if the ledger cannot be read: the command itself has succeeded by then."""
    try:
        return look()
    except AswhomError as error:
        log.warning(
            "how the account is now cannot be read",
            extra={"action": "account.unread", "account": account, "error": type(error).__name__, "reason": str(error)},
        )
        return None


def _next_token(at: Installation, account: str) -> str | None:
    return at.read(lambda c: facts.next_token(c, operator_queries.any_account(c, account)))


@command(accounts)
@click.argument("id")
def test(at: Installation, out: Output, id: str) -> int:
    """Ask the provider whom the token belongs to. Nothing is changed: a refusal does not count as a revocation."""
    row = at.read(lambda c: operator_queries.any_account(c, id))
    found = ask_whose(at.ledger, at.vault, at.runtime.http, PROFILES, row["id"], now=at.now())
    match found.life:
        case Life.ALIVE | Life.UNKNOWN:
            next_ = None
        case Life.OTHER:
            next_ = at.read(lambda c: facts.again(c, row))
        case Life.REFUSED | Life.EXPIRED | Life.NONE | Life.REVOKED:
            next_ = _next_token(at, row["id"])
    out.done(
        f"{row['id']} is {found.life}: {found.said}" + (f". Next: {next_}" if next_ else ""),
        {
            "id": row["id"],
            "life": found.life,
            "said": found.said,
            "external_id": found.external and found.external.id,
            "external_login": found.external and found.external.login,
            "next": next_,
        },
    )
    return DONE if found.life is Life.ALIVE else PROBLEM
