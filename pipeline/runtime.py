"""What a process that runs work holds open: opened in it (after any fork), closed by it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import redis

from identity.addresses import AddressPolicy
from identity.audit.sealer import Sealer
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer
from identity.confined import Confiner
from identity.connect.flow import ConnectFlow
from identity.http import Client
from identity.ids import Ids
from identity.jwks import KeyRing
from identity.providers import PROFILES
from identity.refresh.coordinator import Coordinator, RefreshBudget
from identity.refresh.gate import AHEAD_KEEPS, Gate
from identity.refresh.keepalive import Keepalive, paced_by
from identity.refresh.keepalive_ledger import Due
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.signing import Signer
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault
from identity.withdrawals.withdrawer import Withdrawer
from identity.workloads import Workloads
from pipeline import gauges, reconcile
from pipeline.accounts.connecting import Connecting, wake_waiting
from pipeline.accounts.invitations import Invitations
from pipeline.approvals.approving import Approving
from pipeline.approvals.news import tell_of_approvals
from pipeline.budget import Budgets
from pipeline.catch_up import CatchUp
from pipeline.database import Ahead, Database, DatabaseSettings, open_database
from pipeline.doorbells import Doorbells
from pipeline.housekeeping import Duty
from pipeline.intake import Intake
from pipeline.model import Ring
from pipeline.requests import Requests
from pipeline.retention import Retention, prune
from pipeline.revocation.inquiry import Inquirer
from pipeline.revocation.provider_side import ProviderAsker, measure_withdrawals, provider_side
from pipeline.revocation.revoker import Revoker
from pipeline.revocation.signal_following import SignalFollower
from pipeline.rhythms import RHYTHMS
from pipeline.schedules import punctuality
from pipeline.schedules.slots import SlotFirer
from pipeline.security_event_intake import SecurityEventIntake
from pipeline.services import Services, StepSettings
from pipeline.upstream import Upstream
from pipeline.worker import Worker, WorkerSettings
from pipeline.workflow import Registry


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The installation's own secrets."""

    vault: Mapping[int, bytes] = field(repr=False)  # key-encryption keys by id
    signing: bytes = field(repr=False)  # seed of the key that signs receipts and the audit


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Everything a runtime is opened with."""

    database: DatabaseSettings
    keys: Keys
    base_url: str
    redis_url: Secret | None = None  # None: the intents alone serialize refreshes
    key_prefix: str = "aswhom:"
    allow_hosts: frozenset[str] = frozenset()  # hosts that may be private and plain HTTP: the sandbox
    ca_file: Path | None = None  # authorities that are trusted besides the public ones
    steps: StepSettings = field(default_factory=StepSettings)
    jobs: WorkerSettings = field(default_factory=WorkerSettings)
    refresh: RefreshBudget = field(default_factory=RefreshBudget)
    window: int = 128  # outstanding bells a queue
    connect_lifetime: timedelta = timedelta(minutes=10)  # to open a connect link, and again to come back with consent
    approval_lifetime: timedelta = timedelta(minutes=15)  # of a link to answer an approval by
    retention: Retention = field(default_factory=Retention)
    host: str = "localhost"


def _now() -> datetime:
    return datetime.now(UTC)


class Runtime:
    """The opened parts, put together."""

    def __init__(
        self,
        settings: RuntimeSettings,
        workflows: Registry,
        ring: Ring,
        *,
        clock: Callable[[], datetime] = _now,
        reached: Callable[[str], None] = lambda point: None,
    ) -> None:
        self.settings = settings
        self.workflows = workflows
        self.clock = clock
        self.ids = Ids()
        self.database: Database = open_database(settings.database)
        self.vault = Vault(settings.keys.vault, secrets.token_bytes)
        self.signer = Signer.from_seed(settings.keys.signing)
        self.issuer = Issuer(self.database, self.vault, url=settings.base_url, clock=clock)
        self.authority = Authority(self.database, self.issuer, ids=self.ids, clock=clock)
        self.http = Client(
            policy=AddressPolicy(allow_hosts=settings.allow_hosts),
            pool_size=settings.database.threads,
            ca_file=settings.ca_file,
        )
        self.redis = _redis(settings.redis_url)
        lock = RefreshLock(
            self.redis,
            ttl=settings.refresh.lock_ttl,
            token=lambda: secrets.token_hex(16),
            prefix=settings.key_prefix,
        )
        self.gate = Gate(self.redis, prefix=settings.key_prefix)
        self.coordinator = Coordinator(
            self.database,
            self.vault,
            self.http,
            lock,
            PROFILES,
            clock=clock,
            ids=partial(self.ids, "ref"),
            budget=settings.refresh,
            gate=self.gate,
            reached=reached,
            restored=wake_waiting,
        )
        self.stopping = threading.Event()  # set by who runs the duties or the jobs, before it closes this
        self.keepalive = Keepalive(
            self.database,
            self._refresh_ahead,
            PROFILES,
            pacing=paced_by(self.gate),
            clock=clock,
            stopping=self.stopping.is_set,
        )
        services = Services(
            store=self.database,
            vault=self.vault,
            coordinator=self.coordinator,
            upstream=Upstream(self.http),
            issuer=self.issuer,
            ids=self.ids,
            settings=settings.steps,
            confiner=Confiner(
                self.database,
                self.vault,
                # Half of it: a refused key's spare may be shown next, and the job's claim runs meanwhile.
                TokenEndpoint(client=self.http, budget=settings.refresh.http / 2, gate=self.gate),
                PROFILES,
                ids=partial(self.ids, "mnt"),
                clock=clock,
            ),
            budgets=Budgets(self.redis, prefix=settings.key_prefix),
            stopping=self.stopping.is_set,
            reached=reached,
        )
        self.ring = Doorbells(self.database, ring)
        self.worker = Worker(services, workflows, self.ring, settings.jobs)
        inquirer = Inquirer(self.database, self.vault, self.http, PROFILES, clock=clock)
        withdrawer = Withdrawer(
            self.database,
            self.vault,
            TokenEndpoint(client=self.http, budget=timedelta(seconds=10), gate=self.gate),
            PROFILES,
            clock=clock,
            ids=partial(self.ids, "wit"),
            reached=reached,
        )
        self.asker = ProviderAsker(self.database, withdrawer.ask, clock=clock)
        self.revoker = Revoker(
            self.database,
            self.signer,
            workflows,
            ids=self.ids,
            provider_side=provider_side,
            withdraw=self.asker.advance,
            inquire=inquirer.settle,
            reached=reached,
        )
        self.schedules = SlotFirer(self.database, workflows)
        self.intake = Intake(self.database, self.vault, self.ids, clock=clock)
        keys = KeyRing(self.http)
        self.requests = Requests(self.database, workflows, self.ids, Workloads(self.database, keys))
        self.security_events = SecurityEventIntake(Ahead(database=self.database), keys, self.ids, clock=clock)
        self.catch_up = CatchUp(self.database, self.vault, self.http, clock=clock)
        self.connect_flow = ConnectFlow(
            self.database,
            self.vault,
            self.http,
            PROFILES,
            self.signer,
            redirect_uri=lambda connection: f"{settings.base_url.rstrip('/')}/connect/callback/{connection}",
            ids=partial(self.ids, "con"),
            token=partial(secrets.token_urlsafe, 32),
            lifetime=settings.connect_lifetime,
            gate=self.gate,
        )
        self.invitations = Invitations(
            self.database, self.connect_flow, workflows, self.ids, base_url=settings.base_url
        )
        self.connecting = Connecting(self.database, self.connect_flow, workflows)
        self.approving = Approving(
            self.database, self.signer, base_url=settings.base_url, lifetime=settings.approval_lifetime
        )
        self.sealer = Sealer(self.database, self.signer)

    @property
    def active_jobs(self) -> Mapping[int, str]:
        """The job each thread has claimed."""
        return self.worker.active_jobs

    def wind_down(self) -> None:
        """The process was told to stop: its runs go back to the queue at their next step."""
        self.stopping.set()

    def before_exit(self, overdue: Collection[str]) -> None:
        """The watchdog is about to leave because of these jobs."""
        self.worker.leave(overdue)

    def duties(self) -> list[Duty]:
        """What housekeeping does."""
        store, ring = self.database, self.ring
        what: Mapping[str, Callable[[], object]] = {
            "dispatch": partial(reconcile.dispatch, store, ring, window=self.settings.window),
            "reclaim": partial(reconcile.reclaim, store, self.settings.jobs),
            "wake": partial(reconcile.wake_due, store),
            "settle-attempts": partial(reconcile.settle_attempts, store),
            "settle-refreshes": self.coordinator.settle_abandoned,
            "keep-alive": self.keepalive.run,
            "revocations": partial(reconcile.advance_revocations, self.revoker, idle=timedelta(seconds=5)),
            "signals": SignalFollower(Ahead(database=store), ring, clock=self.clock).run,
            "catch-up": self.catch_up.run,
            "withdrawals": partial(reconcile.advance_withdrawals, self.revoker, self.asker.due),
            "leftovers": self.asker.ask_leftovers,
            "end-approvals": partial(reconcile.end_approvals, store),
            "tell-approvals": lambda: tell_of_approvals(store, self.workflows, ring, now=self.clock()),
            "seal-audit": lambda: self.sealer.run(now=self.clock()),
            "prune": self._prune,
            "measure": partial(gauges.measure, store),
            "measure-withdrawals": partial(measure_withdrawals, store),
            "measure-schedules": partial(punctuality.measure, store, clock=self.clock),
        }

        return [
            Duty(name=name, every=RHYTHMS[name].every, deadline=RHYTHMS[name].deadline, run=run)
            for name, run in what.items()
        ]

    def _prune(self) -> None:
        prune(self.database, self.settings.retention, self.signer, now=self.clock(), within=timedelta(seconds=10))

    def _refresh_ahead(self, due: Due) -> int:
        return self.coordinator.refresh(due.account, after_generation=due.generation, keep=AHEAD_KEEPS)

    def heartbeat(self, duty: str, error: str | None) -> None:
        """Store a duty's heartbeat."""
        reconcile.heartbeat(self.database, duty=duty, host=self.settings.host, error=error, now=self.clock())

    def close(self) -> None:
        """Close every socket and file."""
        self.http.close()
        self.database.close()
        if self.redis is not None:
            self.redis.close()


def _redis(url: Secret | None) -> redis.Redis | None:
    if url is None:
        return None
    return redis.Redis.from_url(url.reveal(), socket_timeout=5, socket_connect_timeout=1, health_check_interval=5)
