"""Catching up with GitHub, which never repeats a delivery by itself: failed ones are requested while they are kept.

Deliveries in the ledger are not requested, and one that arrives twice counts once, so this may run twice and on several
hosts. Failures are remembered in memory only: a new process looks at everything that GitHub keeps.

In that first look it also requests signals that arrived but are missing from the ledger, which a restore from a backup
loses. It does not do so for deliveries that start jobs, because those may have done their work at upstreams that cannot
tell. Nor does it for deliveries taken by somebody else before the connection existed: they may concern consents that
were renewed since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from identity.connections.registry import get_connection
from identity.connections.secrets import PRIVATE_KEY, WEBHOOK_SECRET, SealedSecret, live_secrets
from identity.errors import Misconfigured, Unavailable
from identity.http.client import Answer, Client, HttpRequest
from identity.keys.vault import Vault
from identity.model import ProviderConnection
from identity.secret import Secret
from identity.sql.store import Store, write_idempotent
from identity.tables import connection_secrets, provider_connections
from pipeline import metrics
from pipeline.batches import in_batches
from pipeline.deliveries.redeliveries import remember_asked
from pipeline.duties.github_deliveries import Row, UnreadableList, kept_for, list_request, read_page, redeliver_request
from pipeline.tables import deliveries

log = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=5)  # looked at again each time, because rows come late and clocks differ
FIRST, LONGEST = timedelta(minutes=1), timedelta(hours=6)  # between two requests for the same delivery
_REFUSALS = 3  # after that many failures GitHub itself is at fault, not one delivery
MOST_PAGES = 50  # per tick and connection
MOST_REQUESTS = 50  # for deliveries, per tick and connection


@dataclass(kw_only=True)
class _Failed:
    """A delivery that did not arrive, or that the ledger lost."""

    guid: str
    row: int
    delivered_at: datetime
    is_signal: bool
    asked: int = 0
    ask_at: datetime
    too_large: bool = False  # for the current limit on bodies


@dataclass(kw_only=True)
class _Listing:
    """A list that GitHub returns page by page, newest first; a long one takes several ticks."""

    began: datetime
    since: datetime
    query: str  # of the next page
    decided: set[str] = field(default_factory=set)  # guids whose newest try was seen


@dataclass(frozen=True, kw_only=True)
class _App:
    """A connection that receives an App's webhooks, with the App's key."""

    owner: ProviderConnection
    key: SealedSecret
    exists_since: datetime
    hears_since: datetime  # when it could first take a signed delivery

    def wants(self, row: Row, *, first_look: bool) -> bool:
        """True if the ledger may lack a delivery it should have; `_forget` checks. Allows for different clocks."""
        if row.arrived:
            return first_look and row.is_signal and row.delivered_at >= self.hears_since - OVERLAP
        return row.delivered_at >= self.exists_since - OVERLAP


@dataclass(kw_only=True)
class _Known:
    """State of this process about one App's deliveries."""

    seen_to: datetime  # everything before this was looked at
    looked: bool = False  # at least once at everything that GitHub keeps
    listing: _Listing | None = None  # the rest of the last list
    failed: dict[str, _Failed] = field(default_factory=dict)  # by guid


