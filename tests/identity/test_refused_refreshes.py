"""The provider refuses: the grant, which then waits for a person, or our client, which pauses the connection."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from identity.accounts.inferred_death import infer_death
from identity.connect.consent_ledger import Consented
from identity.connections.registry import paused_reason, resume_connection
from identity.errors import AccountRefused, Misconfigured, ReauthRequired, Unavailable
from identity.metrics import REFRESHES
from identity.model import AccountState, Credential, Leased
from identity.refresh.story import latest_refresh, refused_accounts
from identity.refresh.tables import refresh_intents
from identity.tables import provider_connections
from tests.identity.coordinators import MakeCoordinator
from tests.identity.outdated import put_out_of_date
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.world import ANNA, ROBOT, World


def outcomes(name: str) -> float:
    return float(REFRESHES.labels("github", name)._value.get())


@pytest.mark.parametrize("code", ["invalid_grant", "bad_refresh_token"])
def test_a_dead_grant_waits_for_a_person(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, code: str
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": code})
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1)
    grant = connected.grant()
    assert (grant.generation, grant.access_sealed, grant.refresh_sealed) == (2, None, None)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    connected.consent()
    assert isinstance(connected.examine(), Leased)
    assert connected.generation() == 3


def test_a_dead_grant_is_refused_by_its_row_however_often_it_is_asked_for(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_grant"}, 400)
    points: list[str] = []
    coordinator = make_coordinator(reached=points.append)
    for _ in range(20):
        with pytest.raises(ReauthRequired):
            coordinator.refresh(account, after_generation=connected.generation())
    assert provider.presented.total() == 1
    assert points.count("after_lock") == 1


def test_a_refusal_of_an_older_generation_is_no_death(connected: World, make_coordinator: MakeCoordinator) -> None:
    account = connected.consent()
    assert make_coordinator().refresh(account, after_generation=1) == 2

    def infer(generation: int) -> bool:
        audit_id, now = connected.id(), connected.clock.now
        return connected.store.write(
            lambda connection: infer_death(connection, account, generation=generation, audit_id=audit_id, now=now)
        )

    assert not infer(1)
    assert connected.state() is AccountState.ACTIVE
    assert infer(2)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert connected.audited("grant.refused") == 1
    assert not infer(2)


def test_a_refused_client_pauses_the_connection_and_touches_no_grant(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "incorrect_client_credentials"})
    with pytest.raises(Misconfigured):
        make_coordinator().refresh(account, after_generation=1)
    assert connected.state() is AccountState.ACTIVE
    assert connected.generation() == 1
    assert connected.store.read(lambda connection: paused_reason(connection, "forge"))
    assert make_coordinator().refresh(account, after_generation=1) == 1  # what still lives is served
    with pytest.raises(Misconfigured, match="paused"):
        make_coordinator().refresh(account, after_generation=1, refused=True)
    connected.clock.advance(timedelta(hours=1))
    with pytest.raises(Misconfigured, match="paused"):
        make_coordinator().refresh(account, after_generation=1)
    assert provider.presented.total() == 1


def test_an_answer_to_what_was_asked_before_a_resume_pauses_nothing_again(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    """The operator has mended it at the provider meanwhile: what was asked since is what counts."""
    account = connected.consent()
    provider.refuse_client_after(lambda: connected.store.write(lambda c: resume_connection(c, "forge")))
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert connected.audited("connection.paused") == 0
    provider.answer = lambda form: reply({"error": "incorrect_client_credentials"})
    with pytest.raises(Misconfigured):
        make_coordinator().refresh(account, after_generation=2)
    assert connected.store.read(lambda connection: paused_reason(connection, "forge"))


def test_a_refusal_of_the_client_before_a_correction_does_not_pause_the_one_after(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    """The request was made before the correction, and its intent has a number after it."""
    account = connected.consent()
    correct = update(provider_connections).values(client_id="right")
    provider.refuse_client_after(lambda: connected.store.write(lambda c: c.execute(correct).rowcount))
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert provider.forms[-1]["client_id"] == "right"
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert connected.audited("connection.paused") == 0


def test_messages_name_no_secret(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_grant", "error_description": "refresh-0 client-canary"})
    with pytest.raises(ReauthRequired) as error:
        make_coordinator().refresh(account, after_generation=1)
    assert "refresh-0" not in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "answer", [reply({"error": "unauthorized_client"}, 400), reply({}, 401), reply({"error": "invalid_scope"}, 400)]
)
def test_what_may_be_one_accounts_fault_pauses_nobody_else(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, answer: Reply
) -> None:
    """A server of many organisations says the first of one whose admin has removed the client there."""
    anna = connected.consent()
    other = connected.try_consent(ROBOT, tokens=("access-9", "refresh-9"))
    assert isinstance(other, Consented)
    granted = provider.answer
    provider.answer = lambda form: answer if form["refresh_token"] == "refresh-0" else granted(form)
    before = outcomes("account_refused")
    assert make_coordinator().refresh(anna, after_generation=1) == 1  # what lives is served
    with pytest.raises(AccountRefused) as waits:
        make_coordinator().refresh(anna, after_generation=1, refused=True)
    assert waits.value.retry_after == timedelta(minutes=1)
    story = connected.store.read(lambda connection: latest_refresh(connection, anna))
    assert story is not None
    assert "asked again by itself" in (story.next or "")
    (refused,) = connected.store.read(partial(refused_accounts, since=connected.clock.now - timedelta(days=1)))
    assert (refused.account, refused.number) == (anna, 1)
    connected.clock.advance(timedelta(minutes=1))
    with pytest.raises(Misconfigured, match=r"may have there what it asks for|client_secret .* is wrong, or a gateway"):
        make_coordinator().refresh(anna, after_generation=1, refused=True)
    connected.clock.advance(timedelta(minutes=1))
    with pytest.raises(AccountRefused):  # and longer each time
        make_coordinator().refresh(anna, after_generation=1, refused=True)
    assert outcomes("account_refused") - before == 2
    assert connected.state() is AccountState.ACTIVE
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert make_coordinator().refresh(other.account, after_generation=1) == 2


def test_a_401_without_a_name_that_stays_and_is_told_to_another_account_too_pauses_the_connection(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    """Once it may be a gateway's. If nothing is given meanwhile, it is the secret, and its operator is told."""
    anna = connected.consent()
    other = connected.try_consent(ROBOT, tokens=("access-9", "refresh-9"))
    assert isinstance(other, Consented)
    provider.answer = lambda form: reply({}, 401)

    def refuse(account: str) -> None:
        with pytest.raises(Misconfigured):
            make_coordinator().refresh(account, after_generation=1, refused=True)
        reworded = update(refresh_intents).values(outcome="in the words of another version")
        connected.store.write(lambda c: c.execute(reworded).rowcount)

    def paused() -> str | None:
        return connected.store.read(lambda connection: paused_reason(connection, "forge"))

    refuse(anna)
    connected.clock.advance(timedelta(minutes=1))
    refuse(anna)
    refuse(other.account)
    assert paused() is None, "each may be a gateway's, or one account's"
    connected.clock.advance(timedelta(minutes=2))
    refuse(anna)
    assert paused() is not None
    assert connected.state() is AccountState.ACTIVE


