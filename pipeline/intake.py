"""What the web asks of the ledger: whose secret signs, and acceptance in one transaction."""

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
from pipeline.cached_check import CachedCheck
from pipeline.db.database import Database, WithTurn
from pipeline.ledger import deliveries, missing_workflows, pins
from pipeline.ledger.delivery_tenant import whose_delivery
from pipeline.ledger.numbering import behind
from pipeline.ledger.rehearsal import rehearse
from pipeline.ledger.revision import misfit, revision_of
from pipeline.model import Acceptance, DeliveryOutcome, SignedDelivery, Unfollowed
from pipeline.revocation.signal_following import follow_on
from pipeline.workflow import Match, Registry

_BELIEVED = 60.0  # seconds
_PATIENCE = 5.0  # of those who come while it is looked again
ACCEPT_WITHIN = timedelta(seconds=2.5)  # Slack waits 3 s for its answer


@dataclass(frozen=True, kw_only=True)
class SigningSecrets:
    """What verifies the deliveries of one provider connection."""

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
        self._fitted = False  # at the last look
        self._fit = CachedCheck(self._look_whether_it_fits, believed=_BELIEVED, patience=_PATIENCE, monotonic=monotonic)

    def connection_secrets(self, connection: str) -> SigningSecrets | None:
        """The live webhook secrets of a connection, two while one is rotated. None: there is no such connection."""
        found = self._store.read(lambda c: find_with_secrets(c, connection, WEBHOOK_SECRET))
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

    def tenant_of(self, connection: str, installation: str | None, workspace: str | None = None) -> str | None:
        """The tenant of a delivery that came through *connection* and names *installation*.

        None: nobody's, or it is refused.
        """
        return self._store.read(lambda c: whose_delivery(c, connection, installation, workspace).tenant)

    def accept(
        self,
        delivery: SignedDelivery,
        matches: Sequence[Match],
        *,
        outcome: DeliveryOutcome,
        reason: str,
        began: float | None = None,
    ) -> Acceptance:
        """Commit a delivery and what follows from it. *began* is since when its sender waits; None: just now.

        Raises Unavailable if nothing was committed, and Unfollowed if the delivery was but its signal means more
        accounts than were reached in time: sent again, it is answered once all of them were.
        """
        end = self._monotonic() + self._follow_within.total_seconds()
        accepted = self._accept(delivery, matches, outcome=outcome, reason=reason, began=began)
        if not accepted.unfollowed:
            return accepted
        try:
            done = follow_on(self._ahead, accepted.delivery, clock=self._clock, end=end, monotonic=self._monotonic)
        except Unfollowed as short:
            raise Unfollowed(accepted.delivery, accepted.revocations + short.revocations) from short
        reason = accepted.reason if accepted.outcome is DeliveryOutcome.DUPLICATE else done.reason
        return replace(accepted, reason=reason, revocations=accepted.revocations + done.revocations, unfollowed=False)

    def _accept(
        self,
        delivery: SignedDelivery,
        matches: Sequence[Match],
        *,
        outcome: DeliveryOutcome,
        reason: str,
        began: float | None,
    ) -> Acceptance:
        ids = deliveries.NewIds(
            delivery=self._ids("del"), jobs=tuple(self._ids("job") for _ in matches), revocation=self._ids("rev")
        )
        now = self._clock()

        def accept(c: Connection) -> Acceptance:
            return deliveries.accept(c, delivery, matches, ids=ids, outcome=outcome, reason=reason, now=now)

        store = self._ahead  # a signal waits for its locks: late is better than not at all
        if delivery.signal is None:
            # What Slack gave up on must not be stored: a person who is told so gives the command again, newly named.
            since = time.monotonic() if began is None else began
            store = WithTurn(self._store, until=since + self._accept_within.total_seconds())
        # The sender's delivery id is the key: a second try says what was made.
        return write_idempotent(store, accept)

    def usages(self, delivery: SignedDelivery, workflows: Registry) -> list[str]:
        """What could be typed where *delivery* is from: usages of what listens to it and is on for its tenant."""
        known = workflows.usages(delivery.source, delivery.event)

        def switched_on(c: Connection) -> set[str]:
            tenant = whose_delivery(c, delivery.connection, delivery.installation, delivery.workspace).tenant
            return {name for name in known if tenant is not None and pins.enabled(c, tenant, name) is not None}

        here = self._store.read(switched_on)
        return sorted({usage for name in here for usage in known[name]})

    def held(self) -> bool:
        """Whether the installation is held: what is taken now waits."""
        return self._store.read(find_hold) is not None

    def ready(self) -> None:
        """Return if a delivery can be accepted now. Raises Unavailable, for tables of another version too."""
        self.fits()
        self._store.check_fit()  # what the next line writes is nothing, and takes none
        # A write, since that is what a delivery needs: a ledger whose writer is stopped can still be read.
        self._store.write(rehearse)

    def not_installed(self, workflows: Registry) -> list[str]:
        """The names of workflows that are on for somebody and not among those."""
        return self._store.read(lambda c: missing_workflows.not_installed(c, workflows))

    def fits(self) -> None:
        """Return if the ledger's tables are this version's, and its sequence is ahead of its rows.

        Looked at until both are seen: before that a delivery would fail, and GitHub repeats none, or a signal would
        count as older than what it is to end, and be lost. And again each minute, since a failover may put another
        ledger behind the same address: quickly, by one thread, for some seconds of which the others believe what was
        seen. After a look that failed, as in a failover, nobody does, and the next one is thorough. Raises Unavailable.
        """
        self._fit.result()

    def _look_whether_it_fits(self) -> None:
        quickly, self._fitted = self._fitted, False
        if said := misfit(revision_of(self._store)) or self._store.read(partial(behind, quickly=quickly)):
            raise Unavailable(said)
        self._fitted = True
