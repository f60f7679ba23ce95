"""What a job comes to whose step the rule refused: on whose page it is, and what is said of a step that is done."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import func, select

from identity.accounts.scopes import remember_stop
from identity.model import Scope, ScopeKind
from pipeline.jobs.intents import Ended, Intent
from pipeline.revocation.tables import revocation_pages
from pipeline.states import AttemptState, JobState, Purpose, StepState
from tests.ledger.acts import audit_kinds, close, open_, revoke, step_state
from tests.ledger.house import House, account_scope, intent_of

GITHUB = Scope(kind=ScopeKind.CONNECTION, key="gh")


def _stop(house: House) -> None:
    house.database.write(partial(remember_stop, scope=GITHUB, stopped=True))


def _pages(house: House) -> int:
    return house.database.read(lambda c: c.execute(select(func.count()).select_from(revocation_pages)).scalar_one())


def test_a_job_that_a_stop_ends_is_on_no_page_of_a_revocation_before_it(house: House) -> None:
    """A stop revokes nothing: such a job can be replayed, and is not undone."""
    revoke(house, GITHUB)
    house.connect("acme", "acme.ada")
    asked = intent_of(house, house.claim(house.job()))
    _stop(house)
    assert isinstance(open_(house, asked), Ended)
    row = house.row(asked.job.id)
    assert (row.state, row.reason, row.revocation_id) == (JobState.CANCELLED, f"{GITHUB} is stopped", None)
    assert _pages(house) == 0


def test_a_job_is_on_the_page_of_a_revocation_since_though_its_scope_was_stopped_too(house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    made = revoke(house, GITHUB)
    _stop(house)
    assert isinstance(open_(house, asked), Ended)
    assert (house.row(asked.job.id).revocation_id, _pages(house)) == (made, 1)


def _done_late(house: House) -> Intent:
    """A step that a search found done while its job was on its way to a further call."""
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    look = intent_of(house, asked.job, step=asked.step, purpose=Purpose.PROBE, again=True, repeats_unknown=True)
    open_(house, look)
    close(house, look, AttemptState.NO_EFFECT, StepState.DONE, result={"id": "9"}, resolves=AttemptState.ADOPTED)
    return asked


@pytest.mark.parametrize(
    ("scope", "may_skip", "ends"),
    [
        (account_scope(), False, JobState.CANCELLED),
        (account_scope(), True, JobState.QUEUED),
        (Scope(kind=ScopeKind.TENANT, key="acme"), True, JobState.CANCELLED),
    ],
)
def test_a_step_that_is_done_as_the_rule_refuses_it_stays_done_and_is_not_said_to_be_unknown(
    house: House, scope: Scope, may_skip: bool, ends: JobState
) -> None:
    asked = _done_late(house)
    revoke(house, scope)
    again = intent_of(house, asked.job, step=asked.step, again=True, may_skip=may_skip)
    outcome = open_(house, again)
    assert isinstance(outcome, Ended)
    assert (outcome.moved, house.row(asked.job.id).state) == (ends, ends)
    assert step_state(house, asked.step) == StepState.DONE
    assert not {"step.given_up", "step.refused", "step.skipped"} & set(audit_kinds(house))
