"""An account keeps some of its scopes: nothing is revoked, and what lacks one waits for consent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from identity.accounts.grants import get_grant, rotate, seal_answer
from identity.accounts.narrowing import Narrowed, narrow
from identity.accounts.states import get_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput
from identity.model import Credential, TokenAnswer
from identity.secret import Secret
from identity.tables import grants
from pipeline.db.database import Database
from pipeline.jobs.intents import Ended, Opened
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.steps.openings import open_attempt
from tests.ledger.acts import open_, until_awaited
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.ledgers import open_ledger


def _grant_scopes(house: House, *scopes: str) -> str:
    account = "acc-acme.ada"
    house.database.write(
        lambda c: c.execute(update(grants).where(grants.c.account_id == account).values(scopes=list(scopes))).rowcount
    )
    return account


def _narrow(house: House, account: str, *keep: str) -> Narrowed:
    return house.database.write(_narrowing(house, account, *keep))


def _narrowing(house: House, account: str, *keep: str) -> Callable[[Connection], Narrowed]:
    def write(c: Connection) -> Narrowed:
        now = datetime.now(UTC)
        act = Act(audit_id=audit_id, by="ops", now=now, why="less")
        return narrow(c, get_account(c, account), act, keep=keep)

    audit_id = house.ids("aud")
    return write


def test_a_step_that_lacks_a_scope_taken_away_waits_for_consent_and_nothing_is_revoked(house: House) -> None:
    account = _grant_scopes(house, "issues", "comments")
    assert _narrow(house, account, "comments").took == ("issues",)
    told = house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "account.narrowed")).one())
    assert (told.reason, told.detail) == ("by ops: less", {"had": ["issues", "comments"], "keeps": ["comments"]})
    running, queued = house.claim(house.job()), house.job()
    asked = intent(house, running)
    needs = replace(asked, lease=replace(asked.lease, scopes=frozenset({"issues"})))
    assert isinstance(open_(house, needs), Ended)
    assert (house.row(running.id).state, house.row(running.id).wait) == (JobState.WAITING, Wait.CONSENT)
    assert "issues" in house.row(running.id).reason
    other = intent(house, house.claim(queued))
    assert isinstance(open_(house, replace(other, lease=replace(other.lease, scopes=frozenset({"comments"})))), Opened)
    assert house.database.read(lambda c: c.execute(select(func.count()).select_from(revocations)).scalar_one()) == 0


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_beside_a_narrowing_waits_for_it_and_reads_what_is_left(house: House, ledger_url: str) -> None:
    """Else it would open by a scope whose taking away is committed before it. SQLite has one writer anyway."""
    account = _grant_scopes(house, "issues", "comments")
    asked = intent(house, house.claim(house.job()))
    needs = replace(asked, lease=replace(asked.lease, scopes=frozenset({"issues"})))
    second: Database = open_ledger(ledger_url)
    outcomes: list[Any] = []
    opener = threading.Thread(target=lambda: outcomes.append(second.write(partial(open_attempt, intent=needs))))
    until_awaited(house.database, _narrowing(house, account, "comments"), by=opener)
    second.close()
    (outcome,) = outcomes
    assert isinstance(outcome, Ended), outcome
    assert (house.row(asked.job.id).state, house.row(asked.job.id).wait) == (JobState.WAITING, Wait.CONSENT)


def test_a_refresh_does_not_widen_what_was_narrowed_and_a_consent_does(house: House) -> None:
    account = _grant_scopes(house, "issues", "comments")
    _narrow(house, account, "comments")
    answer = TokenAnswer(
        access_token=Secret("token"),
        refresh_token=None,
        expires_at=None,
        scopes=("issues", "comments"),
        token_type="bearer",
    )
    sealed = seal_answer(house.vault, answer, tenant="acme", account=account, provider="github", generation=2)
    assert house.database.write(
        lambda c: rotate(c, account, sealed, obtained_at=datetime.now(UTC), renewal_alone=False)
    )
    grant = house.database.read(lambda c: get_grant(c, account))
    assert grant is not None and grant.scopes == ("comments",)  # noqa: PT018 - for the type checker
    house.connect("acme", "acme.ada")
    assert (
        house.database.read(
            lambda c: c.execute(select(grants.c.ceiling).where(grants.c.account_id == account)).scalar_one()
        )
        is None
    )


def test_narrowing_cannot_add_and_must_take_something(house: House) -> None:
    account = _grant_scopes(house, "issues")
    with pytest.raises(BadInput, match="cannot add"):
        _narrow(house, account, "issues", "admin")
    with pytest.raises(BadInput, match="nothing to narrow"):
        _narrow(house, account, "issues")
    assert _narrow(house, account).took == ("issues",)
    for asked_for_by_scopes in (Credential.INSTALLATION, Credential.JWT_BEARER):
        house.connect("acme", "acme.ada", credential=asked_for_by_scopes)
        _grant_scopes(house, "issues")
        with pytest.raises(BadInput, match="stop or revoke it instead"):
            _narrow(house, account)
