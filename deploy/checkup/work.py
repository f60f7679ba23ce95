"""Checks the work: timely duties and schedules, and jobs that cannot move without a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.hold import find_hold
from identity.model import PrincipalKind
from identity.tenants import EVERY_TENANT
from identity.transmitters import silent_streams
from identity.withdrawals.stuck_leftovers import stuck_leftovers
from pipeline.accounts.scope_report import scope_report, what_to_do
from pipeline.intervals import silence_of
from pipeline.jobs.configurations import refused
from pipeline.jobs.missing_workflows import missing_workflows as missing
from pipeline.ledger.clock import ledger_now
from pipeline.ledger.paging import Turn
from pipeline.model import BEAT
from pipeline.schedules import punctuality
from pipeline.views import operator_queries, tenant_views, troubles

_STALE = timedelta(minutes=1)
_LATE = timedelta(minutes=2)
_REMEMBERED = timedelta(minutes=10)  # how long an error is reported after the duty succeeds again
_LONG = timedelta(minutes=10)  # longer than any call, or a provider's confirmation of a signal, may take
_SHOWN = 20  # items of a kind listed by name; the rest is counted
_DUTIES_AT = "is `aswhom up`, or housekeeping, running?"


def heartbeats(at: Installation) -> Iterator[Finding]:
    now, rows = at.read(lambda c: (ledger_now(c), operator_queries.all_heartbeats(c)))
    beats = [row for row in rows if row["duty"] != BEAT]
    if not beats:
        yield wrong(Subject.HOUSEKEEPING, f"no duty was ever done: {_DUTIES_AT}")
    newest = {row["duty"]: row for row in sorted(beats, key=lambda row: row["at"])}
    stale = [duty for duty, row in newest.items() if now - row["at"] > silence_of(duty)]
    last = max((row["at"] for row in beats), default=now)
    if now - last > _STALE:
        yield wrong(Subject.HOUSEKEEPING, f"nothing was done since {local_time(last)}: {_DUTIES_AT}")
        return
    for duty in stale:
        yield wrong(Subject.HOUSEKEEPING, f"{duty} was last done at {local_time(newest[duty]['at'])}: its log says why")
    # For every live host: a duty that always fails on one host is done by the others.
    living = [row for row in beats if now - row["at"] <= silence_of(row["duty"])]
    failing = [row for row in living if row["error"]]
    for row in failing:
        yield wrong(Subject.HOUSEKEEPING, f"{row['duty']} fails on {row['host']}: {row['error']}")
    for row in living:
        if not row["error"] and row["failed_at"] is not None and now - row["failed_at"] < _REMEMBERED:
            says = f"{row['duty']} failed on {row['host']} at {local_time(row['failed_at'])} ({row['last_error']})"
            yield unknown(Subject.HOUSEKEEPING, f"{says}; it has succeeded since")
    if newest and not stale and not failing:
        yield ok(Subject.HOUSEKEEPING, f"{len(newest)} duties are done in time")


def schedules(at: Installation) -> Iterator[Finding]:
    """Check that schedules are kept. Without schedules, a beat that does not run is no fault."""
    now, found, hold = at.read(lambda c: ((now := ledger_now(c)), punctuality.look(c, now=now), find_hold(c)))
    if not found.live:
        return
    faults = [wrong(Subject.SCHEDULES, f"{id} cannot be kept: {fault}") for id, fault in found.faults.items()]
    yield from faults[:_SHOWN]
    if len(faults) > _SHOWN:
        yield wrong(Subject.SCHEDULES, f"{len(faults) - _SHOWN} more cannot be kept: see `aswhom schedules list`")
    running = "is `aswhom up`, or beat, running?"
    if found.ticked_at is None:
        yield wrong(Subject.SCHEDULES, f"{found.live} are never looked at, because no beat ever ticked: {running}")
    elif now - found.ticked_at > _STALE:
        yield wrong(Subject.SCHEDULES, f"nothing was looked at since {local_time(found.ticked_at)}: {running}")
    elif found.error:
        yield wrong(Subject.SCHEDULES, f"the last look at them failed ({found.error}): the log of beat says why")
    elif found.late > _STALE and hold is None:
        yield wrong(
            Subject.SCHEDULES, f"one has been due for {found.late.total_seconds():.0f} s: the log of beat says why"
        )
    elif not faults:
        yield ok(Subject.SCHEDULES, f"{found.live} are kept")


def stuck(at: Installation) -> Iterator[Finding]:
    """Report jobs that wait for a worker or an operator, unsealed records, and revocations without a receipt."""
    found = at.read(troubles.look)
    for pattern, since in found.due_for.items():
        if since > _LATE and found.hold is None:
            most = at.read(partial(troubles.most_due, pattern=pattern))
            whose = f", {most[1]} of {found.due[pattern]} of them {most[0]}'s" if most else ""
            says = f"{pattern} jobs have been due for {since.total_seconds():.0f} s{whose}: do enough workers run?"
            yield wrong(Subject.JOBS, says)
    if found.unanswered:
        says = (
            f"{found.unanswered} call(s) need a person to say how they ended: `aswhom jobs list --wait unknown`, then "
            "`jobs resolve`"
        )
        yield wrong(Subject.JOBS, says)
    if found.dead:
        yield unknown(
            Subject.JOBS, f"{found.dead} are dead: `aswhom jobs failures` says why, `jobs replay` brings them back"
        )
    if found.unsealed > _LATE:
        says = f"records have been unsealed for {found.unsealed.total_seconds():.0f} s: housekeeping's log says why"
        yield wrong(Subject.AUDIT, says)
    if found.unreached > _LATE:
        says = (
            f"a signal came {found.unreached.total_seconds():.0f} s ago and has yet to reach accounts, for which "
            "agents still act: housekeeping's log says whether its duty `signals` goes on"
        )
        yield wrong(Subject.REVOCATIONS, says)
    if found.revoking > _LONG + (at.settings.call_deadline or timedelta()):
        says = (
            f"one has had no receipt for {found.revoking.total_seconds():.0f} s: `aswhom revocations list` has its id"
        )
        yield wrong(Subject.REVOCATIONS, f"{says}, the log of revocations and of housekeeping why")


def missing_workflows(at: Installation) -> Iterator[Finding]:
    """Report missing workflows, whose jobs wait until someone installs them or ends the jobs."""
    found = at.read(lambda c: missing(c, at.workflows))
    for one in found[:_SHOWN]:
        yield wrong(Subject.WORKFLOWS, one.sentence)
    if len(found) > _SHOWN:
        yield wrong(Subject.WORKFLOWS, f"{len(found) - _SHOWN} more are not installed: see `aswhom workflows list`")


def configurations(at: Installation) -> Iterator[Finding]:
    """Report configurations stored for older versions of a workflow: every job accepted under them will die."""
    said = at.read(lambda c: refused(c, at.workflows))
    for one in said[:_SHOWN]:
        yield wrong(Subject.CONFIGURATIONS, one)
    if len(said) > _SHOWN:
        yield wrong(Subject.CONFIGURATIONS, f"{len(said) - _SHOWN} more no longer fit their workflows")


def held(at: Installation) -> Iterator[Finding]:
    """Report a hold first. It may be what an operator wants."""
    if (hold := at.read(find_hold)) is not None:
        yield unknown(Subject.HELD, f"{hold.sentence}. `aswhom hold release` ends it")


def stopped(at: Installation) -> Iterator[Finding]:
    """Report stops. They are an admin's choice, but explain why nothing happens."""
    groups = {"tenant": "tenants", "user": "users", "connection": "connections", "agent": "agents"}
    for row in at.read(operator_queries.stopped_scopes):
        again = f": `aswhom {groups[row['kind']]} open {row['key']}`" if row["kind"] in groups else ""
        yield unknown(Subject.STOPPED, f"{row['kind']} {row['key']} is stopped until it is opened again{again}")