def test_where_another_account_got_a_token_since_a_401_without_a_name_pauses_nothing(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    anna = connected.consent()
    other = connected.try_consent(ROBOT, tokens=("access-9", "refresh-9"))
    assert isinstance(other, Consented)
    granted, provider.answer = provider.answer, lambda form: reply({}, 401)
    for account in (other.account, anna):
        with pytest.raises(Misconfigured):
            make_coordinator().refresh(account, after_generation=1, refused=True)
    connected.clock.advance(timedelta(minutes=2))
    provider.answer = granted
    assert make_coordinator().refresh(other.account, after_generation=1) == 2
    provider.answer = lambda form: reply({}, 401)
    with pytest.raises(Misconfigured):
        make_coordinator().refresh(anna, after_generation=1, refused=True)
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def test_a_401_without_a_name_that_stays_pauses_the_connection_of_what_the_client_mints(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    robot = connected.service(Credential.CLIENT_CREDENTIALS)
    provider.answer = lambda form: reply({}, 401)
    for paused in (False, True):
        with pytest.raises(Misconfigured):
            make_coordinator().refresh(robot, after_generation=1)
        assert (connected.store.read(lambda connection: paused_reason(connection, "forge")) is not None) == paused
        connected.clock.advance(timedelta(minutes=1))


@pytest.mark.parametrize("answer", [reply({}, 401), reply({"error": "access_denied"}, 400)])
def test_what_is_refused_first_after_an_outage_is_asked_again_after_a_minute(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, answer: Reply
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({}, 503)
    for _ in range(5):
        with pytest.raises(Unavailable):
            make_coordinator().refresh(account, after_generation=1, refused=True)
        connected.clock.advance(timedelta(minutes=1))
    granted, provider.answer = provider.rotate, lambda form: answer
    with pytest.raises(Misconfigured):
        make_coordinator().refresh(account, after_generation=1, refused=True)
    connected.clock.advance(timedelta(minutes=1))
    provider.answer = granted
    assert make_coordinator().refresh(account, after_generation=1, refused=True) == 2


def test_a_count_that_was_taken_back_too_often_keeps_no_answer_unread(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "unauthorized_client"}, 400)
    for _ in range(2):
        with pytest.raises(Misconfigured):
            make_coordinator().refresh(account, after_generation=1, refused=True)
        connected.store.write(lambda c: c.execute(update(refresh_intents).values(presented=-1)).rowcount)
        connected.clock.advance(timedelta(minutes=1))


@pytest.mark.parametrize("wants", [True, False])
def test_a_provider_that_wants_the_person_ahead_of_need_is_asked_again_when_the_token_has_ended(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, wants: bool
) -> None:
    """As when an admin turns on a policy at noon: each token is good until evening, and the policy may go again."""
    account, granted = connected.consent(), provider.answer
    provider.answer = lambda form: reply({"error": "login_required"}, 400)
    for _ in range(3):
        assert make_coordinator().refresh(account, after_generation=1) == 1
        connected.clock.advance(timedelta(minutes=10))
    assert connected.state() is AccountState.ACTIVE
    assert provider.presented.total() == 1
    story = connected.store.read(lambda connection: latest_refresh(connection, account))
    assert story is not None
    assert (story.next or "").startswith("let the person connect the account again, before its present token ends")
    connected.clock.advance(timedelta(hours=1))
    if wants:
        with pytest.raises(ReauthRequired, match="login_required"):
            make_coordinator().refresh(account, after_generation=1)
        assert connected.state() is AccountState.NEEDS_RECONNECT
    else:
        provider.answer = granted
        assert make_coordinator().refresh(account, after_generation=1) == 2


def test_a_token_that_an_upstream_refuses_is_waited_for_no_longer_where_the_person_is_wanted(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "login_required"}, 400)
    assert make_coordinator().refresh(account, after_generation=1) == 1
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1, refused=True)
    assert connected.state() is AccountState.NEEDS_RECONNECT


def test_a_token_that_a_signal_drops_is_waited_for_no_longer_where_the_person_is_wanted(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "interaction_required"}, 400)
    assert make_coordinator().refresh(account, after_generation=1) == 1
    assert put_out_of_date(connected, ANNA)
    with pytest.raises(ReauthRequired, match="interaction_required"):
        make_coordinator().refresh(account, after_generation=1)
    assert connected.state() is AccountState.NEEDS_RECONNECT


@pytest.mark.parametrize("code", ["interaction_required", "login_required", "consent_required"])
def test_a_provider_that_wants_the_person_is_given_the_person(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, code: str
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": code}, 400)
    with pytest.raises(ReauthRequired, match=code):
        make_coordinator().refresh(account, after_generation=1, refused=True)
    grant = connected.grant()
    assert (grant.generation, grant.refresh_sealed is None) == (1, False)  # what a revocation would end there
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert connected.audited("grant.needs_person") == 1
    story = connected.store.read(lambda connection: latest_refresh(connection, account))
    assert story is not None
    assert (story.why, story.next) == (code, "let the person connect the account again")
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1)
    assert provider.presented.total() == 1
    connected.consent()
    assert isinstance(connected.examine(), Leased)
