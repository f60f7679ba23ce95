"""`doctor`: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import click
from redis import Redis
from redis.exceptions import RedisError

from deploy.cli.account_scopes import what_to_do
from deploy.cli.command import PROBLEM, invocation
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import AswhomError
from pipeline import connection_facts, punctuality
from pipeline.ledger import queries
from pipeline.model import BEAT
from pipeline.scope_report import scope_report

_STALE = timedelta(minutes=1)
_SHOWN = 20  # of a kind, by name; how many more there are is said
_DUTIES_AT = "is `aswhom up`, or housekeeping, running?"
OK, WRONG, UNKNOWN = "ok", "wrong", "unknown"

Finding = tuple[str, str, str]  # what was looked at, how it is, what to say of it


@click.command()
@invocation
def doctor(at: Installation, out: Output) -> int | None:
    """Say what is wrong, and what to do. Exits with 1 if anything is."""
    findings: list[Finding] = [("settings", OK, f"the data directory is {at.settings.directory}")]
    for name, look in (("keys", _keys), ("workflows", _workflows), ("ledger", _ledger), ("broker", _broker)):
        findings += _look(name, look, at)
    if ("ledger", OK) in {(name, state) for name, state, _ in findings}:
        for name, look in (
            ("housekeeping", _heartbeats),
            ("schedules", _schedules),
            ("connections", _connections),
            ("stopped", _stopped),
            ("accounts", _accounts),
            ("scopes", _scopes),
            ("revocations", _revocations),
        ):
            findings += _look(name, look, at)
    rows = [{"what": what, "state": state, "says": says} for what, state, says in findings]
    healthy = all(state != WRONG for _, state, _ in findings)
    if out.as_json:
        out.document({"healthy": healthy, "findings": rows})
    else:
        out.table(rows, ("what", "state", "says"))
    return None if healthy else PROBLEM


def _look(name: str, look: Callable[[Installation], Iterator[Finding]], at: Installation) -> list[Finding]:
    try:
        return list(look(at))
    except AswhomError as error:
        return [(name, WRONG, str(error))]


def _keys(at: Installation) -> Iterator[Finding]:
    keys = at.keys
    yield "keys", OK, f"vault key {max(keys.vault)} seals, {len(keys.vault)} open"
    for folder, writable in at.settings.key_files().exposed():
        may = "change" if writable else "look into"
        yield (
            "keys",
            WRONG if writable else UNKNOWN,
            f"everybody on this machine may {may} {folder}: run `chmod 700 '{folder}'`",
        )


def _workflows(at: Installation) -> Iterator[Finding]:
    names = ", ".join(sorted(workflow.name for workflow in at.workflows))
    yield ("workflows", OK, names) if names else ("workflows", WRONG, "none is installed: see ASWHOM_WORKFLOWS")


def _ledger(at: Installation) -> Iterator[Finding]:
    at.ledger.read(queries.all_tenants)
    yield "ledger", OK, "reachable, at this version's tables"


def _broker(at: Installation) -> Iterator[Finding]:
    url = at.settings.redis()
    if url is None:
        yield "broker", UNKNOWN, "no Redis or Valkey, so it is not looked at; refreshes are serialized by the ledger"
        return
    client = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    except RedisError as error:
        yield "broker", WRONG, f"not reachable ({type(error).__name__}): is `aswhom up` running? See ASWHOM_BROKER_URL"
        return
    finally:
        client.close()
    if policy == "noeviction":
        yield "broker", OK, "reachable, and never evicts"
    else:
        yield "broker", WRONG, f"its maxmemory-policy is {policy}: it may drop messages and locks; set it to noeviction"


def _heartbeats(at: Installation) -> Iterator[Finding]:
    now, beats = at.now(), [row for row in at.read(queries.all_heartbeats) if row["duty"] != BEAT]
    if not beats:
        yield "housekeeping", WRONG, f"no duty was ever done: {_DUTIES_AT}"
    newest = {row["duty"]: row for row in sorted(beats, key=lambda row: row["at"])}
    stale = [duty for duty, row in newest.items() if now - row["at"] > _STALE]
    if stale and len(stale) == len(newest):
        yield (
            "housekeeping",
            WRONG,
            f"nothing was done since {max(row['at'] for row in beats):%Y-%m-%d %H:%M}: {_DUTIES_AT}",
        )
        return
    for duty, row in newest.items():
        if duty in stale:
            yield "housekeeping", WRONG, f"{duty} was last done at {row['at']:%Y-%m-%d %H:%M}: its log says why"
        elif row["error"]:
            yield "housekeeping", WRONG, f"{duty} fails: {row['error']}"
    if newest and not stale and not any(row["error"] for row in newest.values()):
        yield "housekeeping", OK, f"{len(newest)} duties are done in time"


def _schedules(at: Installation) -> Iterator[Finding]:
    """Whether they are kept. Without any, a beat that does not run is missed by nobody."""
    now = at.now()
    found = at.read(lambda c: punctuality.look(c, now=now))
    if not found.live:
        return
    faults = [("schedules", WRONG, f"{id} cannot be kept: {fault}") for id, fault in found.faults.items()]
    yield from faults[:_SHOWN]
    if len(faults) > _SHOWN:
        yield "schedules", WRONG, f"{len(faults) - _SHOWN} more cannot be kept: see `aswhom schedules list`"
    if found.ticked_at is None:
        yield (
            "schedules",
            WRONG,
            f"{found.live} are never looked at, no beat ever ticked: is `aswhom up`, or beat, running?",
        )
    elif now - found.ticked_at > _STALE:
        yield (
            "schedules",
            WRONG,
            f"nothing was looked at since {found.ticked_at:%Y-%m-%d %H:%M}: is `aswhom up`, or beat, running?",
        )
    elif found.error:
        yield "schedules", WRONG, f"the last look at them failed ({found.error}): the log of beat says why"
    elif found.late > _STALE:
        yield "schedules", WRONG, f"one is due since {found.late.total_seconds():.0f} s: the log of beat says why"
    elif not faults:
        yield "schedules", OK, f"{found.live} are kept"


def _connections(at: Installation) -> Iterator[Finding]:
    for row in at.read(queries.paused_connections):
        yield (
            "connections",
            WRONG,
            f"{row['id']} is paused: {row['paused_reason']}. Mend it, then `aswhom connections resume {row['id']}`",
        )

    for row in at.read(connection_facts.refused_secrets):
        yield (
            "connections",
            UNKNOWN,
            (
                f"{row['id']}, a {row['name']} of {row['connection_id']}, was refused, and another is used: "
                f"`aswhom connections show {row['connection_id']}`"
            ),
        )


def _stopped(at: Installation) -> Iterator[Finding]:
    """A stop is an admin's wish, not a fault; who wonders why nothing happens is told of it."""
    groups = {"tenant": "tenants", "connection": "connections", "agent": "agents"}
    for row in at.read(queries.stopped_scopes):
        again = f": `aswhom {groups[row['kind']]} open {row['key']}`" if row["kind"] in groups else ""
        yield "stopped", UNKNOWN, f"{row['kind']} {row['key']} is stopped until it is opened again{again}"


