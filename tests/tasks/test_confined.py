"""An action that says its repository is done by an installation token for that one and that permission."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from deploy.trial.passing import time_passes
from identity.accounts.grants import ACCESS, token_binding
from identity.accounts.states import Account, get_account
from identity.connections.registry import get_connection, pause_connection, resume_connection
from identity.keys.vault import Binding
from identity.minting.tables import mints
from identity.model import Credential, ScopeKind
from identity.refresh.tables import refresh_intents
from identity.secret import Secret
from identity.token_endpoint.gate import Endpoint
from identity.withdrawals.held_tokens import HeldToken, keep_token
from identity.withdrawals.tables import withdrawals
from pipeline.revocation.tables import revocations
from pipeline.states import AttemptState, JobState
from tasks.actions import github
from tests.sandbox.driver import Sandbox
from tests.tasks.in_process_system import InProcessSystem
from tests.tasks.tools import ask

MINTS = "/access_tokens"


@pytest.fixture
def agents(_upstreams: Sandbox, _furnished: Path, tmp_path: Path) -> Iterator[InProcessSystem]:
    """A worker's runtime that also knows the tools."""
    shutil.copy(_furnished, tmp_path / "ledger.sqlite")
    made = InProcessSystem(_upstreams, f"sqlite:///{tmp_path}/ledger.sqlite", workflows=("tasks.actions.github",))
    yield made
    made.close()
    forget_faults(made)


def forget_faults(system: InProcessSystem) -> None:
    system.sandbox.http.delete(system.sandbox.url("github", "/_sandbox/faults"))


def entries(system: InProcessSystem, ending: str) -> list[Mapping[str, Any]]:
    log: list[Mapping[str, Any]] = system.sandbox.read("github", "log")
    return [one for one in log if one["path"].endswith(ending)]


def test_an_installations_token_is_for_the_one_repository_and_is_kept_for_the_next_step(
    agents: InProcessSystem,
) -> None:
    system = agents
    number = system.pull("acme/shop", "grace")
    asked, before = len(entries(system, MINTS)), len(entries(system, "/labels"))
    for job, label in (("job_1", "bug"), ("job_2", "later")):
        ask(system, job, github.AddLabels(repo="acme/shop", number=number, labels=(label,)))
        system.settle()
    assert {row.state for row in system.jobs() if row.id in ("job_1", "job_2")} == {JobState.DONE}
    labelled = entries(system, "/labels")[before:]
    assert len({one["token_fingerprint"] for one in labelled}) == 1
    minted = entries(system, MINTS)[asked:]
    assert len(minted) == 2, "the account's own, and one for the repository"
    first, second = system.attempts()
    assert [first.state, second.state] == [AttemptState.EFFECT] * 2
    assert [one["attempt"] for one in labelled] == [first.id, second.id]
    # GitHub's log says by which refresh, and by which mint, each came.
    (intent,) = system.rows(select(refresh_intents.c.id).where(refresh_intents.c.presented > 0))
    (mint,) = system.rows(select(mints))
    assert [one["refresh"] for one in minted] == [intent.id, mint.id]
    assert (mint.repository, mint.scopes, mint.outcome) == ("acme/shop", ["issues:write"], "granted")


def test_while_its_connection_is_paused_a_step_that_needs_a_new_one_waits_and_spends_no_try(
    agents: InProcessSystem,
) -> None:
    system, number = agents, labelled(agents)
    database = system.runtime.database
    database.write(lambda c: pause_connection(c, "github", reason="told so"))
    ask(system, "job_kept", github.AddLabels(repo="acme/shop", number=number, labels=("later",)))
    system.settle()
    assert len(system.attempts()) == 2, "the token that was minted before the pause lives"
    ask(
        system,
        "job_new",
        github.AddLabels(repo="acme/infra", number=system.pull("acme/infra", "grace"), labels=("bug",)),
    )
    for _ in range(5):
        system.work_once()
        database.write(time_passes)
    (waiting,) = (row for row in system.jobs() if row.id == "job_new")
    assert (waiting.state, len(system.attempts())) == (JobState.QUEUED, 2)
    assert "paused: told so" in waiting.reason
    database.write(lambda c: resume_connection(c, "github"))
    system.settle()
    assert [attempt.state for attempt in system.attempts()] == [AttemptState.EFFECT] * 3


