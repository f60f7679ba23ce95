"""The open resources of a process that runs work; opened in it (after any fork) and closed by it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import redis

from identity.agents.workloads import Workloads
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer
from identity.connect.flow import ConnectFlow
from identity.crash_points import none_reached
from identity.http.addresses import AddressPolicy
from identity.http.client import Client
from identity.ids import Ids
from identity.keys.signing import Signer
from identity.keys.vault import Vault
from identity.minting.confined import Confiner
from identity.minting.confined_minting import ConfinedMinter
from identity.oauth.jwks import KeyRing
from identity.providers import PROFILES
from identity.redis_cooldown import RedisCooldown
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import RefreshLock
from identity.refresh.parts import RefreshParts
from identity.sealed.proven_keys import proves
from identity.secret import Secret
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import Gate
from identity.withdrawals.withdrawer import Withdrawer
from pipeline.accounts.connecting import Connecting, wake_waiting
from pipeline.accounts.invitations import Invitations
from pipeline.agents_api.callers import Requests
from pipeline.approvals.approving import Approving
from pipeline.authoring.registry import Registry
from pipeline.broker.doorbells import Doorbells
from pipeline.db.database import Database, WithTurn, open_database
from pipeline.deliveries.intake import Intake
from pipeline.deliveries.security_event_intake import SecurityEventIntake
from pipeline.duties import reconcile
from pipeline.execution.services import Services
from pipeline.execution.worker import Worker
from pipeline.model import Ring
from pipeline.revoker.inquiry import Inquirer
from pipeline.revoker.provider_side import ProviderAsker, provider_side
from pipeline.revoker.revoker import Revoker
from pipeline.runtime_settings import RuntimeSettings
from pipeline.schedules.slots import SlotFirer
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.breaker_state import HostBreaker
from pipeline.throttle.budget import Budgets
from pipeline.throttle.in_flight import InFlight
from pipeline.upstream import Upstream


def _now() -> datetime:
    return datetime.now(UTC)


class Runtime:
    """The assembled parts of a process."""

    def __init__(
        self,
        settings: RuntimeSettings,
        workflows: Registry,
        ring: Ring,
        *,
        clock: Callable[[], datetime] = _now,
        reached: Callable[[str], None] = none_reached,
    ) -> None:
        self.settings = settings
        self.workflows = workflows
        self.clock = clock
        self.ids = Ids()
        self.stopping = threading.Event()  # set by the process that runs duties or jobs, before it closes the runtime
        self._reached = reached

        # External resources, closed with the runtime.
        self.database: Database = open_database(settings.database)
        self.http = Client(
            policy=AddressPolicy(allow_hosts=settings.allow_hosts, egress_hosts=settings.egress_hosts),
            pool_size=settings.database.threads,
            ca_file=settings.ca_file,
        )
        self.redis = _redis(settings.redis_url)
        self.redis_cooldown = RedisCooldown()

        # Identity and authority.
        self.vault = Vault(settings.keys.vault, secrets.token_bytes, proves=partial(proves, self.database))
        self.signer = Signer.from_seed(settings.keys.signing)
        self.issuer = Issuer(self.database, self.vault, url=settings.base_url, clock=clock)
        self.authority = Authority(self.database, self.issuer, ids=self.ids, clock=clock)
        self.gate = Gate(self.redis, prefix=settings.key_prefix, cooldown=self.redis_cooldown)
        self.coordinator = self._coordinator()
        self.connect_flow = self._connect_flow()

        # Moving and stopping work.
        self.ring = Doorbells(self.database, ring)
        self.worker = Worker(self._services(), workflows, self.ring, settings.jobs)
        self.asker = ProviderAsker(self.database, self._withdrawer().ask, clock=clock)
        self.revoker = self._revoker()
        self.schedules = SlotFirer(self.database, workflows)

        # Incoming requests.
        self.intake = Intake(self.database, self.vault, self.ids, clock=clock)
        ahead = WithTurn(self.database, ahead=True)  # for what a revocation may come through
        self.requests = Requests(self.database, workflows, self.ids, Workloads(ahead, self.http))
        self.security_events = SecurityEventIntake(ahead, KeyRing(self.http), self.ids, clock=clock)

        # Requests to people: consent and approval.
        self.invitations = Invitations(
            self.database, self.connect_flow, workflows, self.ids, base_url=settings.base_url
        )
        self.connecting = Connecting(self.database, self.connect_flow, workflows)
        self.approving = Approving(
            self.database, self.signer, base_url=settings.base_url, lifetime=settings.approval_lifetime
        )

    def _coordinator(self) -> Coordinator:
        settings = self.settings
        lock = RefreshLock(
            self.redis,
            ttl=settings.refresh.lock_ttl,
            token=lambda: secrets.token_hex(16),
            prefix=settings.key_prefix,
            cooldown=self.redis_cooldown,
        )
        parts = RefreshParts(
            store=self.database,
            vault=self.vault,
            endpoint=self._token_endpoint(within=settings.refresh.http),
            profiles=PROFILES,
            clock=self.clock,
            ids=partial(self.ids, "ref"),
            budget=settings.refresh,
            reached=self._reached,
            restored=wake_waiting,
        )
        return Coordinator(parts, lock)

    def _connect_flow(self) -> ConnectFlow:
        web = self.settings.base_url.rstrip("/")
        return ConnectFlow(
            self.database,
            self.vault,
            self.http,
            PROFILES,
            self.signer,
            redirect_uri=lambda connection: f"{web}/connect/callback/{connection}",
            ids=partial(self.ids, "con"),
            token=partial(secrets.token_urlsafe, 32),
            lifetime=self.settings.connect_lifetime,
            send=self.settings.refresh.send,
            gate=self.gate,
        )

    def _services(self) -> Services:
        return Services(
            store=self.database,
            vault=self.vault,
            coordinator=self.coordinator,
            upstream=Upstream(self.http),
            issuer=self.issuer,
            ids=self.ids,
            settings=self.settings.steps,
            confiner=self._confiner(),
            budgets=Budgets(self.redis, prefix=self.settings.key_prefix, cooldown=self.redis_cooldown),
            breakers=Breakers(
                self.redis,
                breaker=self.settings.breaker or HostBreaker(probe=self.settings.steps.longest_probe),
                prefix=self.settings.key_prefix,
                cooldown=self.redis_cooldown,
            ),
            in_flight=InFlight(self.settings.steps.silent_calls),
            stopping=self.stopping.is_set,
            reached=self._reached,
        )

    def _confiner(self) -> Confiner:
        minter = ConfinedMinter(
            store=self.database,
            vault=self.vault,
            # Half of it: after a refused key the spare may be tried next, while the job's claim keeps running.
            endpoint=self._token_endpoint(within=self.settings.refresh.http / 2),
            profiles=PROFILES,
            ids=partial(self.ids, "mnt"),
            clock=self.clock,
            send=self.settings.refresh.send,
        )
        return Confiner(self.database, minter, clock=self.clock)

    def _withdrawer(self) -> Withdrawer:
        return Withdrawer(
            self.database,
            self.vault,
            self._token_endpoint(within=timedelta(seconds=10)),
            PROFILES,
            clock=self.clock,
            ids=partial(self.ids, "wit"),
            reached=self._reached,
        )

    def _token_endpoint(self, *, within: timedelta) -> TokenEndpoint:
        return TokenEndpoint(client=self.http, budget=within, gate=self.gate)

    def _revoker(self) -> Revoker:
        inquirer = Inquirer(self.database, self.vault, self.http, PROFILES, clock=self.clock)
        return Revoker(
            self.database,
            self.signer,
            self.workflows,
            ahead=WithTurn(self.database, ahead=True),
            ids=self.ids,
            provider_side=provider_side,
            withdraw=self.asker.advance,
            inquire=inquirer.settle,
            stopping=self.stopping.is_set,
            reached=self._reached,
        )

    def in_commit(self) -> Mapping[int, float]:
        """Return the threads waiting for a COMMIT, each with the time it began to wait."""
        return self.database.in_commit()

    def wind_down(self) -> None:
        """Note that the process was told to stop: its runs go back to the queue at their next step."""
        self.stopping.set()

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
