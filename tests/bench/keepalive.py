"""Keep-alive: ten thousand grants that are due, at their provider's pace; what is due among a million, counted and
claimed.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, insert, text, update

from identity.accounts.grants import seal_answer
from identity.connect.consent_ledger import Consent, store_consent
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.http.client import Client
from identity.model import AccountKey, Credential, TokenAnswer
from identity.providers import PROFILES
from identity.refresh.keepalive import Keepalive, paced_by
from identity.refresh.keepalive_ledger import Due, behind, claim
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.tables import grants, principals, provider_connections
from identity.token_endpoint.gate import AHEAD_KEEPS, Gate
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground, Ledger
from tests.identity.coordinators import put_together
from tests.identity.providers import PretendProvider, pretend_provider
from tests.identity.world import Clock
from tests.loopback import LOOPBACK

DUE, EARLY, MILLION = 10_000, 2_000, 1_000_000
TICK = timedelta(minutes=1)  # between two passes of housekeeping
LOOKS = 50

_NUMBERS = {
    "SQLite": f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {MILLION})",
    "PostgreSQL": f"with n(i) as (select generate_series(1::bigint, {MILLION}))",
}
_ROWS = (
    ("principals (id, tenant_id, kind, name, created_at)", "'m-' || i, 'acme', 'user', 'm-' || i, 0"),
    (
        "accounts (id, tenant_id, connection_id, principal_id, provider, credential, state, created_at, updated_at)",
        "'m-' || i, 'acme', 'gh', 'm-' || i, 'github', 'authorization_code', 'active', 0, 0",
    ),
    (
        "grants (account_id, generation, consented, token_type, scopes, obtained_at, keepalive_due, keepalive_rank)",
        # One in two thousand is due, of either rank; the others lie anywhere in the months to come.
        "'m-' || i, 1, 1, 'bearer', '[]', 0, case when i % 2000 = 0 then i else :now + i * 1000000 end, i / 2000 % 2",
    ),
)


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("keepalive: 10,000 due grants at GitHub's pace; those due among 1,000,000")
    sheet.notes.append("the passes are measured once, by a clock that is moved a minute between two of them")
    sheet.notes.append("their token endpoint answers at once, from the same process")
    with ground.ledgers() as ledgers, pretend_provider() as provider:
        for ledger in ledgers.values():
            _passes(sheet, ledger, provider)
            _fill(ledger)
        for ledger in ledgers.values():
            for _ in range(rounds):
                _look(sheet, ledger)
    return sheet


def _passes(sheet: Sheet, ledger: Ledger, provider: PretendProvider) -> None:
    """Every grant is idle and late, so each pass finds its token endpoint full, and lines up what is left."""
    clock = Clock(now=datetime.now(UTC))
    ledger.database.write(partial(_furnish, ledger=ledger, url=provider.url, now=clock.now))
    for first in range(0, DUE, 50):
        ledger.database.write(partial(_consents, ledger=ledger, numbers=range(first, first + 50), now=clock.now))
    clock.advance(timedelta(days=80))
    started, pace = clock.now, PROFILES["github"].token_pace
    asked: list[datetime] = []
    resident, refreshed, passes, worked = [_resident()], 0, 0, 0.0
    with Client(policy=LOOPBACK, pool_size=16) as http:
        keepalive = _keepalive(ledger, http, clock, asked)
        while refreshed < DUE:
            began = time.perf_counter()
            refreshed, passes = refreshed + keepalive.run(), passes + 1
            worked += time.perf_counter() - began
            provider.forget()  # it is in this process, whose memory is measured
            if refreshed >= (EARLY, DUE)[len(resident) - 1]:
                resident.append(_resident())
            assert clock.now - started < timedelta(days=1), f"{refreshed} of {DUE} refreshed in a day"
            clock.advance(TICK)
    asked.sort()
    most = max(bisect_left(asked, at + pace.per) - n for n, at in enumerate(asked))
    assert most <= pace.requests, f"{most} token requests in {pace.per}"
    sheet.add(f"{ledger.kind}: refreshed", DUE / worked, "/s")
    sheet.add(f"{ledger.kind}: all passes, their work", worked, "s")
    sheet.add(f"{ledger.kind}: all passes, by the moved clock", (clock.now - started) / timedelta(hours=1), "h")
    sheet.add(f"{ledger.kind}: passes", passes, "")
    sheet.add(f"{ledger.kind}: token requests in the fullest hour, of {pace.requests} allowed", most, "")
    for number, now in zip((EARLY, DUE), resident[1:], strict=True):
        sheet.add(f"{ledger.kind}: memory more than before, after {number:,} grants", now - resident[0], "MB")


def _keepalive(ledger: Ledger, http: Client, clock: Clock, asked: list[datetime]) -> Keepalive:
    """As the runtime makes it, but for an idle limit that all are late for; *asked*: when the coordinator was."""
    profiles = {"github": replace(PROFILES["github"], idle_limit=timedelta(days=90))}
    gate = Gate(None, monotonic=lambda: clock().timestamp())
    coordinator = put_together(
        ledger.database,
        ledger.house.vault,
        http,
        RefreshLock(None, ttl=timedelta(seconds=60), token=lambda: ledger.house.ids("lock")),
        profiles,
        clock=clock,
        ids=partial(ledger.house.ids, "ref"),
        gate=gate,
    )

    def refresh(due: Due) -> int:
        generation = coordinator.refresh(due.account, after_generation=due.generation, keep=AHEAD_KEEPS)
        if generation > due.generation:
            asked.append(clock.now)
        return generation

    return Keepalive(ledger.database, refresh, profiles, paced_by(gate), clock=clock)


def _furnish(c: Connection, *, ledger: Ledger, url: str, now: datetime) -> None:
    c.execute(update(provider_connections).values(token_url=f"{url}/token"))
    owner, secret = get_connection(c, "gh"), Secret("client secret")
    add_secret(c, seal_secret(ledger.house.vault, owner, id="client", name=CLIENT_SECRET, secret=secret, now=now))
    c.execute(update(grants).values(keepalive_due=None))
    people = [
        {"id": f"p-{n}", "tenant_id": "acme", "kind": "user", "name": f"p-{n}", "created_at": now} for n in range(DUE)
    ]
    c.execute(insert(principals), people)


def _consents(c: Connection, *, ledger: Ledger, numbers: range, now: datetime) -> None:
    for n in numbers:
        key, account = AccountKey(tenant="acme", connection="gh", principal=f"p-{n}"), f"acc-{n}"
        answer = TokenAnswer(
            access_token=Secret("access"),
            refresh_token=Secret(f"refresh-{n}"),
            expires_at=now + timedelta(hours=8),
            scopes=(),
            token_type="bearer",
        )
        sealed = seal_answer(
            ledger.house.vault, answer, tenant="acme", account=account, provider="github", generation=1
        )
        consent = Consent(
            id=account,
            key=key,
            provider="github",
            credential=Credential.AUTHORIZATION_CODE,
            consented=next_number(c),
        )
        store_consent(c, consent, sealed, now=now)


def _fill(ledger: Ledger) -> None:
    """Beside the ledger's own writer, which lets no write take so long."""
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    engine = create_engine(ledger.url)
    with engine.begin() as c:
        c.execute(update(grants).values(keepalive_due=None))
        for table, values in _ROWS:
            statement = text(f"insert into {table} {_NUMBERS[ledger.kind]} select {values} from n")
            c.execute(statement, {"now": now} if ":now" in values else {})
        if ledger.kind == "PostgreSQL":
            c.execute(text("analyze grants"))
            c.execute(text("analyze accounts"))
    engine.dispose()


def _look(sheet: Sheet, ledger: Ledger) -> None:
    now = datetime.now(UTC)
    took = [_timed(partial(ledger.database.read, partial(behind, now=now))) for _ in range(LOOKS)]
    sheet.add(f"{ledger.kind}: those due of 1,000,000 counted, p50", percentile(took, 0.5) * 1000, "ms")
    sheet.add(f"{ledger.kind}: those due of 1,000,000 counted, p99", percentile(took, 0.99) * 1000, "ms")
    until = datetime.fromtimestamp(0, UTC)  # a claim that has lapsed: what was due stays due

    def take(c: Connection) -> Any:
        return claim(c, now=now, until=until, limit=200)

    claimed = ledger.database.write(lambda c: len(take(c)))
    assert claimed == 200, claimed
    took = [_timed(partial(ledger.database.write, take)) for _ in range(LOOKS)]
    sheet.add(f"{ledger.kind}: 200 due claimed, p50", percentile(took, 0.5) * 1000, "ms")


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _resident() -> float:
    """This process's memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
