"""Client secrets rotate with overlap: two live, a switch date, and the refused one gives way to the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from identity.audit.tables import audit
from identity.connections.registry import paused_reason, resume_connection
from identity.connections.secrets import (
    CLIENT_SECRET,
    SealedSecret,
    live_secrets,
    retire_secret,
    rotate_secret,
    seal_secret,
)
from identity.errors import AccountRefused, Misconfigured, Unavailable
from identity.http.client import Client
from identity.model import AccountState, Credential
from identity.refresh.coordinator import Coordinator
from identity.secret import Secret
from identity.tables import connection_secrets
from tests.identity.coordinators import Killed, MakeCoordinator
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.world import START, World
from tests.ledger.acts import until_awaited

OLD, NEW = "client-canary", "new-canary"
LATER = datetime.now(UTC) + timedelta(days=1)
Make = Callable[..., Coordinator]


@pytest.fixture
def make(connected: World, http: Client) -> Make:
    return MakeCoordinator(connected, http)


def successor(world: World, id: str = "secret-2", *, used_from: datetime | None = None) -> SealedSecret:
    now = world.clock.now + timedelta(minutes=1)
    return seal_secret(
        world.vault, world.owner, id=id, name=CLIENT_SECRET, secret=Secret(NEW), now=now, used_from=used_from
    )


def rotate(world: World, *, used_from: datetime | None = None, retire_at: datetime | None = None) -> None:
    sealed = successor(world, used_from=used_from)
    world.store.write(lambda connection: rotate_secret(connection, sealed, retire_at=retire_at))


def order(world: World) -> list[str]:
    found = world.store.read(lambda connection: live_secrets(connection, "forge", CLIENT_SECRET))
    return [secret.id for secret in found]


def accepts(provider: PretendProvider, *secrets: str) -> None:
    def answer(form: dict[str, str]) -> Reply:
        if form["client_secret"] not in secrets:
            return reply({"error": "incorrect_client_credentials"})
        return provider.rotate(form)

    provider.answer = answer


def said(world: World, kind: str) -> list[Any]:
    statement = select(audit).where(audit.c.kind == kind)
    return list(world.store.read(lambda connection: connection.execute(statement).all()))


def test_until_the_switch_date_the_old_secret_goes_first(connected: World) -> None:
    rotate(connected, used_from=LATER)
    assert order(connected) == ["secret-1", "secret-2"]


def test_from_the_switch_date_on_the_new_one_goes_first(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    assert order(connected) == ["secret-2", "secret-1"]
    account = connected.consent()
    accepts(provider, OLD, NEW)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [NEW]


def test_the_old_one_ends_at_its_date(connected: World) -> None:
    rotate(connected, used_from=LATER, retire_at=connected.clock.now)
    assert order(connected) == ["secret-2"]


def test_a_refused_new_secret_gives_way_to_the_old_one_and_the_audit_says_so(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD]
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    (row,) = said(connected, "connection.secret_refused")
    assert "secret-2 was refused" in row.reason
    assert "secret-1 is used instead" in row.reason
    assert "canary" not in str(row)


def test_the_other_accounts_do_not_try_the_refused_one_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    make().refresh(account, after_generation=1)
    make().refresh(account, after_generation=2)
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD, OLD]


def test_before_the_switch_date_a_refused_old_secret_gives_way_too(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected, used_from=LATER)
    account = connected.consent()
    accepts(provider, NEW)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [OLD, NEW]


def test_when_both_are_refused_the_connection_pauses_and_no_grant_is_touched(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider)
    with pytest.raises(Misconfigured):
        make().refresh(account, after_generation=1)
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD]
    assert connected.state() is AccountState.ACTIVE
    why = connected.store.read(lambda connection: paused_reason(connection, "forge"))
    assert why is not None
    assert "client, which authenticated by its client_secret (incorrect_client_credentials)" in why


def test_a_refusal_that_is_not_the_secrets_fault_tries_no_other(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "unsupported_grant_type"}, 400)
    with pytest.raises(Misconfigured):
        make().refresh(account, after_generation=1)
    assert provider.presented.total() == 1


def test_after_the_overlap_there_is_no_other_to_try(connected: World, make: Make, provider: PretendProvider) -> None:
    rotate(connected, retire_at=connected.clock.now)
    account = connected.consent()
    accepts(provider, OLD)
    with pytest.raises(Misconfigured):
        make().refresh(account, after_generation=1)
    assert [form["client_secret"] for form in provider.forms] == [NEW]


def test_eight_workers_find_out_once_that_a_secret_is_refused(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    with ThreadPoolExecutor(8) as pool:
        refreshed = [pool.submit(make().refresh, account, after_generation=1) for _ in range(8)]
        assert {each.result() for each in refreshed} == {2}
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD]
    assert len(said(connected, "connection.secret_refused")) == 1


def test_a_401_without_a_name_has_the_other_secret_shown_and_holds_nothing_against_the_first(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """A gateway may have said it: marked as refused, the new one would not be tried when the old one ends."""
    rotate(connected)
    account = connected.consent()
    provider.answer = lambda form: reply({}, 401) if form["client_secret"] == NEW else provider.rotate(form)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD]
    assert order(connected) == ["secret-2", "secret-1"]
    assert said(connected, "connection.secret_refused") == []
    provider.answer = lambda form: reply({}, 401)
    with pytest.raises(Misconfigured, match="client_secret of provider connection forge is wrong, or a gateway"):
        make().refresh(account, after_generation=2, refused=True)
    assert [form["client_secret"] for form in provider.forms[2:]] == [NEW, OLD]
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def shown(provider: PretendProvider) -> list[str]:
    return [form["client_secret"] for form in provider.forms]


def test_a_gateways_401_to_the_new_one_does_not_make_the_end_of_the_old_one_the_clients(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    first = [reply({}, 401)]

    def answer(form: dict[str, str]) -> Reply:
        if first:
            return first.pop()
        return reply({"error": "invalid_client"}, 401) if form["client_secret"] == OLD else provider.rotate(form)

    provider.answer = answer
    assert make().refresh(account, after_generation=1) == 2
    assert shown(provider) == [NEW, OLD, NEW]
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def test_a_401_without_a_name_beside_an_old_one_that_is_known_to_have_ended_pauses_nothing(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """That the old one is refused by name is no news, and says nothing of the new one."""
    rotate(connected)
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "invalid_client"} if form["client_secret"] == OLD else {}, 401)
    with pytest.raises(Misconfigured, match="is wrong, or a gateway"):
        make().refresh(account, after_generation=1, refused=True)
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert order(connected) == ["secret-2", "secret-1"]


def test_with_two_live_secrets_a_401_without_a_name_after_an_outage_is_the_first(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """Each of the two was told it, a moment apart: that is once. Told again after a minute, it is the client's."""
    rotate(connected)
    robot = connected.service(Credential.CLIENT_CREDENTIALS)
    provider.answer = lambda form: reply({}, 503)
    for _ in range(2):
        with pytest.raises(Unavailable):
            make().refresh(robot, after_generation=1)
        connected.clock.advance(timedelta(minutes=1))
    provider.answer = lambda form: reply({}, 401)
    for paused in (False, True):
        with pytest.raises(Misconfigured):
            make().refresh(robot, after_generation=1)
        assert (connected.store.read(lambda connection: paused_reason(connection, "forge")) is not None) == paused
        connected.clock.advance(timedelta(minutes=1))
    assert shown(provider)[2:] == [NEW, OLD, NEW, OLD]


