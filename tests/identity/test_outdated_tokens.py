"""A signal says that tokens do not say any more what holds: those that there are, and those on their way."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from identity.model import MINTED, AccountState, Credential, NeedsRefresh
from identity.refresh.tables import refresh_intents
from identity.tables import grants
from tests.identity.coordinators import ABANDONED_AFTER, Killed, MakeCoordinator
from tests.identity.outdated import put_out_of_date
from tests.identity.providers import PretendProvider, reply
from tests.identity.world import ANNA, ROBOT, World


@pytest.mark.parametrize("scopes", [None, ("read",)], ids=["renew", "rescope"])
@pytest.mark.parametrize("dies", [False, True], ids=["", "recovered"])
def test_a_signal_puts_a_refresh_on_the_wire_out_of_date_and_loses_no_refresh_token(
    connected: World,
    make_coordinator: MakeCoordinator,
    provider: PretendProvider,
    scopes: tuple[str, ...] | None,
    dies: bool,
) -> None:
    account = connected.consent()
    rotate = provider.answer

    def told_meanwhile(form: dict[str, str]) -> Any:
        assert put_out_of_date(connected, ANNA, scopes)
        reworded = update(refresh_intents).values(outcome="in the words of another version")
        connected.store.write(lambda c: c.execute(reworded).rowcount)
        return provider.rotate(form)

    provider.answer = told_meanwhile
    if dies:
        with pytest.raises(Killed):
            make_coordinator(die_at="after_answer_stored").refresh(account, after_generation=1)
    assert make_coordinator().refresh(account, after_generation=1) == 2
    grant = connected.grant()
    assert (grant.access_sealed, grant.scopes) == (None, scopes or ("read", "write"))
    assert connected.examine() == NeedsRefresh(account=account, generation=2)
    provider.answer = rotate
    assert make_coordinator().refresh(account, after_generation=2) == 3
    assert (connected.token(), provider.presented) == ("access-2", {"refresh-0": 1, "refresh-1": 1})


@pytest.mark.parametrize("before", [False, True], ids=["told after", "told before"])
def test_a_late_answer_to_what_was_given_up_is_out_of_date_too(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, before: bool
) -> None:
    account = connected.consent()

    def told_and_paused_meanwhile(form: dict[str, str]) -> Any:
        if before:
            assert put_out_of_date(connected, ANNA)
        connected.clock.advance(ABANDONED_AFTER)
        assert make_coordinator().settle_abandoned() == 1
        if not before:
            assert put_out_of_date(connected, ANNA)
        return provider.rotate(form)

    provider.answer = told_and_paused_meanwhile
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert (connected.state(), connected.grant().access_sealed) == (AccountState.ACTIVE, None)


def test_a_refresh_that_begins_after_a_signal_says_what_holds(
    connected: World, make_coordinator: MakeCoordinator
) -> None:
    account = connected.consent()
    assert put_out_of_date(connected, ANNA)
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-1"


def test_a_request_made_for_other_scopes_than_there_are_now_is_not_sent(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    told: list[bool] = []

    def tell_once(point: str) -> None:
        if point == "before_intent" and not told:
            told.append(put_out_of_date(connected, ANNA, ("read",)))

    assert make_coordinator(reached=tell_once).refresh(account, after_generation=1) == 2
    assert told == [True]
    assert provider.presented == {"refresh-0": 1}
    assert (connected.token(), connected.grant().scopes) == ("access-1", ("read",))


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_minted_while_a_signal_comes_is_discarded_whatever_it_says(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, refused: bool
) -> None:
    account = connected.service(Credential.CLIENT_CREDENTIALS)
    mint = provider.answer

    def told_meanwhile(form: dict[str, str]) -> Any:
        assert put_out_of_date(connected, ROBOT, ("read",))
        return reply({"error": "invalid_grant"}, 400) if refused else mint(form)

    provider.answer = told_meanwhile
    assert make_coordinator().refresh(account, after_generation=1) == 2
    grant = connected.grant(ROBOT)
    assert (connected.state(ROBOT), grant.access_sealed, grant.scopes) == (AccountState.ACTIVE, None, ("read",))
    provider.answer = mint
    assert make_coordinator().refresh(account, after_generation=2) == 3
    assert connected.grant(ROBOT).access_sealed is not None


@pytest.mark.parametrize("credential", sorted(MINTED))
def test_every_minted_token_can_be_put_out_of_date(connected: World, credential: Credential) -> None:
    connected.service(credential, external_id="9001")
    assert put_out_of_date(connected, ROBOT)  # there is none yet, and the next one says what holds
    assert connected.generation(ROBOT) == 1
    connected.store.write(
        lambda connection: connection.execute(update(grants).values(access_sealed=b"minted")).rowcount
    )
    assert put_out_of_date(connected, ROBOT)
    assert (connected.grant(ROBOT).access_sealed, connected.generation(ROBOT)) == (None, 2)
