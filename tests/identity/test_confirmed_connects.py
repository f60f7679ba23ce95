"""A connect that its product has to confirm: what was won is a consent by that alone, and ends by whatever else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from identity.accounts.grants import ACCESS, REFRESH, token_binding
from identity.audit.tables import audit
from identity.connect.confirmation import Consenter
from identity.connect.flow import Connected, ConnectRefused, Finishing
from identity.connect.leftovers import GENERATION
from identity.connect.outcomes import Awaiting
from identity.connect.reasons import Why
from identity.connect.return_targets import add_target, remove_target
from identity.connect_sessions.sessions import CONFIRMED_WITHIN, forget_sessions, is_connecting, latest_link
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registration import Change
from identity.connections.registry import rewrite_connection
from identity.errors import BadInput, NotInState, Unavailable
from identity.model import AccountKey, AccountState, Leased, Scope, ScopeKind
from identity.providers import PROFILES
from identity.sealed.rewrap import in_use
from identity.tables import provider_connections
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from tests.identity.asking import ask
from tests.identity.browser_flow import ANNAS_BROWSER, ANOTHER_BROWSER, NONCE, BrowserFlow, came_back, link_person, why
from tests.identity.peer import ENDS, Peer
from tests.identity.places import acts_in, list_place
from tests.identity.providers import PretendProvider
from tests.identity.stores import FailingStore
from tests.identity.world import ANNA
from tests.ledgers import MOSTLY_SQLITE
from tests.servers.oidc import Oidc

pytestmark = MOSTLY_SQLITE

BACK = "https://app.example/settings"
ROBOT = replace(ANNA, principal="robot")
OF_ANNA = Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA))


@pytest.fixture
def flow(flow: BrowserFlow) -> BrowserFlow:
    """One whose links may lead back to a product."""
    flow.world.store.write(lambda c: add_target(c, id="ret-1", tenant=None, url=BACK, now=flow.world.clock.now))
    return flow


def comes_back(flow: BrowserFlow, key: AccountKey = ANNA, **more: Any) -> Awaiting:
    """The whole way, up to the product."""
    outcome = flow.consents(key, return_to=BACK, **{"confirm": True, "nonce": NONCE, **more})
    assert isinstance(outcome, Awaiting), outcome
    assert outcome.code
    return outcome


def kept(flow: BrowserFlow) -> list[Any]:
    return list(flow.world.store.read(lambda c: c.execute(select(withdrawals)).all()))


def ends(flow: BrowserFlow, provider: PretendProvider) -> None:
    """What was won is asked about now, and ends."""
    provider.ending = lambda _: (202, {}, b"")
    row = ask(flow.world, flow.http, flow.profile)
    assert (row.state, row.access_sealed, row.refresh_sealed) == (WithdrawalState.DONE, None, None)
    (ended,) = provider.ended
    assert json.loads(ended.body) == {"credentials": ["refresh-1", "access-1"]}


def test_what_was_won_is_used_by_nobody_until_it_is_confirmed_and_then_as_ever(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    world = flow.world
    awaiting = comes_back(flow)
    assert (world.generation(), world.state(), flow.woken) == (0, AccountState.PENDING, [])
    assert not isinstance(world.examine(), Leased)
    assert world.audited("account.connected") == 0
    began = world.store.read(lambda c: c.execute(select(connect_sessions.c.started)).scalar_one())
    world.clock.advance(timedelta(minutes=4))
    done = flow.confirm(awaiting)
    assert isinstance(done, Connected)
    assert (done.key, done.generation, done.login, done.missing_scopes) == (ANNA, 1, "mona", ())
    assert isinstance(world.examine(), Leased)
    assert (world.grant().consented, flow.woken, kept(flow)) == (began, [ANNA], [])
    assert world.token() == "access-1"
    assert (world.account().external_id, world.audited("account.connected")) == ("4711", 1)
    assert flow.connect.result(done.session, browser=ANNAS_BROWSER, now=world.clock.now) == done
    assert provider.presented.total() == 1


def test_who_follows_a_link_of_somebody_else_gives_them_nothing(flow: BrowserFlow, provider: PretendProvider) -> None:
    """Mallory made it for himself, Ada went all the way in her browser, and the product has her signed in."""
    mallory, ada = ROBOT, ANNA.principal
    awaiting = comes_back(flow, mallory)
    assert why(flow.confirm(awaiting, user=ada)) is Why.UNCONFIRMED
    world = flow.world
    assert (world.generation(mallory), world.generation(), flow.woken) == (0, 0, [])
    assert world.audited("account.connected") == 0
    detail = select(audit.c.detail).where(audit.c.kind == "connect.refused")
    refused = world.store.read(lambda c: c.execute(detail).scalar_one())
    assert (refused["said"], refused["by"]) == (ada, "the product")
    ends(flow, provider)  # at once
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED  # nor can he have it now
    assert (world.generation(mallory), world.audited("connect.refused")) == (0, 1)
    assert why(flow.connect.result(awaiting.session, browser=ANNAS_BROWSER, now=world.clock.now)) is Why.UNCONFIRMED


def test_a_certified_server_knows_the_tokens_of_who_followed_somebody_elses_link_no_more(
    peer: Peer, oidc: Oidc
) -> None:
    world, config = peer.world, {"issuer": oidc.issuer, "revocation_url": oidc.revocation_url}
    world.store.write(lambda c: c.execute(update(provider_connections).values(config=config)).rowcount)
    world.store.write(lambda c: add_target(c, id="ret-1", tenant=None, url=BACK, now=world.clock.now))
    awaiting = peer.connect(return_to=BACK, confirm=True, nonce=NONCE)
    assert isinstance(awaiting, Awaiting)
    (row,) = world.store.read(lambda c: c.execute(select(withdrawals)).all())
    sealed = {ACCESS: row.access_sealed, REFRESH: row.refresh_sealed}
    won = [
        world.vault.open(value, token_binding("acme", row.id, "peer", name, GENERATION)).reveal()
        for name, value in sealed.items()
    ]
    assert all(oidc.is_active(token) for token in won)
    refused = peer.flow.confirmations.confirm(
        awaiting.session,
        came_back(awaiting, user="robot"),
        tenant="acme",
        by="the product",
        now=world.clock.now,
        also=lambda _connection, _key: None,
    )
    assert why(refused) is Why.UNCONFIRMED
    assert ask(world, peer.http, ENDS).state == WithdrawalState.DONE
    assert not any(oidc.is_active(token) for token in won)


def test_a_link_for_anna_that_another_followed_gives_her_nothing_of_his(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """He got hold of a link for her, consented as himself, and has her open the address that he came back to."""
    link = flow.start(return_to=BACK, confirm=True, nonce="of-whoever-asked-for-a-link-for-her")
    state = flow.authorize(link, ANOTHER_BROWSER)["state"]
    awaiting = flow.finish({"code": "c", "state": state}, browser=ANOTHER_BROWSER)
    assert isinstance(awaiting, Awaiting)
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED  # she is who it is for, and the code is right
    world = flow.world
    assert (world.generation(), flow.woken, world.audited("account.connected")) == (0, [], 0)
    detail = select(audit.c.detail).where(audit.c.kind == "connect.refused")
    refused = world.store.read(lambda c: c.execute(detail).scalar_one())
    assert (refused["said"], refused["browser"]) == (ANNA.principal, "another")
    ends(flow, provider)


@pytest.mark.parametrize("nonce", ["", "another"])
def test_who_has_no_nonce_in_their_session_or_another_is_connected_by_nothing(flow: BrowserFlow, nonce: str) -> None:
    awaiting = comes_back(flow)
    assert why(flow.confirm(awaiting, nonce=nonce)) is Why.UNCONFIRMED
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED
    assert flow.world.generation() == 0


def test_what_waited_when_links_had_no_nonce_yet_is_confirmed_by_nothing(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    flow.world.store.write(lambda c: c.execute(update(connect_sessions).values(nonce_hash=None)).rowcount)
    refused = flow.confirm(awaiting, nonce=NONCE)
    assert isinstance(refused, ConnectRefused)
    assert (refused.why, "made before an upgrade" in refused.reason) == (Why.UNCONFIRMED, True)
    said = select(audit.c.detail).where(audit.c.kind == "connect.refused")
    (detail,) = flow.world.store.read(lambda c: c.execute(said).scalars().all())
    assert "browser" not in detail, "nobody is suspected"
    assert flow.world.generation() == 0


@pytest.mark.parametrize("came", [{"code": "guessed"}, {"code": "guessed", "user": "robot", "nonce": ""}])
def test_who_does_not_know_the_code_ends_nothing(flow: BrowserFlow, came: dict[str, str]) -> None:
    """The link's id is no secret: it stands in the link, so in chats."""
    awaiting = comes_back(flow)
    for _ in range(5):
        assert why(flow.confirm(awaiting, **came)) is Why.UNCONFIRMED
    assert flow.world.audited("connect.refused") == 0
    assert isinstance(flow.confirm(awaiting), Connected)


