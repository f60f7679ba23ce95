"""An agent asks for one invoice by the API: its policy is that of background work, and a trial knows what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from identity.audit import Act
from identity.policy.file import read_policy
from identity.policy.ledger import apply_policy
from identity.policy.rules import FACTS_ALONE
from pipeline.policy.trial import compare, stored_cases
from pipeline.states import JobState
from tasks.actions.invoices import GetInvoice
from tests.ledgers import MOSTLY_SQLITE
from tests.payments.conftest import at_work
from tests.payments.payments import SMALL
from tests.sandbox.driver import Sandbox
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.tools import ask

pytestmark = MOSTLY_SQLITE

NOT_IN_THE_BACKGROUND = (
    'format = 1\n[[rule]]\nname = "people only"\nwhen = { trigger = "background" }\ndeny = "no person asked"\n'
)


@pytest.fixture
def agents(_service: Sandbox, ledger_url: str) -> Iterator[InProcessSystem]:
    """A worker's runtime that knows the invoices as tools, and no workflow that uses them."""
    with at_work(_service, ledger_url, workflows=("tasks.actions.invoices",)) as system:
        yield system


def test_a_trial_knows_that_a_tools_upstream_takes_capabilities_though_no_workflow_uses_it(
    agents: InProcessSystem,
) -> None:
    ask(agents, "job_1", GetInvoice(id=SMALL))
    (job,) = agents.settle()
    assert job.state == JobState.DONE, job.reason
    lately, forbidding = datetime.now(UTC) - timedelta(days=1), read_policy(NOT_IN_THE_BACKGROUND)
    trial = agents.runtime.database.read(
        lambda c: compare(stored_cases(c, agents.registry, "acme", since=lately), FACTS_ALONE, forbidding)
    )
    (change,) = trial.changes
    assert (change.before, change.after.partition(":")[0]) == ("as service, capability", "refused")


def test_what_an_agent_asks_for_counts_as_background_work(agents: InProcessSystem) -> None:
    aud, now = agents.runtime.ids("aud"), datetime.now(UTC)
    agents.runtime.database.write(
        lambda c: apply_policy(c, "acme", NOT_IN_THE_BACKGROUND, Act(audit_id=aud, by="cli:test", now=now), over=None)
    )
    ask(agents, "job_1", GetInvoice(id=SMALL))
    (job,) = agents.settle()
    assert job.state == JobState.DEAD
    assert "'people only' forbids invoices.GetInvoice: no person asked" in job.reason
