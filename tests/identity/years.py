"""Years of keep-alive in minutes: the real schedule on a real ledger, a clock that is moved, and a strict provider."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, func, insert, select

from identity.accounts.grants import SealedAnswer, note_use, rotate
from identity.connect.consent_ledger import Consent, Consented, store_consent
from identity.errors import Unavailable
from identity.model import AccountKey, Credential
from identity.providers import PROFILES
from identity.providers.pace import Pace
from identity.providers.profile import Profile
from identity.refresh.keepalive import Keepalive, KeepaliveSettings, paced_by
from identity.refresh.keepalive_ledger import Due
from identity.tables import grants, principals, provider_connections, tenants
from identity.token_endpoint.gate import AHEAD_KEEPS, Gate
from tests.identity.stores import EngineStore
from tests.identity.world import START, Clock

LIFE, IDLE_LIMIT = timedelta(hours=8), timedelta(days=90)
CONNECTIONS, TENANTS = ("forge", "mill"), 20
MINUTE = timedelta(minutes=1)


@dataclass
class Provider:
    """Passes the gate and rotates in the coordinator's place, and holds us to what a real one holds us to."""

    store: EngineStore
    clock: Clock
    pace: Pace
    gate: Gate
    presented: dict[str, datetime] = field(default_factory=dict)  # when each account's refresh token was last used
    asked: Counter[str] = field(default_factory=Counter)
    died: list[str] = field(default_factory=list)
    _recent: dict[str, deque[datetime]] = field(default_factory=dict)

    def __call__(self, due: Due) -> int:
        now, account = self.clock(), due.account
        if wait := self.gate.enter(due.endpoint, self.pace, keep=AHEAD_KEEPS):
            raise Unavailable("the gate is closed", retry_after=wait)
        if now - self.presented[account] > IDLE_LIMIT:
            self.died.append(account)
        self.presented[account] = now
        self.asked[account] += 1
        self._count(due.key.connection, now)
        sealed = fresh(due.generation + 1, now)
        assert self.store.write(partial(rotate, account=account, sealed=sealed, obtained_at=now, renewal_alone=False))
        return sealed.generation

    def _count(self, connection: str, now: datetime) -> None:
        recent = self._recent.setdefault(connection, deque())
        recent.append(now)
        while recent[0] <= now - self.pace.per:
            recent.popleft()
        assert len(recent) <= self.pace.requests, f"{connection} was asked {len(recent)} times in {self.pace.per}"


def fresh(generation: int, now: datetime) -> SealedAnswer:
    return SealedAnswer(
        generation=generation,
        access_sealed=b"access",
        refresh_sealed=b"refresh",
        token_type="bearer",
        scopes=(),
        expires_at=now + LIFE,
    )


@dataclass
class Years:
    """*number* grants, issued within an hour in four herds."""

    store: EngineStore
    number: int
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        share = self.number // 10  # of all grants in five minutes, at each of the two connections
        self.pace = Pace(requests=share, per=5 * MINUTE, burst=share * 5 // 6)
        self.profile: Profile = replace(PROFILES["github"], idle_limit=IDLE_LIMIT, token_pace=self.pace)
        gate = Gate(None, monotonic=self.seconds)
        self.provider = Provider(store=self.store, clock=self.clock, pace=self.pace, gate=gate)
        self.keepalive = Keepalive(
            self.store,
            self.provider,
            {"github": self.profile},
            paced_by(gate),
            clock=self.clock,
            settings=KeepaliveSettings(threads=1),
        )
        self.store.write(self._furnish)
        for herd in range(4):
            for begin in range(0, self.number // 4, 500):
                members = range(
                    herd * self.number // 4 + begin, herd * self.number // 4 + min(begin + 500, self.number // 4)
                )
                self.store.write(partial(self._consent, members=members))
            self.clock.advance(timedelta(minutes=19))

    def seconds(self) -> float:
        return (self.clock.now - START).total_seconds()

    def use_for(self, duration: timedelta, *, tick: timedelta) -> Iterator[None]:
        """Housekeeping ticks, and every token is used as soon as it is there."""
        end = self.clock() + duration
        while self.clock() < end:
            self.keepalive.run()
            self.store.write(self._use)
            yield
            self.clock.advance(tick)

    def leave_alone(self, duration: timedelta, *, tick: timedelta) -> None:
        """Housekeeping ticks, and nobody uses anything: from one grant that is due to the next."""
        end = self.clock() + duration
        while self.clock() < end:
            self.keepalive.run()
            following = self.store.read(_next_due) or end
            self.clock.now = min(end, max(self.clock() + tick, following))

    def expiring_together(self) -> float:
        """The largest share of all grants whose tokens end within the same five minutes."""
        ends = self.store.read(lambda c: c.execute(select(grants.c.expires_at)).scalars().all())
        together = Counter(int(end.timestamp()) // 300 for end in ends if end is not None)
        return max(together.values()) / self.number

    def neglected(self) -> list[str]:
        """Those that are dead by now, or were when they were presented."""
        now = self.clock()
        return self.provider.died + [
            account for account, last in self.provider.presented.items() if now - last > IDLE_LIMIT
        ]

    def _furnish(self, connection: Connection) -> None:
        now = self.clock()
        names = [f"tenant-{number}" for number in range(TENANTS)]
        connection.execute(insert(tenants), [{"id": name, "name": name, "created_at": now} for name in names])
        for name in CONNECTIONS:
            row = {
                "id": name,
                "provider": "github",
                "client_id": "client",
                "scopes": [],
                "config": {},
                "created_at": now,
            }
            url = dict.fromkeys(("api_url", "authorize_url", "token_url"), "https://forge.example")
            connection.execute(insert(provider_connections), row | url)
        people = [
            {"id": f"user-{n}", "tenant_id": names[n % TENANTS], "kind": "user", "name": f"{n}", "created_at": now}
            for n in range(self.number)
        ]
        connection.execute(insert(principals), people)

    def _consent(self, connection: Connection, members: range) -> None:
        now = self.clock()
        for n in members:
            key = AccountKey(tenant=f"tenant-{n % TENANTS}", connection=CONNECTIONS[n % 2], principal=f"user-{n}")
            consent = Consent(
                id=f"account-{n}",
                key=key,
                provider="github",
                credential=Credential.AUTHORIZATION_CODE,
                consented=n + 1,
            )
            stored = store_consent(connection, consent, fresh(1, now), now=now)
            assert isinstance(stored, Consented)
            self.provider.presented[consent.id] = now

    def _use(self, connection: Connection) -> None:
        unused = (grants.c.used_at.is_(None)) | (grants.c.used_at < grants.c.obtained_at)
        for account, generation in connection.execute(select(grants.c.account_id, grants.c.generation).where(unused)):
            note_use(connection, account, generation=generation, now=self.clock())


def _next_due(connection: Connection) -> datetime | None:
    due: datetime | None = connection.execute(select(func.min(grants.c.keepalive_due))).scalar_one()
    return due
