"""Among very many revocations, accounts and calls, what one revocation is about is found by an index."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from identity.model import PrincipalKind, Scope, ScopeKind
from identity.refresh.tables import refresh_intents
from identity.tables import accounts, principals, scopes
from identity.tenants import EVERY_TENANT, Tenants
from identity.withdrawals.awaiting import kept
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawer import WithdrawalTurn
from pipeline.authoring.registry import Registry
from pipeline.jobs.intents import Ended
from pipeline.ledger.indexed import STUCK
from pipeline.ledger.paging import Turn
from pipeline.revocation import declaration
from pipeline.revocation.tables import revocations
from pipeline.revoker.cancelling import WAITS, end_waits
from pipeline.revoker.due_withdrawals import measure_withdrawals
from pipeline.revoker.preview import Preview, preview
from pipeline.revoker.provider_side import ProviderAsker
from pipeline.signal import Asks
from pipeline.states import AttemptState, StepState
from pipeline.steps.openings import open_attempt
from pipeline.tables import attempts, jobs
from pipeline.views import operator_queries
from pipeline.views.overview import overview
from pipeline.views.tenant_views import revocations_page
from tests.ledger.acts import SIGNER, close, open_, revoke
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.plans import plans, plans_of, statements_of
from tests.ledger.revokers import quiet_revoker
from tests.ledger.rows import revocation_row
from tests.ledger.signals import person, say, signal
from tests.ledgers import ONLY_SQLITE

pytestmark = pytest.mark.as_owner

CROWD = 1_000
NOW = datetime.now(UTC)
ADA = Scope(kind=ScopeKind.USER, key="acme.ada")


def _person(number: int) -> dict[str, Any]:
    return {
        "id": f"p-{number}",
        "tenant_id": "globex",
        "kind": PrincipalKind.USER,
        "name": f"p-{number}",
        "created_at": NOW,
    }


def _account(number: int) -> dict[str, Any]:
    return {
        "id": f"acc-{number:05}",
        "tenant_id": "globex",
        "connection_id": "gh",
        "principal_id": f"p-{number}",
        "provider": "github",
        "credential": "authorization_code",
        "state": "active",
        "external_id": f"x-{number}",
        "created_at": NOW,
        "updated_at": NOW,
    }


def _revocation(number: int) -> dict[str, Any]:
    return revocation_row(f"old-{number}", -number, NOW, kind=ScopeKind.ACCOUNT, key=f"globex/gh/p-{number}")


def _withdrawal(number: int, *, state: str = "done", revocation: str | None = "", tries: int = 1) -> dict[str, Any]:
    return {
        "id": f"wit-{number}-{state}",
        "account_id": f"acc-{number:05}",
        "origin": "grant",
        "credential": "authorization_code",
        "generation": 1,
        "consented": 1,
        "revocation_id": f"old-{number}" if revocation == "" else revocation,
        "state": state,
        "tries": tries,
        "due_at": NOW,
        "created_at": NOW,
    }


@pytest.fixture
def crowded(house: House) -> House:
    """The house in a city of people who were all revoked once, and of whom each has a token minted since."""

    def fill(connection: Connection) -> None:
        rows = (principals, _person), (accounts, _account), (revocations, _revocation), (withdrawals, _withdrawal)
        for table, row in (*rows, (withdrawals, partial(_withdrawal, state="held", revocation=None, tries=0))):
            connection.execute(insert(table), [row(number) for number in range(1, CROWD)])
        connection.execute(text("analyze"))

    house.database.write(fill)
    return house


def _by_index(house: House, act: Callable[[], object], *, table: str, index: str) -> None:
    """*act* asks the table by the index, and never reads all of it."""
    told = plans_of(house.database, act, large=True)
    assert any(index in plan for plan in told), told
    scans = (f"SCAN {table}", f"Seq Scan on {table}")
    assert not [plan for plan in told if any(scan in plan for scan in scans)]


_of_revocations = partial(_by_index, table="revocations", index="ix_revocations_scope")
_of_accounts = partial(_by_index, table="accounts", index="ix_accounts_principal")


@pytest.mark.parametrize(
    ("tenants", "index"),
    [(EVERY_TENANT, "ix_revocations_effective"), (Tenants.of("globex"), "ix_revocations_tenant")],
    ids=["every tenant", "one tenant"],
)
def test_a_page_of_the_list_is_read_from_the_index_of_its_order(crowded: House, tenants: Tenants, index: str) -> None:
    (plan,) = plans(crowded.database, partial(revocations_page, tenants=tenants, turn=Turn(limit=50)), large=True)
    assert index in plan, plan


SCOPES = (
    Scope(kind=ScopeKind.TENANT, key="acme"),
    Scope(kind=ScopeKind.CONNECTION, key="gh"),
    Scope(kind=ScopeKind.AGENT, key="tester"),
    ADA,
    account_scope(),
)


def test_a_commit_of_a_revocation_is_the_same_whatever_is_queued(house: House) -> None:
    job = house.job()
    before = {scope: _commit(house, scope) for scope in SCOPES}

    def queue(connection: Connection) -> None:
        one = dict(connection.execute(select(jobs).where(jobs.c.id == job)).mappings().one())
        connection.execute(insert(jobs), [{**one, "id": f"job-{place}"} for place in range(1, CROWD)])

    house.database.write(queue)
    assert {scope: _commit(house, scope) for scope in SCOPES} == before
    for statements in before.values():
        assert any("INSERT INTO revocations" in statement for statement in statements)
        assert not [statement for statement in statements if re.search(r"\bjobs\b", statement)]


def _commit(house: House, scope: Scope) -> list[str]:
    """The statements that make a revocation of *scope* effective. It is taken back, so that the next is the first."""

    def declare(connection: Connection) -> None:
        cause = declaration.Cause(source="test", by="test", reason="test")
        declaration.declare(connection, scope, cause, id="rev", tenant="acme", now=NOW)
        raise _TakenBack

    def attempt() -> None:
        with pytest.raises(_TakenBack):
            house.database.write(declare)

    return [statement for statement, _ in statements_of(attempt)]


class _TakenBack(Exception):
    pass


def test_an_opening_that_is_refused_finds_its_revocation_by_the_scope(crowded: House) -> None:
    asked = intent(crowded, crowded.claim(crowded.job()))
    revoke(crowded, account_scope())
    outcomes: list[object] = []
    _of_revocations(crowded, lambda: outcomes.append(crowded.database.write(partial(open_attempt, intent=asked))))
    assert isinstance(outcomes[0], Ended)


def test_a_signal_finds_what_revoked_its_person_before_by_the_scopes_and_reads_no_other_revocation(
    crowded: House,
) -> None:
    told = plans_of(crowded.database, lambda: say(crowded, signal(Asks.REVOKE, person())), large=True)
    assert any("ix_accounts_external" in plan for plan in told), told
    over = [plan for plan in told if re.search(r"\brevocations\b", plan)]
    assert over, told
    assert all("ix_revocations_scope" in plan and "SCAN revocations" not in plan for plan in over), over
    assert not any("Seq Scan on revocations" in plan for plan in over), over


@ONLY_SQLITE  # without statistics; PostgreSQL plans by them
def test_waits_are_ended_by_the_ids_of_the_jobs_and_not_among_all_that_wait_for_the_account(house: House) -> None:
    end = partial(end_waits, ids=[f"job-{place}" for place in range(WAITS)], waits_for="account:acme/gh/acme.ada")
    ((update, parameters),) = (
        one for one in statements_of(lambda: house.database.write(end)) if one[0].startswith("UPDATE jobs")
    )
    (plan,) = house.database.read(lambda c: c.exec_driver_sql(f"explain query plan {update}", parameters).all())
    assert "sqlite_autoindex_jobs_1 (id=?)" in plan[-1], plan


@ONLY_SQLITE  # without statistics; PostgreSQL plans by them
def test_what_waits_to_be_confirmed_is_looked_for_by_the_account_and_not_among_all_that_is_to_end(
    house: House,
) -> None:
    (plan,) = plans(house.database, lambda c: kept(c, ["acc-1", "acc-2"]))
    assert "ix_withdrawals_account (account_id=?)" in plan


@pytest.mark.parametrize("index", ["ix_revocations_unfinished", "ix_revocations_open_ends"])
def test_what_goes_on_is_found_among_those_that_have_ended(crowded: House, index: str) -> None:
    look = partial(quiet_revoker(crowded.database, SIGNER).unfinished, idle_seconds=5)
    _by_index(crowded, look, table="revocations", index=index)


def test_what_a_refresh_won_late_finds_its_revocation_by_the_scope(crowded: House) -> None:
    late = {
        "id": "ref-late",
        "account_id": "acc-acme.ada",
        "generation": 1,
        "consented": 1,
        "state": "discarded",
        "opened": 1,
        "started_at": NOW,
        "send_before": NOW,
        "settled_by": NOW,
        "presented": 1,
        "answer_sealed": b"sealed",
    }
    crowded.database.write(lambda c: c.execute(insert(refresh_intents), late).rowcount)
    asker = ProviderAsker(crowded.database, lambda *_: WithdrawalTurn(), clock=lambda: NOW)
    _of_revocations(crowded, asker.due)


def test_what_is_still_to_end_at_providers_is_found_among_what_has_ended_and_what_is_in_use(crowded: House) -> None:
    asker = ProviderAsker(crowded.database, lambda *_: WithdrawalTurn(), clock=lambda: NOW)
    looks: tuple[Callable[[], object], ...] = (
        asker.due,
        asker.ask_leftovers,
        partial(asker.advance, "old-1"),
        partial(measure_withdrawals, crowded.database),
        lambda: crowded.database.read(lambda c: c.execute(STUCK).all()),
    )
    for look in looks:
        told = [
            plan
            for plan in plans_of(crowded.database, look, large=True)
            if re.search(r"(SCAN|on) withdrawals|ix_with", plan)
        ]
        asked = [plan for plan in told if "ix_withdrawals_account" not in plan]  # an account's own, for each of them
        assert asked, look
        assert all("ix_withdrawals_open" in plan for plan in asked), asked


def test_what_a_users_revocation_would_end_is_found_by_the_principal(crowded: House) -> None:
    registry = Registry((crowded.workflow,))
    _of_accounts(crowded, lambda: crowded.database.read(partial(preview, scope=ADA, workflows=registry, now=NOW)))


def test_what_a_connections_revocation_would_end_is_counted_by_the_database_however_many_they_are(house: House) -> None:
    """While they were read here, PostgreSQL would end the transaction, which is idle meanwhile."""
    registry, scope = Registry((house.workflow,)), Scope(kind=ScopeKind.CONNECTION, key="gh")

    def look() -> tuple[int, int]:
        found: list[Preview] = []
        read = partial(preview, scope=scope, workflows=registry, now=NOW)
        told = statements_of(lambda: found.append(house.database.read(read)))
        return len(told), found[0].accounts

    statements, alive = look()

    def crowd(connection: Connection) -> None:
        for table, row in ((principals, _person), (accounts, _account)):
            connection.execute(insert(table), [row(number) for number in range(1, CROWD)])

    house.database.write(crowd)
    assert look() == (statements, alive + CROWD - 1)


def test_the_credentials_that_a_users_revocation_ends_are_found_by_the_principal(crowded: House) -> None:
    made = revoke(crowded, ADA)
    asker = ProviderAsker(crowded.database, lambda *_: WithdrawalTurn(), clock=lambda: NOW + timedelta(hours=1))
    _of_accounts(crowded, lambda: asker.advance(made))


def test_a_look_at_a_receipt_with_open_ends_reads_its_own_calls_and_not_what_was_closed_since(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    made = revoke(house, account_scope())
    open_(house, intent(house, asked.job, position=2))
    revoker = quiet_revoker(house.database, SIGNER)
    assert revoker.advance(made)

    def work_on(connection: Connection) -> None:
        one = dict(connection.execute(select(attempts)).mappings().one())
        later = {"state": AttemptState.EFFECT, "opened": one["opened"] + 10**6, "closed": one["opened"] + 10**6}
        connection.execute(
            insert(attempts), [{**one, **later, "id": f"att-{place}", "number": place + 2} for place in range(CROWD)]
        )
        connection.execute(text("analyze"))

    house.database.write(work_on)
    told = [plan for plan in plans_of(house.database, lambda: revoker.advance(made), large=True) if "attempts" in plan]
    assert told
    by_key = ("pk_attempts", "sqlite_autoindex_attempts_1")
    assert all(any(key in plan for key in by_key) for plan in told), told


def test_what_is_stopped_is_found_among_all_that_were_ever_revoked(house: House) -> None:
    revoked = [{"kind": ScopeKind.ACCOUNT, "key": f"globex/gh/p-{n}", "revoked": n} for n in range(1, CROWD)]

    def fill(connection: Connection) -> None:
        connection.execute(insert(scopes), revoked)
        connection.execute(insert(scopes).values(kind=ScopeKind.AGENT, key="tester", revoked=0, stopped=True))
        connection.execute(text("analyze"))

    house.database.write(fill)
    (told,) = house.database.read(operator_queries.stopped_scopes)
    assert told["key"] == "tester"
    assert house.database.read(partial(overview, of=None, now=NOW))[None].stopped == ("agent tester",)
    for read in (operator_queries.stopped_scopes, partial(overview, of=None, now=NOW)):
        looked = plans(house.database, read, large=True)
        (plan,) = (plan for plan in looked if "scopes" in plan and "connections" not in plan)
        assert "ix_scopes_stopped" in plan