def test_while_its_token_endpoint_is_left_alone_a_step_that_needs_a_new_one_waits_and_spends_no_try(
    agents: InProcessSystem,
) -> None:
    system, number = agents, labelled(agents)
    elsewhere = system.pull("acme/infra", "grace")
    owner = system.runtime.database.read(lambda c: get_connection(c, "github"))
    system.runtime.gate.pause(Endpoint.of(owner, Credential.INSTALLATION), timedelta(hours=1))
    ask(system, "job_kept", github.AddLabels(repo="acme/shop", number=number, labels=("later",)))
    system.settle()
    assert len(system.attempts()) == 2, "the token that was minted before lives"
    ask(system, "job_new", github.AddLabels(repo="acme/infra", number=elsewhere, labels=("bug",)))
    system.work_once()
    (waiting,) = (row for row in system.jobs() if row.id == "job_new")
    assert (waiting.state, len(system.attempts())) == (JobState.QUEUED, 2)
    assert "held back for now" in waiting.reason
    assert waiting.due_at - datetime.now(UTC) > timedelta(minutes=50)


def test_an_endpoint_that_is_left_alone_once_the_accounts_own_token_was_renewed_costs_no_try(
    agents: InProcessSystem,
) -> None:
    number = agents.pull("acme/shop", "grace")
    owner = agents.runtime.database.read(lambda c: get_connection(c, "github"))
    to = Endpoint.of(owner, Credential.INSTALLATION)
    agents.when("after_refresh_commit", 1, lambda: agents.runtime.gate.pause(to, timedelta(hours=1)))
    ask(agents, "job_1", github.AddLabels(repo="acme/shop", number=number, labels=("bug",)))
    agents.work_once()
    (waiting,) = (row for row in agents.jobs() if row.id == "job_1")
    assert (waiting.state, agents.attempts()) == (JobState.QUEUED, [])
    assert "held back for now" in waiting.reason
    assert waiting.due_at - datetime.now(UTC) > timedelta(minutes=50)


def test_while_its_token_endpoint_fails_a_step_that_needs_a_new_one_waits_and_spends_no_try(
    agents: InProcessSystem,
) -> None:
    labelled(agents)
    number = agents.pull("acme/infra", "grace")
    agents.sandbox.order("github", "faults", endpoint="access_tokens", mode="status", status=503, times=30)
    asked = len(entries(agents, MINTS))
    ask(agents, "job_new", github.AddLabels(repo="acme/infra", number=number, labels=("bug",)))
    for _ in range(4):
        agents.work_once()
        agents.runtime.database.write(time_passes)
    forget_faults(agents)
    (waiting,) = (row for row in agents.jobs() if row.id == "job_new")
    assert (waiting.state, len(agents.attempts())) == (JobState.QUEUED, 1)
    assert "no token for acme/infra alone: status 503" in waiting.reason
    agents.settle()
    assert [attempt.state for attempt in agents.attempts()] == [AttemptState.EFFECT] * 2
    assert [one["status"] for one in entries(agents, MINTS)[asked:]] == [503] * 4 + [201]


def test_a_step_whose_token_endpoint_answers_what_nobody_knows_ends_with_its_tries(agents: InProcessSystem) -> None:
    labelled(agents)
    number = agents.pull("acme/infra", "grace")
    agents.sandbox.order("github", "faults", endpoint="access_tokens", mode="status", status=418, times=300)
    ask(agents, "job_new", github.AddLabels(repo="acme/infra", number=number, labels=("bug",)))
    agents.settle()
    (ended,) = (row for row in agents.jobs() if row.id == "job_new")
    assert ended.state == JobState.DEAD
    tried = [attempt for attempt in agents.attempts() if attempt.state == AttemptState.NO_EFFECT]
    assert len(tried) == 4
    assert all(one.error.startswith("no token for acme/infra alone: unrecognised error") for one in tried)