class CatchUp:
    """Lists deliveries that failed at GitHub and requests them again. Runs in one thread."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        http: Client,
        *,
        clock: Callable[[], datetime],
        budget: timedelta = timedelta(seconds=10),
        most: int = MOST_REQUESTS,
        page: int = 100,  # rows; GitHub's maximum
        most_pages: int = MOST_PAGES,
    ) -> None:
        self._store = store
        self._vault = vault
        self._http = http
        self._clock = clock
        self._budget = budget
        self._most = most
        self._page = page
        self._most_pages = most_pages
        self._known: dict[str, _Known] = {}

    def run(self) -> int:
        """Look at every App once and return how many deliveries were requested. Raises Unavailable if one failed."""
        asked, silent = 0, []
        for app in self._store.read(_apps):
            try:
                number, failures = self._catch_up(app, app.key.open(self._vault))
            except Misconfigured as failure:
                number, failures = 0, [failure]
            asked += number
            silent += [f"{app.owner.id}: {failure}" for failure in failures]
        if silent:
            raise Unavailable(f"GitHub's deliveries could not all be looked at or asked for: {'; '.join(silent)}")
        return asked

    def _catch_up(self, app: _App, key: Secret) -> tuple[int, list[Exception]]:
        """Return how many deliveries were requested, and the failures: a bad page or delivery holds up no other."""
        now, owner = self._clock(), app.owner
        known = self._known.setdefault(owner.id, _Known(seen_to=now - kept_for(owner)))
        asked, failures = 0, list[Exception]()
        try:
            self._look(app, key, known, now)
        except (Unavailable, UnreadableList) as failure:
            failures.append(failure)
        self._forget(owner, known, now)
        due = [one for one in known.failed.values() if one.ask_at <= now]
        due.sort(key=lambda one: (not one.is_signal, one.delivered_at))  # thousands may have met a rate limit
        for one in due[: self._most]:
            try:
                self._ask(owner, key, one, now)
                asked += 1
            except Unavailable as failure:
                failures.append(failure)
            if len(failures) == _REFUSALS:  # GitHub itself is away: the next tick requests the rest
                break
        return asked, failures

    def _look(self, app: _App, key: Secret, known: _Known, now: datetime) -> None:
        """Note the deliveries since the last look, or the rest of its list; read at most a tick's number of pages."""
        owner = app.owner
        since = max(known.seen_to - OVERLAP, now - kept_for(owner))
        listing = known.listing or _Listing(began=now, since=since, query=f"per_page={self._page}")
        known.listing = None  # if a page fails, the next tick starts again: GitHub's cursors do not last
        for _ in range(self._most_pages):
            page = read_page(self._send(owner, list_request(owner, key, query=listing.query, now=self._clock())))
            for row in page.rows:
                if row.delivered_at >= listing.since:
                    _note(app, known, listing, row, now)
            if page.next_query is None or len(page.rows) == 0 or page.rows[-1].delivered_at < listing.since:
                known.seen_to, known.looked = listing.began, True
                return
            listing.query = page.next_query
        known.listing = listing
        note = {"action": "catch_up.cut", "connection": owner.id}
        log.warning("GitHub lists very many deliveries: the older ones are looked at in the next tick", extra=note)

    def _forget(self, owner: ProviderConnection, known: _Known, now: datetime) -> None:
        """Drop deliveries that have arrived after all, and those that GitHub no longer keeps."""
        arrived = self._store.read(lambda c: _recorded(c, owner.id, list(known.failed)))
        for guid in arrived:
            del known.failed[guid]
        for guid, one in list(known.failed.items()):
            if one.delivered_at < now - kept_for(owner):
                note = {"action": "catch_up.lost", "connection": owner.id, "delivery": guid, "asked": one.asked}
                log.error("a delivery did not arrive, and GitHub keeps it no longer", extra=note)
                metrics.REDELIVERIES.labels("lost").inc()
                del known.failed[guid]

    def _ask(self, owner: ProviderConnection, key: Secret, one: _Failed, now: datetime) -> None:
        if one.is_signal:  # if this fails nothing was requested, and its next turn comes no later
            write_idempotent(self._store, lambda c: remember_asked(c, owner.id, one.guid, now=now))
        one.ask_at = now + (LONGEST if one.too_large else min(FIRST * 2**one.asked, LONGEST))
        one.asked += 1
        request = redeliver_request(owner, key, one.row, now=now)
        self._send(owner, request)
        metrics.REDELIVERIES.labels("asked").inc()
        note = {"action": "catch_up.asked", "connection": owner.id, "asked": one.asked}
        log.info("asked GitHub for a delivery that failed, or that the ledger has lost", extra=note)

    def _send(self, owner: ProviderConnection, request: HttpRequest) -> Answer:
        """Send a request. Raises Unavailable for any answer but 2xx."""
        answer = self._http.send(request, within=self._budget)
        if not isinstance(answer, Answer):
            raise Unavailable(f"{owner.provider} cannot be reached ({answer.reason})")
        if not 200 <= answer.status < 300:
            raise Unavailable(f"{owner.provider} answered {answer.status}")
        return answer


def _apps(c: Connection) -> list[_App]:
    """Return the connections that receive an App's webhooks. A key that cannot be opened affects only its own one."""
    found = []
    owners, secrets = provider_connections.c, connection_secrets.c
    first = select(func.min(secrets.created_at)).where(
        secrets.connection_id == owners.id, secrets.name == WEBHOOK_SECRET
    )
    of_github = select(owners.id, owners.created_at, first.scalar_subquery().label("hears_since")).where(
        owners.provider == "github"
    )
    for row in c.execute(of_github.order_by(owners.id)).all():
        keys = live_secrets(c, row.id, PRIVATE_KEY)
        if keys and live_secrets(c, row.id, WEBHOOK_SECRET):
            owner = get_connection(c, row.id)
            found.append(_App(owner=owner, key=keys[0], exists_since=row.created_at, hears_since=row.hears_since))
    return found


def _note(app: _App, known: _Known, listing: _Listing, row: Row, now: datetime) -> None:
    """Note a row. The newest try of a delivery decides, and it comes first."""
    if row.guid in listing.decided:
        return
    listing.decided.add(row.guid)
    if not app.wants(row, first_look=not known.looked):
        known.failed.pop(row.guid, None)
        return
    at = row.delivered_at.astimezone(UTC)
    fresh = _Failed(guid=row.guid, row=row.id, delivered_at=at, is_signal=row.is_signal, ask_at=now)
    one = known.failed.setdefault(row.guid, fresh)
    if row.is_too_large and not one.too_large:
        one.too_large, one.ask_at = True, now + LONGEST  # by then the limit may have been raised
        note = {"action": "catch_up.too_large", "connection": app.owner.id, "delivery": row.guid}
        log.error("a delivery is longer than is let in: raise ASWHOM_MAX_BODY, and what a proxy allows", extra=note)


def _recorded(c: Connection, owner: str, guids: Sequence[str]) -> set[str]:
    """Return which of these deliveries the ledger has: GitHub may have missed our answer."""
    found: set[str] = set()
    for some in in_batches(guids):
        which = (deliveries.c.connection_id == owner) & deliveries.c.delivery_id.in_(some)
        found |= set(c.execute(select(deliveries.c.delivery_id).where(which)).scalars())
    return found