def test_with_two_live_secrets_a_401_without_a_name_that_stays_is_asked_about_more_seldom_each_time(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """It is one account's alone, so it pauses nothing."""
    rotate(connected)
    account = connected.consent()
    provider.answer = lambda form: reply({}, 401)
    for minutes in (1, 2, 4, 8, 8):
        with pytest.raises(Misconfigured, match="is wrong, or a gateway"):
            make().refresh(account, after_generation=1, refused=True)
        connected.clock.advance(timedelta(minutes=minutes, seconds=-1))
        with pytest.raises(AccountRefused) as waits:
            make().refresh(account, after_generation=1, refused=True)
        assert waits.value.retry_after == timedelta(seconds=1)
        connected.clock.advance(timedelta(seconds=1))
    assert shown(provider) == [NEW, OLD] * 5
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def test_a_secret_that_is_accepted_after_all_is_held_nothing_against(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    make().refresh(account, after_generation=1)
    connected.store.write(lambda connection: retire_secret(connection, "secret-1"))
    accepts(provider, NEW)
    assert make().refresh(account, after_generation=2) == 3
    (only,) = connected.store.read(lambda connection: live_secrets(connection, "forge", CLIENT_SECRET))
    assert (only.id, only.refused_at) == ("secret-2", None)


def test_an_operator_who_resumes_has_the_new_one_tried_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    make().refresh(account, after_generation=1)
    assert order(connected) == ["secret-1", "secret-2"]
    connected.store.write(lambda connection: resume_connection(connection, "forge"))
    assert order(connected) == ["secret-2", "secret-1"]


def test_a_refusal_found_after_a_crash_is_not_held_against_the_successor(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    accepts(provider, NEW)
    with pytest.raises(Killed):
        make(die_at="after_answer_stored").refresh(account, after_generation=1)
    rotate(connected)
    connected.clock.advance(timedelta(minutes=2))
    assert make().settle_abandoned() == 1
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [OLD, NEW]
    assert said(connected, "connection.secret_refused") == []


def test_a_refusal_found_after_a_crash_of_one_that_was_retired_since_is_not_held_against_the_live_one(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    rotate(connected)
    account = connected.consent()
    accepts(provider, OLD)
    with pytest.raises(Killed):
        make(die_at="after_answer_stored").refresh(account, after_generation=1)
    connected.clock.advance(timedelta(minutes=2))
    connected.store.write(lambda connection: retire_secret(connection, "secret-2", at=connected.clock.now))
    assert make().settle_abandoned() == 1
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [NEW, OLD]


@pytest.mark.parametrize("retire_at", [None, START], ids=["both live", "the new one alone"])
def test_a_refusal_of_the_old_one_that_comes_after_the_operators_rotation_pauses_nothing(
    connected: World, make: Make, provider: PretendProvider, retire_at: datetime | None
) -> None:
    account = connected.consent()

    def rotated_meanwhile() -> None:
        rotate(connected, retire_at=retire_at)
        accepts(provider, NEW)

    provider.refuse_client_after(rotated_meanwhile)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [OLD, NEW]
    assert connected.audited("connection.paused") == 0
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def test_a_refusal_by_an_address_that_its_issuer_names_no_more_pauses_nothing(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.refuse_client_after(connected.move_token_endpoint)
    assert make().refresh(account, after_generation=1) == 2
    assert connected.audited("connection.paused") == 0
    assert connected.store.read(lambda connection: paused_reason(connection, "forge")) is None


def test_what_one_address_refused_is_shown_to_the_next_though_another_secret_is_live(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    account = connected.consent()
    rotate(connected, retire_at=None)

    def moved_meanwhile() -> None:
        connected.move_token_endpoint()
        accepts(provider, provider.forms[0]["client_secret"])

    provider.refuse_client_after(moved_meanwhile)
    assert make().refresh(account, after_generation=1) == 2
    first, second = (form["client_secret"] for form in provider.forms)
    assert first == second
    assert connected.audited("connection.secret_refused") == 0


def test_a_refusal_of_the_new_one_from_before_a_resume_has_it_tried_again(
    connected: World, make: Make, provider: PretendProvider
) -> None:
    """The operator has made it valid at the provider meanwhile, and the old one invalid."""
    account = connected.consent()
    rotate(connected)

    def mended_meanwhile() -> None:
        connected.store.write(lambda connection: resume_connection(connection, "forge"))
        accepts(provider, NEW)

    provider.refuse_client_after(mended_meanwhile)
    assert make().refresh(account, after_generation=1) == 2
    assert [form["client_secret"] for form in provider.forms] == [NEW, NEW]
    assert said(connected, "connection.secret_refused") == []
    assert order(connected) == ["secret-2", "secret-1"]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_of_two_rotations_at_once_one_finds_the_other_under_way(connected: World) -> None:
    one, other = (partial(rotate_secret, secret=successor(connected, id), retire_at=None) for id in ("new-1", "new-2"))
    told = list[str]()

    def rotate_late() -> None:
        try:
            connected.store.write(other)
        except Misconfigured as error:
            told.append(str(error))

    until_awaited(connected.store, one, by=threading.Thread(target=rotate_late))
    assert "retire-secret" in told[0]
    assert sorted(order(connected)) == ["new-1", "secret-1"]


def test_a_second_rotation_waits_for_the_end_of_the_first(connected: World) -> None:
    rotate(connected)
    with pytest.raises(Misconfigured, match="retire-secret"):
        rotate(connected)
    connected.store.write(lambda connection: retire_secret(connection, "secret-1", at=connected.clock.now))
    assert order(connected) == ["secret-2"]


def test_a_secret_that_is_retired_has_ended_by_the_clock_that_says_what_is_live(connected: World) -> None:
    rotate(connected)
    assert connected.store.write(lambda connection: retire_secret(connection, "secret-1"))
    assert order(connected) == ["secret-2"]


def test_a_secret_that_has_ended_is_not_brought_back(connected: World) -> None:
    rotate(connected)
    assert connected.store.write(lambda connection: retire_secret(connection, "secret-1"))
    late = datetime.now(UTC) + timedelta(hours=1)
    assert not connected.store.write(lambda connection: retire_secret(connection, "secret-1", at=late))
    assert order(connected) == ["secret-2"]


def test_a_rotation_says_anew_when_the_secret_that_it_follows_ends(connected: World) -> None:
    """The one before it was given up, and had set that secret an end."""
    first, second = (datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours) for hours in (1, 48))
    rotate(connected, retire_at=first)
    connected.store.write(lambda connection: retire_secret(connection, "secret-2"))
    again = successor(connected, "secret-3")
    connected.store.write(lambda connection: rotate_secret(connection, again, retire_at=second))
    ends = select(connection_secrets.c.retired_at).where(connection_secrets.c.id == "secret-1")
    assert connected.store.read(lambda connection: connection.execute(ends).scalar_one()) == second