def test_a_write_to_a_repository_outside_the_installation_fails_at_once_and_says_why(agents: InProcessSystem) -> None:
    ask(agents, "job_1", github.AddLabels(repo="acme/elsewhere", number=1, labels=("bug",)))
    agents.settle()
    (attempt,) = agents.attempts()
    assert (attempt.state, agents.jobs()[-1].state) == (AttemptState.NO_EFFECT, JobState.DEAD)
    assert "no token for acme/elsewhere alone: 422" in attempt.error
    assert not [one for one in entries(agents, "/labels") if one["attempt"] == attempt.id]


def test_a_write_to_another_owners_repository_that_has_the_name_of_one_of_the_installations_is_not_sent(
    agents: InProcessSystem,
) -> None:
    ask(agents, "job_1", github.AddLabels(repo="globex/shop", number=1, labels=("bug",)))
    agents.settle()
    (attempt,) = agents.attempts()
    assert (attempt.state, agents.jobs()[-1].state) == (AttemptState.NO_EFFECT, JobState.DEAD)
    assert "no token for globex/shop alone: the one that was given is not for it alone" in attempt.error
    assert entries(agents, "/repos/globex/shop/issues/1/labels") == []


def test_a_read_of_another_owners_repository_that_has_the_name_of_one_of_the_installations_is_by_the_accounts_own_token(
    agents: InProcessSystem,
) -> None:
    ask(agents, "job_1", github.GetPull(repo="globex/shop", number=1))
    agents.settle()
    (attempt,) = agents.attempts()
    (read,) = (one for one in entries(agents, "/repos/globex/shop/pulls/1") if one["attempt"] == attempt.id)
    own, other = entries(agents, MINTS)[-2:]
    assert (other["status"], read["token_fingerprint"]) == (201, own["issued"])


def test_a_read_of_a_repository_outside_the_installation_is_done_by_the_accounts_own_token(
    agents: InProcessSystem,
) -> None:
    ask(agents, "job_1", github.GetPull(repo="globex/site", number=1))
    agents.settle()
    (attempt,) = agents.attempts()
    assert (attempt.state, attempt.status) == (AttemptState.NO_EFFECT, 404)
    assert agents.jobs()[-1].state == JobState.DEAD
    (read,) = (one for one in entries(agents, "/repos/globex/site/pulls/1") if one["attempt"] == attempt.id)
    own, refused = entries(agents, MINTS)[-2:]
    assert (refused["attempt"], refused["status"]) == (None, 422)
    assert read["token_fingerprint"] == own["issued"]


def test_a_repository_that_was_out_of_reach_is_read_without_asking_again_while_the_endpoint_is_left_alone(
    agents: InProcessSystem,
) -> None:
    ask(agents, "job_1", github.GetPull(repo="globex/site", number=1))
    agents.settle()
    asked = len(entries(agents, MINTS))
    owner = agents.runtime.database.read(lambda c: get_connection(c, "github"))
    agents.runtime.gate.pause(Endpoint.of(owner, Credential.INSTALLATION), timedelta(hours=1))
    ask(agents, "job_2", github.GetPull(repo="Globex/Site", number=1))
    agents.work_once()
    assert [row.status for row in agents.attempts()] == [404, 404]
    assert len(entries(agents, MINTS)) == asked


def secret_of(system: InProcessSystem, row: Any) -> str:
    """The token of a withdrawal's row, as a thief would have it."""
    account = system.runtime.database.read(lambda c: get_account(c, row.account_id))
    return system.runtime.vault.open(row.access_sealed, place_of(account, row.generation)).reveal()


def place_of(account: Account, generation: int) -> Binding:
    return token_binding(account.key.tenant, account.id, account.provider, ACCESS, generation)


def confined(system: InProcessSystem) -> Any:
    """What the ledger holds of the one token that was minted for a repository."""
    (row,) = system.rows(select(withdrawals).where(withdrawals.c.origin == "confined"))
    return row


def labelled(system: InProcessSystem) -> int:
    """A step is done by a confined token; the number of the pull request it labelled."""
    number = system.pull("acme/shop", "grace")
    ask(system, "job_1", github.AddLabels(repo="acme/shop", number=number, labels=("bug",)))
    system.settle()
    assert [attempt.state for attempt in system.attempts()] == [AttemptState.EFFECT]
    return number