def test_a_look_tells_who_consented_and_counts_nothing(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    seen = flow.look(awaiting)
    assert isinstance(seen, Consenter)
    assert (seen.key, seen.login, seen.until) == (ANNA, "mona", awaiting.until)
    assert (flow.world.generation(), flow.woken) == (0, [])
    assert flow.look(awaiting) == seen
    assert isinstance(flow.confirm(awaiting), Connected)
    with pytest.raises(NotInState, match="nothing to ask"):
        flow.look(awaiting)


def test_a_look_tells_nobody_else_and_ends_nothing(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    assert flow.look(awaiting, tenant="globex") is None
    for came in ({"user": "robot"}, {"code": "guessed"}, {"nonce": ""}):
        assert why(flow.look(awaiting, **came)) is Why.UNCONFIRMED
    assert isinstance(flow.confirm(awaiting), Connected)


def test_a_look_after_its_time_or_a_refusal_tells_why(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    flow.world.clock.advance(CONFIRMED_WITHIN)
    assert why(flow.look(awaiting)) is Why.UNCONFIRMED
    refused = flow.confirm(awaiting)
    assert flow.look(awaiting) == refused


def test_what_nobody_confirms_ends_by_itself_whoever_died(flow: BrowserFlow, provider: PretendProvider) -> None:
    """The process that answered the callback was killed before the browser had its answer."""
    awaiting = comes_back(flow)
    assert ask(flow.world, flow.http, flow.profile).tries == 0  # not yet
    flow.world.clock.advance(CONFIRMED_WITHIN)
    told = flow.connect.result(awaiting.session, browser=ANNAS_BROWSER, now=flow.world.clock.now)
    assert why(told) is Why.UNCONFIRMED
    ends(flow, provider)
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED
    assert (flow.world.generation(), flow.world.audited("connect.refused")) == (0, 1)


def test_a_confirmation_that_comes_too_late_is_refused_also_while_nobody_ends_what_was_won(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    flow.world.clock.advance(CONFIRMED_WITHIN)
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED
    assert flow.world.generation() == 0


def test_what_is_being_ended_is_not_taken_back(flow: BrowserFlow, provider: PretendProvider) -> None:
    """Housekeeping's clock is ahead of the web's, and it may have asked."""
    awaiting = comes_back(flow)
    flow.world.clock.advance(CONFIRMED_WITHIN)
    provider.ending = lambda _: (500, {}, b"")
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.PENDING
    flow.world.clock.advance(-timedelta(minutes=1))
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED
    assert flow.world.generation() == 0


def test_the_same_said_again_is_answered_alike_and_anything_else_is_not(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    awaiting = comes_back(flow)
    done = flow.confirm(awaiting)
    assert isinstance(done, Connected)
    assert flow.confirm(awaiting) == done
    for other in ({"user": "robot"}, {"code": "another"}, {"nonce": "another"}):
        with pytest.raises(NotInState, match="already"):
            flow.confirm(awaiting, **other)
    assert (flow.world.generation(), flow.woken, flow.world.audited("account.connected")) == (1, [ANNA], 1)
    assert isinstance(flow.world.examine(), Leased)
    assert (kept(flow), provider.ended) == ([], [])


def test_two_confirmations_at_once_make_one_consent(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    inner = flow.world.store
    told: list[object] = []

    class Overtaken:
        """Before this one writes, another has."""

        def write(self, fn: Callable[[Connection], Any]) -> Any:
            if not told:
                told.append(None)
                flow.world.store = inner
                told.append(flow.confirm(awaiting))
            return inner.write(fn)

        read = inner.read

    flow.world.store = Overtaken()  # type: ignore[assignment]
    done = flow.confirm(awaiting)
    assert isinstance(done, Connected)
    assert told[1] == done
    assert (flow.world.generation(), flow.woken, flow.world.audited("connect.refused")) == (1, [ANNA], 0)


def test_a_refusal_that_comes_first_is_the_end_of_it(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    inner = flow.world.store

    class Overtaken:
        """Before this one writes, the product has said that it is somebody else."""

        def write(self, fn: Callable[[Connection], Any]) -> Any:
            if flow.world.store is not inner:
                flow.world.store = inner
                assert why(flow.confirm(awaiting, user="robot")) is Why.UNCONFIRMED
            return inner.write(fn)

        read = inner.read

    flow.world.store = Overtaken()  # type: ignore[assignment]
    assert why(flow.confirm(awaiting)) is Why.UNCONFIRMED
    assert (flow.world.generation(), flow.woken) == (0, [])


def test_another_tenant_has_no_such_link_and_ends_nothing(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    assert flow.confirm(awaiting, tenant="globex") is None
    assert flow.confirm(replace(awaiting, session="made-up")) is None
    assert isinstance(flow.confirm(awaiting), Connected)


@pytest.mark.parametrize("kind", [ScopeKind.TENANT, ScopeKind.CONNECTION, ScopeKind.USER, ScopeKind.ACCOUNT])
def test_a_revocation_between_the_two_wins(flow: BrowserFlow, provider: PretendProvider, kind: ScopeKind) -> None:
    awaiting = comes_back(flow)
    keys = {ScopeKind.TENANT: "acme", ScopeKind.CONNECTION: "forge", ScopeKind.USER: "anna"}
    flow.world.revoke(Scope(kind=kind, key=keys.get(kind, str(ANNA))))
    assert why(flow.confirm(awaiting)) is Why.REVOKED
    assert (flow.world.generation(), flow.woken) == (0, [])
    ends(flow, provider)
    assert isinstance(flow.confirm(comes_back(flow)), Connected)  # by a link of after it


def test_a_revocation_after_the_confirmation_ends_the_grant_as_ever(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    assert isinstance(flow.confirm(awaiting), Connected)
    flow.world.revoke(OF_ANNA)
    assert not isinstance(flow.world.examine(), Leased)
    assert isinstance(flow.confirm(awaiting), Connected)  # that is what it said, and it revives nothing
    assert not isinstance(flow.world.examine(), Leased)


def test_a_reconnect_that_nobody_confirms_leaves_the_grant_as_it_is(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    assert isinstance(flow.consents(), Connected)
    flow.profile = replace(PROFILES["github"], renewal=None)  # to ask would end all that the person consented to
    awaiting = comes_back(flow)
    assert why(flow.confirm(awaiting, user="robot")) is Why.UNCONFIRMED
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.NOT_ASKED
    assert provider.ended == []
    assert isinstance(flow.world.examine(), Leased)


def test_nobody_has_to_wait_with_a_new_link_until_what_is_not_confirmed_has_ended(flow: BrowserFlow) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None)
    comes_back(flow)
    assert isinstance(flow.confirm(comes_back(flow)), Connected)
    (left,) = kept(flow)
    assert left.state == WithdrawalState.PENDING
    flow.world.clock.advance(CONFIRMED_WITHIN)
    asked = ask(flow.world, flow.http, flow.profile)
    assert (asked.state, asked.reason) == (WithdrawalState.NOT_ASKED, "asking would end a later consent too")


def test_a_second_link_of_his_does_not_keep_what_he_deceived_somebody_into_from_its_end(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None)  # to ask ends all that the person consented to
    provider.ending = lambda _: (204, {}, b"")
    awaiting = comes_back(flow, ROBOT)
    flow.start(ROBOT)
    assert why(flow.confirm(awaiting, user=ANNA.principal)) is Why.UNCONFIRMED
    asked = ask(flow.world, flow.http, flow.profile)
    assert (asked.state, asked.tries, provider.ended) == (WithdrawalState.PENDING, 0, [])
    flow.world.clock.advance(timedelta(minutes=2))
    with pytest.raises(Unavailable, match="go on by that one, or ask again once it has ended, in 8 min") as refused:
        flow.start(ROBOT)  # nor is there a third
    assert refused.value.retry_after == timedelta(minutes=8)
    flow.world.clock.advance(timedelta(minutes=8))
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.DONE
    assert len(provider.ended) == 1


def test_a_link_that_lasts_long_is_waited_for_and_none_that_was_made_since(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None)
    provider.ending = lambda _: (204, {}, b"")
    awaiting = comes_back(flow, ROBOT)
    flow.start(ROBOT)
    assert why(flow.confirm(awaiting, user=ANNA.principal)) is Why.UNCONFIRMED

    def lasts(**which: datetime) -> None:
        later = update(connect_sessions).where(connect_sessions.c.outcome.is_(None))
        until = flow.world.clock.now + timedelta(hours=2)
        flow.world.store.write(lambda c: c.execute(later.values(expires_at=until, **which)).rowcount)

    lasts()
    flow.world.clock.advance(timedelta(minutes=40))
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.PENDING
    lasts(created_at=flow.world.clock.now)
    flow.world.clock.advance(timedelta(minutes=1))
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.DONE


def test_who_connects_by_the_second_link_after_all_keeps_what_they_consent_to(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    flow.profile = replace(PROFILES["github"], renewal=None)
    awaiting = comes_back(flow)
    second = flow.authorize(flow.start())
    assert why(flow.confirm(awaiting, user="robot")) is Why.UNCONFIRMED
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.PENDING
    assert isinstance(flow.finish({"code": "c", "state": second["state"]}), Connected)
    flow.world.clock.advance(timedelta(minutes=1))
    assert ask(flow.world, flow.http, flow.profile).state == WithdrawalState.NOT_ASKED
    assert provider.ended == []


def wrong_account(flow: BrowserFlow) -> Why:
    link_person(flow, "anna", "815", login="hubot")
    return Why.WRONG_ACCOUNT


def linked_elsewhere(flow: BrowserFlow) -> Why:
    link_person(flow, "robot", "4711")
    return Why.LINKED_ELSEWHERE


def another_client(flow: BrowserFlow) -> Why:
    flow.world.store.write(lambda c: c.execute(update(provider_connections).values(client_id="other")).rowcount)
    return Why.INTERRUPTED


@pytest.mark.parametrize("meanwhile", [wrong_account, linked_elsewhere, another_client])
def test_what_refuses_a_callback_refuses_its_confirmation(
    flow: BrowserFlow, provider: PretendProvider, meanwhile: Callable[[BrowserFlow], Why]
) -> None:
    awaiting = comes_back(flow)
    reason = meanwhile(flow)
    assert why(flow.confirm(awaiting)) is reason
    assert (flow.world.generation(), flow.woken) == (0, [])
    ends(flow, provider)


def test_a_workspace_that_is_not_the_tenants_refuses_it_too(flow: BrowserFlow) -> None:
    acts_in(flow, "T_OTHER")
    awaiting = comes_back(flow)
    list_place(flow, "T_ACME", "acme")
    assert why(flow.confirm(awaiting)) is Why.WRONG_ACCOUNT
    assert flow.world.generation() == 0


def test_a_connection_demands_it_of_every_link_also_of_those_that_are_out(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    world = flow.world
    without, within = (
        flow.authorize(flow.start())["state"],
        flow.authorize(flow.start(return_to=BACK, nonce=NONCE))["state"],
    )
    by_hand = flow.authorize(flow.start(return_to=BACK))["state"]
    owner = replace(world.owner, config={**world.owner.config, "confirm": "true"})
    world.store.write(lambda c: rewrite_connection(c, owner))
    incomplete: list[dict[str, Any]] = [{}, {"return_to": BACK}, {"nonce": NONCE}]
    for lacking in incomplete:
        with pytest.raises(BadInput, match="none is made by hand"):
            flow.start(**lacking)
    awaiting = flow.finish({"code": "c", "state": within})
    assert isinstance(awaiting, Awaiting)
    assert isinstance(flow.confirm(awaiting), Connected)
    assert isinstance(comes_back(flow, confirm=False), Awaiting)
    shown = provider.presented.total()
    for one in (without, by_hand):
        assert why(flow.finish({"code": "c", "state": one})) is Why.OPERATOR
    assert provider.presented.total() == shown  # their codes are not shown to anybody


@pytest.mark.parametrize(
    ("back", "is_taken"),
    [
        ("http://app.example/settings", False),
        ("http://10.0.0.7/settings", False),
        ("http://localhost:3000/settings", True),
        ("http://127.0.0.1:3000/settings", True),
        ("http://[::1]:3000/settings", True),
    ],
)
def test_a_code_is_sent_to_nobody_in_clear_text(
    flow: BrowserFlow, provider: PretendProvider, back: str, is_taken: bool
) -> None:
    flow.world.store.write(lambda c: add_target(c, id="ret-2", tenant=None, url=back, now=flow.world.clock.now))
    out = flow.authorize(flow.start(return_to=back, nonce=NONCE))["state"]
    owner = replace(flow.world.owner, config={**flow.world.owner.config, "confirm": "true"})
    flow.world.store.write(lambda c: rewrite_connection(c, owner))
    outcome = flow.finish({"code": "c", "state": out})
    if is_taken:
        assert isinstance(outcome, Awaiting)
        assert flow.start(return_to=back, nonce=NONCE)
        return
    assert why(outcome) is Why.OPERATOR
    assert provider.presented.total() == 0
    with pytest.raises(BadInput, match="clear text"):
        flow.start(return_to=back, nonce=NONCE)


def test_a_target_that_is_gone_confirms_nothing(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start(return_to=BACK, confirm=True, nonce=NONCE))["state"]
    flow.world.store.write(lambda c: remove_target(c, "ret-1"))
    assert why(flow.finish({"code": "c", "state": state})) is Why.OPERATOR
    assert provider.presented.total() == 0


def test_there_is_nothing_to_confirm_before_somebody_comes_back(flow: BrowserFlow) -> None:
    link = flow.connect.start(ANNA, now=flow.world.clock.now, return_to=BACK, confirm=True, nonce=NONCE)
    early = Awaiting(session=link.session, key=ANNA, until=link.expires_at, code="made-up")
    with pytest.raises(NotInState, match="nobody has come back"):
        flow.confirm(early)
    state = flow.authorize(link.text)["state"]
    awaiting = flow.finish({"code": "c", "state": state})
    assert isinstance(awaiting, Awaiting)
    assert isinstance(flow.confirm(awaiting), Connected)


def test_a_reload_says_that_it_waits_and_gives_no_code_again(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start(return_to=BACK, confirm=True, nonce=NONCE))["state"]
    first, again = flow.finish({"code": "c", "state": state}), flow.finish({"code": "c", "state": state})
    assert isinstance(first, Awaiting)
    assert again == replace(first, code=None)
    assert provider.presented.total() == 1
    text = str(kept(flow)) + str(flow.world.store.read(lambda c: c.execute(select(connect_sessions)).all()))
    assert first.code is not None
    assert first.code not in text
    assert "access-1" not in text


@pytest.mark.parametrize("lost", ["commit lost", "commit unseen"])
def test_what_is_kept_in_a_commit_of_which_nobody_heard_is_kept_once(flow: BrowserFlow, lost: str) -> None:
    state = flow.authorize(flow.start(return_to=BACK, confirm=True, nonce=NONCE))["state"]
    store = flow.world.store
    flow.world.store = FailingStore(store, {2: lost})  # type: ignore[assignment]
    awaiting = flow.finish({"code": "c", "state": state})
    flow.world.store = store
    assert isinstance(awaiting, Awaiting)
    assert (len(kept(flow)), flow.world.audited("connect.awaiting")) == (1, 1)
    assert isinstance(flow.confirm(awaiting), Connected)


def test_what_cannot_be_kept_ends(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start(return_to=BACK, confirm=True, nonce=NONCE))["state"]
    store = flow.world.store
    flow.world.store = FailingStore(store, {2: "commit unseen", 3: "no turn"})  # type: ignore[assignment]
    assert why(flow.finish({"code": "c", "state": state})) is Why.INTERRUPTED
    flow.world.store = store
    ends(flow, provider)


def test_a_confirmation_that_cannot_be_stored_may_be_said_again(flow: BrowserFlow) -> None:
    awaiting = comes_back(flow)
    store = flow.world.store
    flow.world.store = FailingStore(store, {1: "no turn"})  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        flow.confirm(awaiting)
    flow.world.store = FailingStore(store, {1: "commit unseen"})  # type: ignore[assignment]
    assert isinstance(flow.confirm(awaiting), Connected)
    flow.world.store = store
    assert (flow.world.generation(), flow.woken) == (1, [ANNA])


def test_one_that_waits_is_under_way_for_whoever_asks(flow: BrowserFlow) -> None:
    """A signal meanwhile revokes, and its connection is not removed from under it."""
    world = flow.world
    awaiting = comes_back(flow)

    def connecting() -> bool:
        return world.store.read(lambda c: is_connecting(c, ANNA, now=world.clock.now))

    assert connecting()
    assert world.store.read(lambda c: latest_link(c, "forge")) == awaiting.until
    world.store.write(lambda c: forget_sessions(c, "forge", now=world.clock.now))
    assert isinstance(flow.confirm(awaiting), Connected)
    assert not connecting()


def test_how_it_stands_is_not_taken_for_a_callback_that_is_being_answered(flow: BrowserFlow) -> None:
    outcome = flow.connect.result(comes_back(flow).session, browser=ANNAS_BROWSER, now=flow.world.clock.now)
    assert not isinstance(outcome, Finishing | ConnectRefused | Connected)


def test_what_waits_is_moved_under_a_new_key_with_the_rest(flow: BrowserFlow) -> None:
    comes_back(flow)
    counted = {str(field): sum(keys.values()) for field, keys in flow.world.store.read(in_use).items()}
    assert (counted["withdrawals.access_sealed"], counted["withdrawals.refresh_sealed"]) == (1, 1)


def test_a_connection_demands_it_by_a_word_that_nobody_misspells(flow: BrowserFlow) -> None:
    owner, profile, policy = flow.world.owner, PROFILES["github"], flow.http.policy
    with pytest.raises(BadInput, match="confirm is true where"):
        Change(config={"confirm": "yes"}).of(owner, profile, policy)
    demands = [Change(config={"confirm": said}).of(owner, profile, policy).confirms for said in ("true", "false")]
    assert (owner.confirms, demands) == (False, [True, False])
