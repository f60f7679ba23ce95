"""Intake of deliveries for the web: signing secrets, and acceptance in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from identity.connections.secrets import WEBHOOK_SECRET, find_with_secrets
from identity.errors import Unavailable
from identity.hold import find_hold
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.secret import Secret
from identity.sql.store import write_idempotent
from pipeline.authoring.matching import Considered, Match
from pipeline.authoring.registry import Registry
from pipeline.cached_check import CachedCheck
from pipeline.db.database import Database, WithTurn
from pipeline.deliveries import acceptance
from pipeline.deliveries.rated_tenants import RatedTenants
from pipeline.deliveries.tenant import whose_delivery
from pipeline.jobs import missing_workflows, pins
from pipeline.ledger.numbering import behind
from pipeline.ledger.rehearsal import rehearse
from pipeline.ledger.revision import misfit, revision_of
from pipeline.model import Acceptance, DeliveryOutcome, RatedTenant, SignedDelivery, Unfollowed
from pipeline.revoker.signal_following import follow_on, measure

_BELIEVED = 60.0  # seconds that a successful check is trusted
_PATIENCE = 5.0  # further seconds in which callers trust it rather than wait for a running check
ACCEPT_WITHIN = timedelta(seconds=2.5)  # Slack waits 3 s for an answer


@dataclass(frozen=True, kw_only=True)
class SigningSecrets:
    """Secrets and facts to verify the deliveries of one provider connection."""

    provider: str
    tenant: str | None
    config: Mapping[str, str]
    api_url: str
    webhook_secrets: tuple[Secret, ...] = field(repr=False)


class Intake:
    """Accepts verified deliveries."""

    def __init__(
        self,
        store: Database,
        vault: Vault,
        ids: Ids,
        *,
        clock: Callable[[], datetime],
        accept_within: timedelta = ACCEPT_WITHIN,
        follow_within: timedelta = timedelta(seconds=2),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ahead = WithTurn(store, ahead=True)
        self._vault = vault
        self._ids = ids
        self._clock = clock
        self._accept_within = accept_within
        self._follow_within = follow_within
        self._monotonic = monotonic
        self._rated = RatedTenants(store, monotonic=monotonic)
        self._fitted = False  # result of the last check
        self._fit = CachedCheck(self._look_whether_it_fits, believed=_BELIEVED, patience=_PATIENCE, monotonic=monotonic)

    def connection_secrets(self, connection: str) -> SigningSecrets | None:
        """Return a connection's live webhook secrets, two during a rotation. None: there is no such connection."""
        # Ahead, as only the verified body tells whether it is a signal.
        found = self._ahead.read(lambda c: find_with_secrets(c, connection, WEBHOOK_SECRET))
        if found is None:
            return None
        owner, sealed = found
        secrets = tuple(one.open(self._vault) for one in sealed)
        return SigningSecrets(
            provider=owner.provider,
            tenant=owner.tenant,
            config=owner.config,
            api_url=owner.api_url,
            webhook_secrets=secrets,
        )

    def rated_tenant(
        self, connection: str, installation: str | None, workspace: str | None, *, owner: str | None
    ) -> RatedTenant | None:
        """Return the tenant whose rate limit a delivery counts against, as of up to ten seconds ago.

        That is *owner*, the tenant of *connection*, if it has one. None: no tenant has *installation*.
        """
        return self._rated.find(connection, installation, workspace, owner=owner)

    def accept(
        self,
        delivery: SignedDelivery,
        matches: Sequence[Match],
        *,
        outcome: DeliveryOutcome,
        reason: str,
        misfits: Sequence[Considered] = (),
        began: float | None = None,
    ) -> Acceptance:
        """Commit a delivery and its consequences.

        *began* is when its sender started to wait, on the monotonic clock; None: now.

        Raises Unavailable if nothing was committed. Raises Unfollowed if the delivery was committed, but its signal
        covers more accounts than were reached in time; sent again, it succeeds once all have been reached.
        """
        end = self._monotonic() + self._follow_within.total_seconds()
        accepted = self._accept(delivery, matches, misfits, outcome=outcome, reason=reason, began=began)
        if not accepted.unfollowed:
            return accepted
        try:
            done = follow_on(self._ahead, accepted.delivery, clock=self._clock, end=end, monotonic=self._monotonic)
        except Unfollowed as short:
            raise Unfollowed(accepted.delivery, accepted.revocations + short.revocations) from short
        followed = replace(accepted, revocations=accepted.revocations + done.revocations, unfollowed=False)
        if accepted.outcome is DeliveryOutcome.DUPLICATE:
            measure(done, now=self._clock())
            return followed
        return replace(followed, reason=done.reason)

    def _accept(
        self,
        delivery: SignedDelivery,
        matches: Sequence[Match],
        misfits: Sequence[Considered],
        *,
        outcome: DeliveryOutcome,
        reason: str,
        began: float | None,
    ) -> Acceptance:
        ids = acceptance.NewIds(
            delivery=self._ids("del"), jobs=tuple(self._ids("job") for _ in matches), revocation=self._ids("rev")
        )
        now = self._clock()

        def accept(c: Connection) -> Acceptance:
            return acceptance.accept(
                c, delivery, matches, misfits=misfits, ids=ids, outcome=outcome, reason=reason, now=now
            )

        store = self._ahead  # a signal waits for its locks: better late than never
        if delivery.signal is None:
            # Do not store what Slack has given up on: told of the failure, a person gives the command again, with a new
            # id.
            since = time.monotonic() if began is None else began
            store = WithTurn(self._store, until=since + self._accept_within.total_seconds())
        # The sender's delivery id is the key, so a repeated write reports what the first one made.
        return write_idempotent(store, accept)

    def usages(self, delivery: SignedDelivery, workflows: Registry) -> list[str]:
        """Return the usages of workflows that listen to such a delivery and are enabled for its tenant."""
        known = workflows.usages(delivery.source, delivery.event)

        def switched_on(c: Connection) -> set[str]:
            tenant = whose_delivery(c, delivery.connection, delivery.installation, delivery.workspace).tenant
            return {name for name in known if tenant is not None and pins.enabled(c, tenant, name) is not None}

        here = self._store.read(switched_on)
        return sorted({usage for name in here for usage in known[name]})

    def held(self) -> bool:
        """True if the installation is on hold, so that accepted work waits."""
        return self._store.read(find_hold) is not None

    def ready(self) -> None:
        """Return if a delivery can be accepted now. Raises Unavailable, also for tables of another version."""
        self.fits()
        self._store.check_fit()  # the next write is empty and does not check this
        # Try a write, as a delivery needs one: a ledger whose writer is stopped can still be read.
        self._store.write(rehearse)

    def not_installed(self, workflows: Registry) -> list[str]:
        """Return the names of enabled workflows that are missing from *workflows*."""
        return self._store.read(lambda c: missing_workflows.not_installed(c, workflows))

    def fits(self) -> None:
        """Return if the ledger's tables are this version's and its sequence is ahead of its rows.

        Checked on every call until both hold: before that, deliveries would fail (GitHub repeats none), and signals
        could get numbers lower than the grants they should end, and be lost. Then one thread repeats a quick check each
        minute, since a failover may put another ledger behind the same address; for some seconds the other threads
        trust the previous result. After a failed check nothing is trusted and the next check is thorough. Raises
        Unavailable.
        """
        self._fit.result()

    def _look_whether_it_fits(self) -> None:
        quickly, self._fitted = self._fitted, False
        # Ahead, as the caller that comes when the check is due may carry a revocation.
        if said := misfit(revision_of(self._ahead)) or self._ahead.read(partial(behind, quickly=quickly)):
            raise Unavailable(said)
        self._fitted = True
