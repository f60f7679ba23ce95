"""An installation that GitHub holds back, told by its API before its signal: its jobs are parked, and go on later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.audit.tables import audit
from identity.tables import accounts
from pipeline.model import DeliveryOutcome, SignedDelivery
from pipeline.states import AttemptState, JobState, StepState, Wait
from tests.tasks.in_process_system import InProcessSystem
from webhooks.sources import github_signals

AT = "installations/9001"
SERVICE = accounts.c.principal_id == "acme.service"


@pytest.fixture(autouse=True)
def _goes_on(system: InProcessSystem) -> Iterator[None]:
    """All tests share the pretend GitHub."""
    yield
    system.sandbox.order("github", f"{AT}/unsuspend", hold=True)


def state(system: InProcessSystem, principal: str = "acme.service") -> str:
    found = select(accounts.c.state).where(accounts.c.principal_id == principal, accounts.c.connection_id == "github")
    (row,) = system.rows(found)
    return str(row.state)


def hold(system: InProcessSystem, what: str) -> dict[str, Any]:
    """GitHub's delivery, which does not come yet."""
    made = system.sandbox.order("github", f"{AT}/{what}", hold=True)
    return system.held(made["deliveries"][0])


def tell(system: InProcessSystem, document: dict[str, Any]) -> None:
    delivery = SignedDelivery(
        source="github",
        connection="github",
        delivery_id=f"installation-{document['action']}",
        event="installation",
        body=b"{}",
        document=document,
        installation="9001",
        dedupe_by_body=False,
        signal=github_signals.signal("installation", document)[0],
    )
    system.runtime.intake.accept(delivery, [], outcome=DeliveryOutcome.IGNORED, reason="")


def test_a_call_that_is_answered_so_parks_its_job_on_the_account_until_the_suspension_ends(
    system: InProcessSystem,
) -> None:
    system.connect_engineer("acme", "ada")
    told = []
    # The token was minted before: only the call itself is told.
    system.when("before_call", 1, lambda: told.append(hold(system, "suspend")))
    system.pull("acme/shop", "ada", "bug")
    system.work_once()
    (job,) = system.jobs()
    assert (job.state, job.wait) == (JobState.WAITING, Wait.CONSENT)
    assert "suspended" in job.reason
    assert state(system) == "suspended"
    assert [(one.action, one.state) for one in system.steps()] == [("github.GetPull", StepState.OPEN)]
    assert [one.state for one in system.attempts()] == [AttemptState.NO_EFFECT]
    (row,) = system.rows(select(audit).where(audit.c.kind == "account.suspend"))
    assert (row.principal_id, row.detail["source"]) == ("acme.service", "answer")
    tell(system, told[0])  # late, and no news
    assert state(system) == "suspended"
    tell(system, hold(system, "unsuspend"))
    assert state(system) == "active"
    (job,) = system.settle()
    assert job.state == JobState.DONE


def test_an_answer_that_is_older_than_the_end_of_the_suspension_suspends_nothing(system: InProcessSystem) -> None:
    system.connect_engineer("acme", "ada")

    def suspended_until_just_now() -> None:
        hold(system, "suspend")
        said = update(accounts).where(SERVICE).values(suspension_said_at=datetime.now(UTC))
        system.runtime.database.write(lambda c: c.execute(said).rowcount)

    system.when("before_call", 1, suspended_until_just_now)
    system.pull("acme/shop", "ada", "bug")
    system.work_once()
    (job,) = system.jobs()
    assert (job.state, state(system)) == (JobState.QUEUED, "active")
    assert job.due_at - datetime.now(UTC) > timedelta(minutes=14)


def test_a_person_whose_call_is_answered_so_is_not_suspended_and_the_call_is_made_later(
    system: InProcessSystem,
) -> None:
    system.connect_engineer("acme", "ada")
    system.when("before_call", 3, lambda: hold(system, "suspend"))  # the comment, after the pull and the issue
    system.pull("acme/shop", "ada", "bug")
    system.work_once()
    (job,) = system.jobs()
    assert (job.state, state(system), state(system, "acme.ada")) == (JobState.QUEUED, "active", "active")
    assert "the app's installation is suspended" in job.reason
    hold(system, "unsuspend")
    (job,) = system.settle()
    assert job.state == JobState.DONE
