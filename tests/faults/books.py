"""The upstreams' own logs held against the ledger: what must be true whatever broke in between."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Row, select

from identity.connect_sessions.tables import connect_sessions
from identity.minting.tables import mints
from identity.refresh.tables import refresh_intents
from identity.withdrawals.tables import withdrawals
from pipeline.revocation.tables import revocations
from pipeline.tables import attempts, deliveries, jobs, steps
from tests.faults.holders import Holder, holders
from tests.system.rig import System

UPSTREAMS = ("github", "linear", "slack")
NAMES = ("attempt", "refresh", "connect", "revocation")


def log(system: System) -> list[dict[str, Any]]:
    """Every request that reached an upstream."""
    return [entry for name in UPSTREAMS for entry in system.sandbox(name, "log")]


def requests(system: System) -> list[dict[str, Any]]:
    """Those that say they are a step's; `balance` sees to it that the others say what else they are."""
    return [entry for entry in log(system) if entry["attempt"] is not None]


def balance(system: System) -> None:
    """Each request was written down before it was sent, for whose token it carries, and wrote once."""
    everything, presentations = log(system), system.sandbox("auth", "presentations")
    columns = attempts.c
    known = {
        row.id: row
        for row in system.rows(
            select(
                columns.id,
                columns.step_id,
                columns.tenant_id,
                columns.connection_id,
                columns.principal_id,
                columns.purpose,
            )
        )
    }
    issued = holders(system)
    seen: Counter[str] = Counter()
    wrote: Counter[str] = Counter()
    _says_what_it_is(system, [*everything, *presentations], frozenset(known))
    for entry in everything:
        if entry["attempt"] is None:
            continue
        attempt = known[entry["attempt"]]
        seen[attempt.id] += 1
        recorded = Holder(tenant=attempt.tenant_id, connection=attempt.connection_id, principal=attempt.principal_id)
        assert issued.get(entry["token_fingerprint"]) == recorded, f"another's token: {entry}"
        if entry["effect"]:
            assert attempt.purpose == "call", f"a probe that wrote: {entry}"
            wrote[attempt.step_id] += 1
    assert not (twice := [attempt for attempt, times in seen.items() if times > 1]), f"sent twice: {twice}"
    assert not (twice := [step for step, times in wrote.items() if times > 1]), f"steps that wrote twice: {twice}"
    presented = Counter(one["fingerprint"] for one in presentations if one["kind"] == "refresh_token")
    assert all(times == 1 for times in presented.values()), f"refresh tokens presented again: {presented}"


def _says_what_it_is(system: System, entries: list[dict[str, Any]], its_attempts: frozenset[str]) -> None:
    """Each carries the id of one attempt, refresh, connect or revocation, and the ledger has it."""
    intents = system.rows(select(refresh_intents.c.id, refresh_intents.c.presented))
    known = {
        "attempt": its_attempts,
        "refresh": {row.id for row in [*intents, *system.rows(select(mints.c.id))]},
        "connect": {str(row.started) for row in system.rows(select(connect_sessions.c.started))},
        "revocation": {row.id for ids in (revocations, withdrawals) for row in system.rows(select(ids.c.id))},
    }
    replaced = set()
    for entry in entries:
        said = [name for name in NAMES if entry.get(name) is not None]
        if not said and entry.get("path", "").startswith("/app/hook/deliveries"):
            continue  # the app reads of its own deliveries: in nobody's name
        assert len(said) == 1, f"a request that says {said or 'nothing'} of itself: {entry}"
        (name,) = said
        if name == "refresh" and entry[name] not in known[name]:
            replaced.add(entry[name])
            continue
        assert entry[name] in known[name], f"the ledger has no such {name}: {entry}"
    # Presented again under another id, in the same row: it was counted.
    counted = sum(row.presented - 1 for row in intents if row.presented > 1)
    assert len(replaced) <= counted, f"refreshes that are not in the ledger: {replaced}"


def written_about(system: System, pulls: list[str]) -> dict[str, Counter[str]]:
    """What each upstream holds about these pull requests (`owner/repo#number`), by the upstreams' own state."""
    comments = Counter(
        entry["path"].removeprefix("/repos/").replace("/issues/", "#").removesuffix("/comments")
        for entry in system.effects("github")
        if entry["path"].endswith("/comments")
    )
    messages: Counter[str] = Counter()
    for message in system.sandbox("slack", "messages"):
        messages[next(pull for pull in pulls if f"|{pull}>" in message["text"])] += 1
    return {"comments": comments, "messages": messages}


def unresolved(system: System) -> list[Row[Any]]:
    """Calls whose outcome nobody knows, with their step's action."""
    statement = (
        select(
            attempts.c.id, attempts.c.state, attempts.c.job_id, steps.c.action, jobs.c.state.label("job"), jobs.c.wait
        )
        .join(steps, steps.c.id == attempts.c.step_id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.purpose == "call", attempts.c.state.in_(["open", "unknown"]))
    )
    return system.rows(statement)


def accepted(system: System) -> int:
    """How many deliveries were answered as accepted."""
    return system.count(deliveries, deliveries.c.outcome == "accepted")
