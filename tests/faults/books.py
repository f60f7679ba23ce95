"""The upstreams' own logs held against the ledger: what must be true whatever broke in between."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Row, select

from pipeline.tables import attempts, deliveries, jobs, steps
from tests.system.rig import System

UPSTREAMS = ("github", "linear", "slack")


def requests(system: System) -> list[dict[str, Any]]:
    """Every request of a job: not the app's own, which mint installation tokens or end what was revoked, nor a
    connect's `who is this?`."""
    log = [entry for name in UPSTREAMS for entry in system.sandbox(name, "log") if entry["token_kind"] != "app"]
    log = [entry for entry in log if entry["revocation"] is None]
    return [entry for entry in log if not (entry["path"] == "/user" or entry["operation"] == "viewer")]


def balance(system: System) -> None:
    """Each request was written down before it was sent, for the tenant whose token it carries, and wrote once."""
    columns = (attempts.c.id, attempts.c.step_id, attempts.c.tenant_id, attempts.c.principal_id, attempts.c.purpose)
    known = {row.id: row for row in system.rows(select(*columns))}
    seen: Counter[str] = Counter()
    wrote: Counter[str] = Counter()
    for entry in requests(system):
        attempt = known.get(entry["attempt"])
        assert attempt is not None, f"a request without an attempt in the ledger: {entry}"
        seen[attempt.id] += 1
        assert entry["tenant"] in (None, attempt.tenant_id), f"another tenant's token: {entry}"
        if entry["effect"]:
            assert attempt.purpose == "call", f"a probe that wrote: {entry}"
            wrote[attempt.step_id] += 1
    assert not (twice := [attempt for attempt, times in seen.items() if times > 1]), f"sent twice: {twice}"
    assert not (twice := [step for step, times in wrote.items() if times > 1]), f"steps that wrote twice: {twice}"
    presented = Counter(
        one["fingerprint"] for one in system.sandbox("auth", "presentations") if one["kind"] == "refresh_token"
    )
    assert all(times == 1 for times in presented.values()), f"refresh tokens presented again: {presented}"


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
