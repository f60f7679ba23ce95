"""What is told of a job's steps: as whom, when, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from deploy.installation import Installation
from deploy.settings import load
from identity.model import AccountKey
from pipeline.jobs import awaited, claims
from pipeline.jobs.calls import word_wanted
from pipeline.states import Purpose, Wait
from pipeline.steps import stored as ledger_steps
from pipeline.tables import attempts, steps
from tests.deploy.conftest import Cli
from tests.ledger.acts import done, open_
from tests.ledger.house import HOLD, House, intent_of


@pytest.fixture
def at(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """The ledger that the commands read."""
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.ledger.house")
    with Installation(load(data_dir=cli.data_dir)) as opened:
        yield opened


@pytest.fixture
def house(at: Installation) -> House:
    made = House(at.ledger)
    made.build()
    return made


def test_a_sleep_is_as_nobody(cli: Cli, house: House) -> None:
    job = house.claim(house.job())
    sleep = partial(ledger_steps.sleep, job=job, step="step_1", position=1, occurrence=1, request_hash="x")
    house.database.write(partial(sleep, duration=timedelta(days=3)))
    told = [line.split() for line in cli("jobs", "show", job.id).output.splitlines()]
    assert ["1", "run.sleep", "nobody", "open", "the", "workflow", "sleeps"] in told
    assert "1 run.sleep as nobody: open" in cli("tail", job.id, "--timeout", "0").output
    assert "step 1, run.sleep: as nobody\n" in cli("policy", "explain", job.id).output


def test_a_job_that_waits_for_a_consent_says_how_its_link_is_had(cli: Cli, house: House) -> None:
    job = house.claim(house.job())
    park = partial(claims.park, job=job, wait=Wait.CONSENT, due_in=HOLD, expires_in=HOLD, reason="it needs a consent")
    of_ada = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
    house.database.write(partial(park, waits_for=awaited.consent_of(of_ada)))
    told = cli("jobs", "show", job.id).output
    assert "It waits for a consent: `aswhom accounts reconnect acme/gh/acme.ada` prints the link for it." in told
    assert cli.json("accounts", "show", "acme/gh/acme.ada")["principal_id"] == "acme.ada"  # it is named so there, too


def test_what_is_told_of_an_unanswered_call_does_not_send_to_where_it_is_told(cli: Cli, house: House) -> None:
    job = house.claim(house.job())
    park = partial(claims.park, job=job, wait=Wait.UNKNOWN, waits_for=None, due_in=HOLD, expires_in=HOLD)
    house.database.write(partial(park, reason=f"no answer: {word_wanted('github')}"))
    told = cli("jobs", "show", job.id).output
    assert "Because: no answer: look at github, then say what became of it\n" in told
    assert "`aswhom jobs show ID` tells" in cli("jobs", "list").output


def test_what_the_service_did_was_done_as_the_service(cli: Cli, house: House) -> None:
    job = house.claim(house.job())
    asked = intent_of(house, job)
    open_(house, asked)
    done(house, asked)
    as_service = update(steps).values(principal_id="acme.service")
    house.database.write(lambda c: c.execute(as_service).rowcount)
    cancel = partial(claims.cancel, job=job, reason="enough")
    house.database.write(cancel)
    assert "  step 1, github.Say, took effect, as the service.\n" in cli("jobs", "show", job.id).output


def test_a_read_before_a_replay_is_not_told_as_the_effect_of_what_its_step_asks_for_now(cli: Cli, house: House) -> None:
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    done(house, asked)
    assert "read before" not in cli("jobs", "show", asked.job.id).output
    house.database.write(lambda c: c.execute(update(attempts).values(purpose=Purpose.READ_BEFORE)).rowcount)
    assert "effect (read before the replay)" in cli("jobs", "show", asked.job.id).output
