"""Jobs and deliveries are forgotten whole where the settings say so, but for those that something still counts on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, insert, select, update

from identity.agents.api_keys import NewApiKey, Role, add_key
from identity.audit import AsWhom, Work, record
from identity.errors import BadInput
from identity.keys.signing import Signer
from identity.retention import Bookmark
from identity.secret import Secret
from identity.tables import agents
from identity.tenants import EVERY_TENANT
from pipeline.approvals.tables import approval_votes, approvals
from pipeline.authoring.declared_workflow import PLATFORM_AGENT
from pipeline.duties.forgotten_jobs import look_at_deliveries, look_at_whole_jobs, prune_jobs
from pipeline.duties.retention import Retention, prune
from pipeline.ledger.paging import Turn
from pipeline.model import DeliveryOutcome
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocations
from pipeline.states import ApprovalState, AttemptState, JobState, StepState
from pipeline.steps.replay import replay_job
from pipeline.tables import attempts, deliveries, forgotten, idempotency_keys, jobs, steps
from pipeline.views import operator_queries, tenant_views
from tests.ledger.house import House
from tests.ledger.plans import kept_plans, plans
from tests.ledger.rows import attempt_row, step_row
from tests.ledgers import ONLY_SQLITE

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
SIGNER = Signer.from_seed(b"s" * 32)
YEAR = Retention(jobs=365, deliveries=400)


def forget(house: House, days: int, kept: Retention = YEAR) -> dict[str, int]:
    return dict(prune(house.database, kept, SIGNER, now=NOW + days * DAY, within=timedelta(minutes=5)))


def ended(house: House, *, once: str | None = None, attempt: AttemptState = AttemptState.EFFECT, **job: Any) -> str:
    """A job of a delivery, which ended with one step and one attempt."""
    id = house.job()

    def write(c: Connection) -> None:
        step = step_row(id, f"{id}.1", StepState.DONE, NOW, once_key=once, result={"id": "1"})
        c.execute(insert(steps), step)
        c.execute(insert(attempts), attempt_row(step, attempt))
        c.execute(update(jobs).where(jobs.c.id == id).values({"state": JobState.DONE, "finished_at": NOW} | job))

    house.database.write(write)
    return id


def write_row(house: House, table: Table, **values: Any) -> None:
    house.database.write(lambda c: c.execute(insert(table), values).rowcount)


def count(house: House, table: Table) -> int:
    return house.database.read(lambda c: int(c.execute(select(func.count()).select_from(table)).scalar_one()))


def test_an_ended_job_goes_after_its_days_and_its_delivery_after_those_of_deliveries(house: House) -> None:
    ended(house)
    assert (forget(house, 364)["jobs"], forget(house, 366)["jobs"]) == (0, 1)
    assert count(house, deliveries) == 1
    assert (forget(house, 399)["deliveries"], forget(house, 401)["deliveries"]) == (0, 1)
    assert [count(house, table) for table in (jobs, steps, attempts, deliveries)] == [0, 0, 0, 0]


def test_neither_goes_where_no_setting_says_so(house: House) -> None:
    ended(house)
    gone = forget(house, 4_000, Retention())
    assert (gone["jobs"], gone["deliveries"], count(house, jobs), count(house, forgotten)) == (0, 0, 1, 0)


def test_a_delivery_is_known_as_long_as_it_is_kept_and_new_from_then_on(house: House) -> None:
    ended(house)
    ids = house.database.read(lambda c: c.execute(select(deliveries.c.delivery_id)).scalars().all())
    again = house.delivery(ids[0])
    forget(house, 399)
    repeated = house.accept(again)
    assert (repeated.outcome, repeated.jobs) == (DeliveryOutcome.DUPLICATE, ())  # its job is forgotten, it is not
    forget(house, 401)
    assert len(house.accept(again).jobs) == 1


def test_a_signal_stays_and_is_known_for_ever(house: House) -> None:
    ended(house)
    house.database.write(lambda c: c.execute(update(deliveries).values(outcome=DeliveryOutcome.SIGNAL)).rowcount)
    assert forget(house, 4_000)["deliveries"] == 0


def test_a_delivery_stays_as_long_as_its_job(house: House) -> None:
    ended(house, once="key")
    assert (forget(house, 4_000)["jobs"], count(house, deliveries)) == (0, 1)


def has_a_key(house: House, job: str) -> None:
    """A request that came with it made the job, and comes again."""
    now = NOW

    def write(c: Connection) -> None:
        new = NewApiKey(id="key", tenant="acme", agent="bot", role=Role.AGENT, tools=None, users=None, expires_at=None)
        add_key(c, Secret("awk_x"), new, by="eve", now=now)
        row = {"tenant_id": "acme", "agent_id": "bot", "key": "k", "request_hash": "", "made_id": job, "made_at": now}
        c.execute(insert(idempotency_keys), row)

    house.database.write(write)


def is_revoked(house: House, job: str, *, told: Stage, open_ends: int = 0, reached: bool = True) -> None:
    row = {
        "id": "rev-1", "number": 1, "kind": "tenant", "key": "acme", "source": "cli", "requested_by": "eve",
        "reason": "", "state": told, "effective_at": NOW, "moved_at": NOW, "cancelled_jobs": 1, "stopped_jobs": 0,
        "open_ends": open_ends,
    }  # fmt: skip
    write_row(house, revocations, **row)
    if reached:
        house.database.write(
            lambda c: c.execute(update(jobs).where(jobs.c.id == job).values(revocation_id="rev-1")).rowcount
        )


def is_asked(house: House, job: str, *, state: ApprovalState, told: ApprovalState | None) -> None:
    row = {
        "id": "appr-1", "tenant_id": "acme", "job_id": job, "position": 1, "action": "github.Say",
        "request_hash": "", "policy_version": 1, "principal_id": "acme.ada", "needs": [], "shown": {}, "digest": "",
        "state": state, "asked": 1, "created_at": NOW, "expires_at": NOW, "told_state": told,
    }  # fmt: skip
    write_row(house, approvals, **row)


def is_the_platforms(house: House, job: str) -> None:
    write_row(house, agents, id=PLATFORM_AGENT, name="Aswhom", created_at=NOW)
    house.database.write(lambda c: c.execute(update(jobs).values(agent_id=PLATFORM_AGENT)).rowcount)


@pytest.mark.parametrize(
    ("job", "counts"),
    [
        ({"once": "key"}, None),
        ({"attempt": AttemptState.UNKNOWN}, None),
        ({"state": JobState.WAITING, "finished_at": None}, None),
        ({}, has_a_key),
        ({}, partial(is_revoked, told=Stage.QUIESCED, open_ends=1)),
        ({}, partial(is_revoked, told=Stage.DRAINING)),
        ({}, partial(is_revoked, told=Stage.DRAINING, reached=False)),
        ({}, partial(is_asked, state=ApprovalState.OPEN, told=ApprovalState.OPEN)),
        ({}, partial(is_asked, state=ApprovalState.APPROVED, told=ApprovalState.OPEN)),
        ({}, is_the_platforms),
    ],
    ids=[
        "it may own a once key",
        "an outcome is unknown",
        "it has not ended",
        "a request comes again with its key",
        "a receipt may tell more of it",
        "its revocation has no receipt",
        "another revocation has no receipt",
        "an approval is open",
        "nobody was told of an approval's end",
        "it followed a revocation",
    ],
)
def test_a_job_stays_that_something_counts_on(
    house: House, job: dict[str, Any], counts: Callable[[House, str], None] | None
) -> None:
    id = ended(house, **job)
    if counts is not None:
        counts(house, id)
    assert forget(house, 4_000, Retention(jobs=365, idempotency_keys=0))["jobs"] == 0
    assert house.row(id).id == id


def test_one_whose_delivery_could_be_replayed_stays(house: House) -> None:
    """The replay would find no job of it, and start it a second time."""
    ended(house)
    assert forget(house, 4_000, Retention(jobs=365, bodies=0))["jobs"] == 0
    assert forget(house, 4_000)["jobs"] == 1


def test_a_settled_revocation_keeps_no_job_and_its_approvals_go_with_it(house: House) -> None:
    id = ended(house, state=JobState.CANCELLED)
    is_revoked(house, id, told=Stage.QUIESCED)
    is_asked(house, id, state=ApprovalState.APPROVED, told=ApprovalState.APPROVED)
    voted = {"approval_id": "appr-1", "principal_id": "acme.ada", "answer": "yes", "through": "cli", "said_as": "eve"}
    write_row(house, approval_votes, **voted, number=1, at=NOW)
    assert forget(house, 4_000)["jobs"] == 1
    assert [count(house, table) for table in (approvals, approval_votes)] == [0, 0]
    assert count(house, revocations) == 1


def test_what_moved_between_the_look_and_the_write_stays(house: House) -> None:
    id = ended(house)
    house.database.write(lambda c: c.execute(update(jobs).values(pruned_at=NOW)).rowcount)
    assert house.database.write(partial(prune_jobs, before=NOW + DAY, ids=[id])) == 0
    assert house.row(id).id == id


def test_whoever_asks_for_a_forgotten_job_is_told_that_and_since_when(house: House) -> None:
    known, unknown = ended(house), ended(house)

    def acted(c: Connection) -> None:
        record(c, "job.cancelled", AsWhom(tenant="acme"), Work(job=known), id="a-1", at=NOW)

    house.database.write(acted)
    read = house.database.read
    with pytest.raises(BadInput, match=r"there is no job nosuch: `aswhom jobs list` shows them$"):
        read(lambda c: operator_queries.any_job(c, "nosuch"))
    before = datetime.now(UTC)
    forget(house, 401)
    which = rf"jobs that ended before {NOW + 36 * DAY:%Y-%m-%d} were, and no later ones"
    since = f"({before:%Y-%m-%d}|{datetime.now(UTC):%Y-%m-%d})"  # midnight may have passed
    told = rf"{which} \(ASWHOM_KEEP_JOBS, since {since}\)"
    with pytest.raises(BadInput, match=rf"job {known} was forgotten by retention: {told}"):
        read(lambda c: operator_queries.any_job(c, known))
    with pytest.raises(BadInput, match=rf"there is no job {unknown}.* It may have been forgotten: {told}"):
        read(lambda c: operator_queries.any_job(c, unknown))
    with pytest.raises(BadInput, match="was forgotten by retention"):
        house.database.write(partial(replay_job, job=known, by="eve", at=NOW))
    with pytest.raises(
        BadInput, match=r"It may have been forgotten: deliveries that came before .*ASWHOM_KEEP_DELIVERIES"
    ):
        read(lambda c: operator_queries.any_delivery(c, "del-x"))


def test_how_far_it_came_never_goes_back_and_its_beginning_stays(house: House) -> None:
    ended(house)
    forget(house, 500)
    first = house.database.read(lambda c: c.execute(select(forgotten).order_by(forgotten.c.what)).all())
    ended(house)
    forget(house, 450)
    assert house.database.read(lambda c: c.execute(select(forgotten).order_by(forgotten.c.what)).all()) == first


def test_a_listing_goes_on_over_what_is_gone(house: House) -> None:
    oldest, between, newest = ended(house, once="a"), ended(house), ended(house, once="b")
    page = house.database.read(lambda c: tenant_views.jobs_page(c, EVERY_TENANT, Turn(limit=1)))
    assert [row["id"] for row in page.rows] == [newest]
    assert forget(house, 4_000)["jobs"] == 1
    following = house.database.read(lambda c: tenant_views.jobs_page(c, EVERY_TENANT, Turn(limit=2, after=page.next)))
    assert [row["id"] for row in following.rows] == [oldest]
    assert between not in house.states()


@pytest.mark.parametrize(
    ("look", "index", "column"),
    [
        (look_at_whole_jobs, "ix_jobs_created", "created_at"),
        (look_at_deliveries, "ix_deliveries_received", "received_at"),
    ],
)
def test_what_is_old_is_looked_through_by_its_index(
    house: House, look: Callable[..., object], index: str, column: str
) -> None:
    house.job()

    def read(c: Connection) -> object:
        return look(c, before=NOW + DAY, after=Bookmark(at=NOW - DAY, id="x"), limit=10)

    if house.database.engine.dialect.name == "sqlite":
        first, may_go = plans(house.database, read)
        assert f"(({column},id)>(?,?)" in first
    else:
        first, may_go = kept_plans(house.database, lambda: house.database.read(read)).values()
        assert f"(ROW({column}, id) > ROW(" in first
    assert index in first
    assert look is not look_at_whole_jobs or "ix_revocations_unfinished" in may_go
    # Of each that was looked at, whatever counts on it is found by an index too: in nothing that grows is there a scan.
    large = "approvals|attempts|deliveries|idempotency_keys|jobs|revocations|signal_chunks|steps"
    assert not [line for line in may_go.splitlines() if _is_scan(line, large.split("|"))], may_go


def _is_scan(line: str, tables: list[str]) -> bool:
    return any(line.strip(" ->").startswith((f"SCAN {table}", f"Seq Scan on {table}")) for table in tables)


@ONLY_SQLITE
@pytest.mark.parametrize("table", [jobs, deliveries], ids=["jobs", "deliveries"])
def test_no_foreign_key_is_looked_for_in_all_of_a_table(house: House, table: Table) -> None:
    """Where no index leads from a row to those that name it, its deletion reads every one of them."""

    def unindexed(c: Connection) -> list[str]:
        found = []
        for other in table.metadata.tables.values():
            for key in other.foreign_keys:
                if key.column.table is table:
                    where = f"explain query plan select 1 from {other.name} where {key.parent.name} = 'x'"
                    found += [f"{other.name}: {row[-1]}" for row in c.exec_driver_sql(where) if "SCAN" in row[-1]]
        return found

    assert house.database.read(unindexed) == []