def _accounts(at: Installation) -> Iterator[Finding]:
    rows = at.read(queries.troubled_accounts)
    for row in rows[:_SHOWN]:
        whose = f"{row['id']} ({row['principal_id']} at {row['provider']})"
        yield "accounts", UNKNOWN, f"{whose} is {row['state']}: see `aswhom accounts show {row['id']}`"
    if len(rows) > _SHOWN:
        yield "accounts", UNKNOWN, f"{len(rows) - _SHOWN} more are not active: see `aswhom accounts list`"


def _scopes(at: Installation) -> Iterator[Finding]:
    """A service's credential that reaches too far puts all of its tenant at risk; it is no fault that stops work."""
    now = at.now()
    report = at.read(lambda c: scope_report(c, at.workflows, tenant=None, since=now - timedelta(days=30), now=now))
    broad = [one for one in report if one.broad]
    for one in broad[:_SHOWN]:
        yield "scopes", UNKNOWN, f"{one.account} ({one.principal} at {one.provider}): {what_to_do(one)}"
    if len(broad) > _SHOWN:
        yield "scopes", UNKNOWN, f"{len(broad) - _SHOWN} more reach too far: see `aswhom accounts scopes --broad`"


def _revocations(at: Installation) -> Iterator[Finding]:
    """What was revoked here may still be valid at its provider, and nobody asks any more until an operator acts."""
    stuck = at.read(lambda c: queries.all_revocations(c, limit=_SHOWN + 1, stuck=True))
    for row in stuck[:_SHOWN]:
        what = f"{row['id']} ({row['kind']} {row['key']}) is stuck at the provider"
        yield "revocations", WRONG, f"{what}: see `aswhom revocations show {row['id']}`, act, then `retry` it"
    if len(stuck) > _SHOWN:
        yield "revocations", WRONG, "there are more that are stuck: see `aswhom revocations list --stuck`"