def accounts(at: Installation) -> Iterator[Finding]:
    rows, number = at.read(lambda c: operator_queries.troubled_accounts(c, limit=_SHOWN))
    for row in rows:
        whose = f"{row['id']} ({row['principal_id']} at {row['provider']})"
        yield unknown(Subject.ACCOUNTS, f"{whose} is {row['state']}: see `aswhom accounts show {row['id']}`")
    if number > len(rows):
        yield unknown(Subject.ACCOUNTS, f"{number - len(rows)} more are not active: see `aswhom accounts list`")


def revocations(at: Installation) -> Iterator[Finding]:
    """Report stuck revocations: credentials that may still be valid at their provider until an operator acts."""
    rows = at.read(lambda c: tenant_views.revocations_page(c, EVERY_TENANT, Turn(limit=_SHOWN + 1), stuck=True).rows)
    for row in rows[:_SHOWN]:
        what = f"{row['id']} ({row['kind']} {row['key']}) is stuck at the provider"
        yield wrong(Subject.REVOCATIONS, f"{what}: see `aswhom revocations show {row['id']}`, act, then `retry` it")
    if len(rows) > _SHOWN:
        yield wrong(Subject.REVOCATIONS, "there are more that are stuck: see `aswhom revocations list --stuck`")
    left = at.read(lambda c: stuck_leftovers(c, EVERY_TENANT, limit=_SHOWN + 1))
    for one in left[:_SHOWN]:
        what = f"{one.id}, won by a connect of account {one.account} that was refused, is stuck at the provider"
        yield wrong(Subject.REVOCATIONS, f"{what}: {one.reason}; act, then `aswhom revocations retry {one.id}`")
    if len(left) > _SHOWN:
        yield wrong(
            Subject.REVOCATIONS, "refused connects had won more that is stuck: see `aswhom revocations list --stuck`"
        )


def streams(at: Installation) -> Iterator[Finding]:
    """Report silent streams: revocations of their people no longer arrive, though nothing here fails."""
    for one in at.read(silent_streams):
        said = f"transmitter {one.transmitter} said at {local_time(one.told_at)} that its stream is"
        act = "enable the stream there: until then it tells of no session or account that has ended"
        then = f"if it does not say that it is enabled then: `aswhom transmitters running {one.transmitter}`"
        yield wrong(Subject.STREAMS, f"{said} {one.status}; {act}; {then}")


def scopes(at: Installation) -> Iterator[Finding]:
    """Report overly broad service credentials, which put their whole tenant at risk but stop no work."""
    now, kind = at.now(), PrincipalKind.SERVICE
    # Recent use does not matter for how far they reach.
    broad = [one for one in scope_report(at, at.workflows, tenant=None, since=None, now=now, kind=kind) if one.broad]
    for one in broad[:_SHOWN]:
        yield unknown(Subject.SCOPES, f"{one.account} ({one.principal} at {one.provider}): {what_to_do(one)}")
    if len(broad) > _SHOWN:
        yield unknown(Subject.SCOPES, f"{len(broad) - _SHOWN} more reach too far: see `aswhom accounts scopes --broad`")