def revoke_installation(system: InProcessSystem, row: Any) -> None:
    """Its account alone: the sandbox is everybody's, and its other credentials are still wanted."""
    account = system.runtime.database.read(lambda c: get_account(c, row.account_id))
    system.revoke(ScopeKind.ACCOUNT, str(account.key), "acme")


def calls(system: InProcessSystem, token: str, method: str, path: str, **body: Any) -> int:
    """What the sandbox answers to whoever has stolen the token."""
    headers = {"authorization": f"Bearer {token}"}
    return system.sandbox.http.request(
        method, system.sandbox.url("github", path), headers=headers, json=body
    ).status_code


def test_a_stolen_confined_token_reaches_no_other_repository_and_has_no_other_permission(
    agents: InProcessSystem,
) -> None:
    number = labelled(agents)
    token = secret_of(agents, confined(agents))
    shop = f"/repos/acme/shop/issues/{number}/labels"
    assert calls(agents, token, "POST", shop, labels=["again"]) == 200
    assert calls(agents, token, "GET", "/repos/acme/infra") == 404
    assert calls(agents, token, "POST", "/repos/acme/infra/issues", title="elsewhere") == 404
    assert calls(agents, token, "GET", f"/repos/acme/shop/pulls/{number}") == 403


def test_a_read_is_done_by_a_token_that_reads_no_other_repository_and_writes_nothing(agents: InProcessSystem) -> None:
    number, elsewhere = agents.pull("acme/shop", "grace"), agents.pull("acme/infra", "grace")
    ask(agents, "job_1", github.GetPull(repo="acme/shop", number=number))
    ask(agents, "job_2", github.ListPulls(repo="acme/shop"))
    agents.settle()
    assert {row.state for row in agents.jobs() if row.id in ("job_1", "job_2")} == {JobState.DONE}
    token = secret_of(agents, confined(agents))
    assert calls(agents, token, "GET", f"/repos/acme/shop/pulls/{number}") == 200
    assert calls(agents, token, "GET", f"/repos/acme/infra/pulls/{elsewhere}") == 404
    assert calls(agents, token, "POST", f"/repos/acme/shop/issues/{number}/labels", labels=["bug"]) == 403


def test_a_revocation_ends_a_confined_token_at_github_and_the_receipt_says_so(agents: InProcessSystem) -> None:
    number = labelled(agents)
    row = confined(agents)
    token = secret_of(agents, row)
    assert row.state == "held"
    revoke_installation(agents, row)
    (made,) = agents.rows(select(revocations))
    assert agents.runtime.revoker.advance(made.id)
    assert calls(agents, token, "POST", f"/repos/acme/shop/issues/{number}/labels", labels=["again"]) == 401
    row = confined(agents)
    assert (row.state, row.access_sealed, row.revocation_id) == ("done", None, made.id)
    (receipt,) = agents.rows(select(revocations.c.receipt))
    assert [one["answer"] for one in receipt.receipt["provider"]["accounts"] if one["of"] == "confined"] == ["done"]


def test_a_confined_token_that_was_minted_while_its_account_was_revoked_is_not_used_and_ends(
    agents: InProcessSystem,
) -> None:
    labelled(agents)
    row = confined(agents)
    account = agents.runtime.database.read(lambda c: get_account(c, row.account_id))
    revoke_installation(agents, row)
    (made,) = agents.rows(select(revocations))
    assert agents.runtime.revoker.advance(made.id)
    late = HeldToken(
        id="wit_late",
        account=account,
        generation=row.generation,
        consented=row.consented,
        access_sealed=agents.runtime.vault.seal(Secret("ghs_late"), place_of(account, row.generation)),
        expires_at=row.expires_at,
    )
    assert not agents.runtime.database.write(partial(keep_token, new=late, now=datetime.now(UTC)))
    assert agents.runtime.asker.due() == [made.id]
    agents.runtime.revoker.advance(made.id)
    (said,) = agents.rows(select(withdrawals).where(withdrawals.c.id == "wit_late"))
    assert said.revocation_id == made.id
    assert agents.runtime.asker.due() == []
