"""A ledger whose sequence is behind its rows is used by nobody: a revocation in it would end nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text, update

from identity.accounts.narrowing import rescope
from identity.accounts.states import get_account
from identity.errors import Unavailable
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.model import Credential
from identity.sql.metadata import ledger_numbers
from identity.sql.sequence import next_number
from identity.tables import grants
from pipeline.deliveries.intake import Intake
from pipeline.ledger.numbering import behind, last_given
from pipeline.signal import Asks, Installation
from tests.ledger.acts import done, open_, revoke
from tests.ledger.house import House, account_scope, intent_of
from tests.ledger.plans import statements_of
from tests.ledger.signals import say, signal

pytestmark = pytest.mark.as_owner


def leave_behind(c: Connection) -> None:
    """As replication leaves a sequence: where it was made."""
    if c.dialect.name == "postgresql":
        c.execute(text("select setval('ledger_number_sequence', 1, false)"))
    else:
        c.execute(update(ledger_numbers).values(value=0))


def test_a_ledger_as_it_is_made_and_used_is_ahead_of_its_rows(house: House) -> None:
    assert house.database.read(behind) is None
    for _ in range(3):
        house.job()
    assert house.database.read(behind) is None


def _waiting_job(house: House) -> None:
    house.job()


def _revocation(house: House) -> None:
    revoke(house, account_scope())


def _done_step(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    done(house, asked)


@pytest.mark.parametrize("numbered", [_waiting_job, _revocation, _done_step])
def test_one_that_is_behind_is_found_by_whatever_was_numbered_and_mended_as_is_said(
    house: House, numbered: Callable[[House], None]
) -> None:
    numbered(house)
    reached = house.database.write(next_number) - 1
    house.database.write(leave_behind)
    said = house.database.read(behind)
    assert said is not None
    assert f"at 0, and its rows have them up to {reached}:" in said
    assert "`aswhom db restored`" in said
    web = Intake(house.database, Vault({1: bytes(32)}, secrets.token_bytes), Ids(), clock=lambda: datetime.now(UTC))
    with pytest.raises(Unavailable, match="a revocation would count as made before"):
        web.ready()
    with pytest.raises(Unavailable):
        web.fits()
    statement = said.split("`")[1]
    house.database.write(lambda c: c.execute(text(statement)).rowcount)
    assert house.database.read(behind) is None
    assert house.database.write(next_number) == reached + 1
    web.ready()


def test_a_web_that_runs_sees_within_a_minute_that_its_ledger_has_fallen_behind(house: House) -> None:
    now = 0.0
    web = Intake(
        house.database,
        Vault({1: bytes(32)}, secrets.token_bytes),
        Ids(),
        clock=lambda: datetime.now(UTC),
        monotonic=lambda: now,
    )
    _revocation(house)
    web.ready()
    house.database.write(leave_behind)
    web.fits()
    now = 61.0
    with pytest.raises(Unavailable, match="a revocation would count as made before"):
        web.fits()
    with pytest.raises(Unavailable):
        web.ready()


def test_a_web_that_runs_looks_among_no_jobs_and_keeps_no_other_thread_waiting(house: House) -> None:
    """Very many are unfinished in an outage, or a hold, and a delivery has seconds."""
    now = 0.0
    web = Intake(
        house.database,
        Vault({1: bytes(32)}, secrets.token_bytes),
        Ids(),
        clock=lambda: datetime.now(UTC),
        monotonic=lambda: now,
    )
    assert any("jobs" in statement for statement, _ in statements_of(web.fits))
    now = 61.0
    with web._fit._lock:
        assert statements_of(web.fits) == []
    again = [statement for statement, _ in statements_of(web.fits)]
    assert any("audit" in statement for statement in again)
    assert not any("jobs" in statement for statement in again)


_ON_POSTGRESQL = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)


@_ON_POSTGRESQL
def test_no_revocation_is_taken_on_a_ledger_that_fell_behind_beneath_its_processes(house: House) -> None:
    _revocation(house)
    reached = house.database.write(next_number) - 1
    house.database.write(leave_behind)
    with pytest.raises(Unavailable, match="a revocation would end nothing"):
        _revocation(house)
    house.database.write(lambda c: c.execute(text(f"select setval('ledger_number_sequence', {reached})")).rowcount)
    _revocation(house)


@_ON_POSTGRESQL
def test_no_signal_is_taken_on_a_ledger_that_fell_behind_beneath_its_processes(house: House) -> None:
    """Every account would seem to have connected again since, and the sender sends it once."""
    house.connect("acme", "acme.service", credential=Credential.INSTALLATION)
    _done_step(house)
    house.database.write(leave_behind)
    gone = signal(Asks.REVOKE, Installation(id="1001"))
    with pytest.raises(Unavailable, match="a revocation would end nothing"):
        say(house, gone)


@_ON_POSTGRESQL
def test_no_provider_narrows_an_account_on_a_ledger_that_fell_behind_beneath_its_processes(house: House) -> None:
    """Its receipt would list no call, as each had opened at a higher number."""
    house.connect("acme", "acme.service", credential=Credential.INSTALLATION)
    account = house.database.read(lambda c: get_account(c, "acc-acme.service"))
    had = update(grants).where(grants.c.account_id == account.id).values(scopes=["issues:write"])
    house.database.write(lambda c: c.execute(had).rowcount)
    _done_step(house)
    house.database.write(leave_behind)
    with pytest.raises(Unavailable, match="a revocation would end nothing"):
        house.database.write(lambda c: rescope(c, account, ()))


@_ON_POSTGRESQL
@pytest.mark.parametrize(
    "mended",
    [
        "select setval('ledger_number_sequence', {}, false)",
        "alter sequence ledger_number_sequence restart with {}",
    ],
)
def test_one_that_was_mended_so_that_its_next_number_is_said_is_not_behind(house: House, mended: str) -> None:
    reached = house.database.write(next_number)
    _revocation(house)
    house.database.write(leave_behind)
    ahead = reached + 1000
    house.database.write(lambda c: c.execute(text(mended.format(ahead))).rowcount)
    assert house.database.read(behind) is None
    assert house.database.read(last_given) == ahead - 1
    assert house.database.write(next_number) == ahead


@_ON_POSTGRESQL
def test_whoever_may_not_look_at_the_sequence_does_not_say_that_it_is_behind(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    _revocation(house)

    def look(c: Connection) -> str | None:
        name = f"reader_{secrets.token_hex(4)}"
        for statement in (
            f"create role {name}",
            f"grant usage on schema public to {name}",
            f"grant select on all tables in schema public to {name}",
            f"grant update on ledger_number_sequence to {name}",
            f"set local role {name}",
        ):
            c.execute(text(statement))
        said = behind(c)
        c.execute(text("reset role"))
        c.execute(text(f"drop owned by {name}"))
        c.execute(text(f"drop role {name}"))
        return said

    assert house.database.write(look) is None
    assert "may not look at ledger_number_sequence" in caplog.text
