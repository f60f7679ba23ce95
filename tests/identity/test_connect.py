"""BrowserFlow in the browser: the whole way once, and every callback that must be refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from sqlalchemy import Connection, select

from identity.accounts.scopes import remember_stop
from identity.accounts.states import find_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.breaker import Breaker
from identity.connect.flow import Connected, ConnectOffer, ConnectRefused, Finishing
from identity.connect.outcomes import InLine
from identity.connect.reasons import Why
from identity.connect.return_targets import add_target, checked_url, remove_target
from identity.connect_sessions.sessions import bind_browser, digest, use_up
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registry import add_connection, rewrite_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, rotate_secret, seal_secret
from identity.errors import BadInput, KeyMissing, PolicyDenied, Unavailable
from identity.hold import release_hold, set_hold
from identity.keys.signing import Signer
from identity.keys.vault import Vault
from identity.model import AccountKey, AccountState, Credential, Leased, PrincipalKind, Scope, ScopeKind
from identity.people import name_people, taken_for
from identity.principals import ensure_principal, ensure_tenant, resolve_alias
from identity.providers import PROFILES
from identity.providers.pace import CAUTIOUS, Pace
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.sql.store import CommitUnknown
from identity.token_endpoint.gate import CONNECT_KEEPS, STEP_KEEPS, Endpoint, Gate
from identity.token_endpoint.line import Rank, Waiter
from identity.withdrawals.taking import EndedConsents, take_grant
from identity.withdrawals.withdrawal import WithdrawalState, settle
from tests.identity.browser_flow import ANNAS_BROWSER, ANOTHER_BROWSER, BrowserFlow, link_person, why
from tests.identity.providers import PretendProvider, reply
from tests.identity.stores import EngineStore, FailingStore, StandsStill
from tests.identity.world import ANNA, World
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


def test_a_person_connects_their_account(flow: BrowserFlow, provider: PretendProvider) -> None:
    query = flow.authorize(flow.start())
    assert query["redirect_uri"] == "https://aswhom.example/connect/forge/callback"
    assert (query["scope"], query["code_challenge_method"]) == ("read write", "S256")
    outcome = flow.finish({"code": "code-1", "state": query["state"]})
    assert isinstance(outcome, Connected)
    assert (outcome.key, outcome.generation, outcome.missing_scopes) == (ANNA, 1, ())
    (form,) = provider.forms
    assert (form["grant_type"], form["code"]) == ("authorization_code", "code-1")
    began = str(flow.world.grant().consented)
    assert (provider.heads[0]["x-aswhom-connect"], provider.questions[0]["x-aswhom-connect"]) == (began, began)
    assert create_s256_code_challenge(form["code_verifier"]) == query["code_challenge"]  # type: ignore[no-untyped-call]
    assert isinstance(flow.world.examine(), Leased)
    assert flow.woken == [ANNA]
    account = flow.world.account()
    assert (account.external_id, account.external_login) == ("4711", "mona")
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "anna"
    assert flow.world.audited("account.connected") == 1


def test_a_connect_on_the_wire_while_its_people_are_named_anew_is_linked_under_the_new_name(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    world = flow.world

    def named_meanwhile(form: dict[str, str]) -> Any:
        world.store.write(lambda c: name_people(c, world.owner, "forge.example"))
        return provider.rotate(form)

    provider.answer = named_meanwhile
    assert isinstance(flow.consents(), Connected)
    found = [world.store.read(partial(_holder, name)) for name in ("forge.example", "github")]
    assert found == ["anna", None]


def _holder(name: str, connection: Connection) -> str | None:
    return resolve_alias(connection, "acme", name, "4711")


def test_a_callback_works_once_and_says_the_same_again(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start())["state"]
    first = flow.finish({"code": "code-1", "state": state})
    assert isinstance(first, Connected)
    assert flow.finish({"code": "code-1", "state": state}) == first
    assert flow.finish({"code": "another", "state": state}) == first
    assert flow.connect.result(first.session, browser=ANNAS_BROWSER, now=flow.world.clock.now) == first
    assert provider.presented.total() == 1
    assert flow.woken == [ANNA]


def test_while_it_is_held_nobody_is_sent_to_the_provider_and_the_link_stays_good(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    store, link = flow.world.store, flow.start()
    gone = flow.authorize(flow.start())
    act = Act(audit_id="aud_hold", by="cli:ada", now=flow.world.clock.now, why="an upgrade")
    assert store.write(lambda c: set_hold(c, act))
    back = {"code": "c", "state": gone["state"]}
    for refused in (flow.offer(link), flow.goes_on(link), flow.finish(back)):
        assert why(refused) is Why.HELD
        assert isinstance(refused, ConnectRefused)
        assert "by the same link" in refused.next_step
    assert provider.forms == []
    store.write(lambda c: release_hold(c, replace(act, audit_id="aud_release")))
    assert isinstance(flow.finish(back), Connected)
    assert isinstance(flow.offer(link), ConnectOffer)


def test_a_callback_that_lacks_the_vault_key_leaves_the_link_to_a_process_that_has_it(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """While a vault key is added, processes restart one after the other."""
    old, new = flow.world.vault, Vault({1: bytes(32), 2: bytes([2]) * 32}, os.urandom)
    flow.world.vault = new
    back = {"code": "c", "state": flow.authorize(flow.start())["state"]}
    flow.world.vault = old
    with pytest.raises(KeyMissing):
        flow.finish(back)
    assert provider.forms == []
    flow.world.vault = new
    assert isinstance(flow.finish(back), Connected)


def test_only_a_code_that_is_exchanged_counts_against_the_providers_pace(flow: BrowserFlow) -> None:
    """A page that is reloaded must not take the turns of everybody's refreshes."""
    flow.profile = replace(flow.profile, token_pace=Pace(requests=2, per=timedelta(days=2), burst=1))
    declined, late, revoked = ({"state": flow.authorize(flow.start())["state"]} for _ in range(3))
    assert why(flow.finish(declined | {"error": "access_denied"})) is Why.DECLINED
    assert why(flow.finish(declined | {"code": "c"})) is Why.DECLINED
    flow.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert why(flow.finish(revoked | {"code": "c"})) is Why.REVOKED
    flow.world.clock.advance(timedelta(minutes=11))
    assert why(flow.finish(late | {"code": "c"})) is Why.EXPIRED
    state = flow.authorize(flow.start())["state"]
    first = flow.finish({"code": "c", "state": state})
    assert isinstance(first, Connected)
    assert flow.finish({"code": "c", "state": state}) == first  # the only turn there was is taken


def test_where_a_provider_gives_no_more_tokens_a_person_has_a_place_before_every_job(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    now = [1000.0]
    flow.gate = Gate(None, monotonic=lambda: now[0])
    flow.profile = replace(flow.profile, token_pace=Pace(requests=7, per=timedelta(minutes=5), burst=2))  # one a minute
    where = Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE)
    while flow.gate.enter(where, flow.profile.token_pace, keep=CONNECT_KEEPS) is None:
        pass
    for job in ("acc_1", "acc_2"):
        flow.gate.look(where, flow.profile.token_pace, keep=STEP_KEEPS, who=Waiter(job))
    state = flow.authorize(flow.start())["state"]
    told = flow.finish({"code": "c", "state": state})
    assert isinstance(told, InLine)
    assert told.turn_in == timedelta(minutes=1)
    assert flow.finish({"code": "c", "state": state}) == told  # a page that is reloaded keeps its place
    assert provider.forms == []
    now[0] += 60
    flow.world.clock.advance(timedelta(minutes=1))
    assert flow.gate.look(where, flow.profile.token_pace, keep=STEP_KEEPS, who=Waiter("acc_1")) is not None
    assert isinstance(flow.finish({"code": "c", "state": state}), Connected)


def test_whose_turn_comes_when_the_link_has_expired_is_told_to_ask_for_a_new_one(flow: BrowserFlow) -> None:
    state = flow.authorize(flow.start())["state"]
    flow.gate.pause(Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE), timedelta(minutes=30))
    told = flow.finish({"code": "c", "state": state})
    assert why(told) is Why.PROVIDER
    assert isinstance(told, ConnectRefused)
    assert "your turn is in 30 min" in told.reason
    assert "ask for a new link" in told.next_step
    assert flow.gate.waiting([Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE)]) == [0]


@pytest.mark.parametrize("how", ["no turn", "commit unseen"])
def test_a_person_whose_session_cannot_be_used_up_leaves_the_one_probe_to_others(flow: BrowserFlow, how: str) -> None:
    now = [0.0]
    breaker = Breaker(threshold=1, first=timedelta(seconds=1))
    flow.gate = Gate(None, breaker=breaker, monotonic=lambda: now[0])
    where = Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE)
    state = flow.authorize(flow.start())["state"]
    flow.gate.failed(where, took=timedelta())
    now[0] = 2.0
    flow.world.store = cast("EngineStore", FailingStore(flow.world.store, {1: how}))
    with pytest.raises((Unavailable, CommitUnknown)):
        flow.finish({"code": "c", "state": state})
    assert flow.gate.enter(where, flow.profile.token_pace) is None


def test_a_session_that_ends_while_it_waits_has_no_place_in_line_any_more(flow: BrowserFlow) -> None:
    where = Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE)
    flow.gate.pause(where, timedelta(minutes=5))
    state = flow.authorize(flow.start())["state"]
    assert isinstance(flow.finish({"code": "c", "state": state}), InLine)
    assert flow.gate.waiting([where]) == [1]
    assert why(flow.finish({"error": "access_denied", "state": state})) is Why.DECLINED
    assert flow.gate.waiting([where]) == [0]


def test_a_second_callback_meanwhile_is_told_to_look_again_and_later_that_it_was_cut_off(
    flow: BrowserFlow,
) -> None:
    link = flow.start()
    state = flow.authorize(link)["state"]
    session, now = link.partition(".")[0], flow.world.clock.now
    assert flow.world.store.write(lambda c: use_up(c, session, now=now))  # and here its process died
    assert flow.finish({"code": "c", "state": state}) == Finishing(session=session)
    assert flow.offer(link, ANNAS_BROWSER) == Finishing(session=session)
    flow.world.clock.advance(timedelta(minutes=2))
    assert why(flow.finish({"code": "c", "state": state})) is Why.INTERRUPTED
    assert flow.world.generation() == 0


def test_a_process_that_stands_still_once_a_session_is_used_up_shows_no_code(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    """By then access may have been revoked, and all of it have ended."""
    state = flow.authorize(flow.start())["state"]
    store = StandsStill(flow.world.store)
    flow.world.store, flow.monotonic = cast("EngineStore", store), store.monotonic
    assert "was not asked" in flow.refused({"code": "c", "state": state})
    assert provider.presented.total() == 0


def test_how_it_ended_is_for_the_browser_that_went_through_it(flow: BrowserFlow) -> None:
    done = flow.consents()
    assert isinstance(done, Connected)
    for stranger in ("", ANOTHER_BROWSER):
        assert why(flow.connect.result(done.session, browser=stranger, now=flow.world.clock.now)) is Why.OTHER_BROWSER


@pytest.mark.parametrize("params", [{}, {"code": "c"}, {"code": "c", "state": "made-up"}], ids=str)
def test_a_callback_without_one_of_our_states_is_refused(
    flow: BrowserFlow, provider: PretendProvider, params: dict[str, str]
) -> None:
    flow.authorize(flow.start())
    assert "belongs to no link of ours" in flow.refused(params)
    assert provider.presented.total() == 0


def test_a_callback_in_another_browser_is_refused_and_ends_nothing(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    state = flow.authorize(flow.start())["state"]
    assert "not the browser" in flow.refused({"code": "c", "state": state}, browser=ANOTHER_BROWSER)
    assert provider.presented.total() == 0
    assert isinstance(flow.finish({"code": "c", "state": state}), Connected)


def test_looking_at_a_link_binds_nothing(flow: BrowserFlow) -> None:
    link = flow.start()
    for browser in ("", ANOTHER_BROWSER, ANNAS_BROWSER):
        offer = flow.offer(link, browser)
        assert isinstance(offer, ConnectOffer)
        assert (offer.key, offer.provider, offer.scopes) == (ANNA, "github", ("read", "write"))
        assert (offer.awaited, offer.state) == (None, None)
    flow.authorize(link, ANOTHER_BROWSER)


def test_a_link_belongs_to_the_first_browser_that_goes_on_from_it(flow: BrowserFlow) -> None:
    link = flow.start()
    flow.authorize(link)
    flow.authorize(link)
    assert why(flow.goes_on(link, ANOTHER_BROWSER)) is Why.OTHER_BROWSER
    assert why(flow.offer(link, ANOTHER_BROWSER)) is Why.OTHER_BROWSER
    assert why(flow.offer(link)) is Why.OTHER_BROWSER
    # Of two browsers that looked before either went on, one is bound: the statement decides.
    session, now = link.partition(".")[0], flow.world.clock.now
    for browser, bound in ((ANOTHER_BROWSER, False), (ANNAS_BROWSER, True)):
        bind = partial(bind_browser, session=session, browser_hash=digest(browser), now=now, expires_at=now)
        assert flow.world.store.write(bind) is bound


def test_a_used_link_says_so_elsewhere_and_how_it_went_in_its_own_browser(flow: BrowserFlow) -> None:
    link = flow.start()
    done = flow.finish({"code": "c", "state": flow.authorize(link)["state"]})
    assert flow.offer(link, ANNAS_BROWSER) == flow.goes_on(link, ANNAS_BROWSER) == done
    assert why(flow.offer(link)) is why(flow.goes_on(link, ANOTHER_BROWSER)) is Why.USED


def test_a_link_without_our_signature_is_no_link(flow: BrowserFlow) -> None:
    link = flow.start()
    session, _, signature = link.partition(".")
    forged = BrowserFlow(world=flow.world, http=flow.http, signer=Signer.from_seed(bytes(31) + b"1"))
    other = flow.start().partition(".")[2]
    for text in (session, f"{session}.", f"{session}.{other}", f"{other}.{signature}", forged.start(), "é.è", ""):
        assert why(flow.offer(text)) is why(flow.goes_on(text)) is Why.UNKNOWN_LINK
    assert isinstance(flow.offer(link), ConnectOffer)


def test_who_opens_a_link_late_has_the_whole_time_at_the_provider_once(flow: BrowserFlow) -> None:
    link = flow.start()
    flow.world.clock.advance(timedelta(minutes=9))
    state = flow.authorize(link)["state"]
    flow.world.clock.advance(timedelta(minutes=9))
    flow.authorize(link)  # again, from the page before: this adds nothing
    flow.world.clock.advance(timedelta(minutes=2))
    assert why(flow.finish({"code": "c", "state": state})) is Why.EXPIRED


def test_a_callback_to_another_connections_address_is_refused(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start())["state"]
    assert "another provider connection" in flow.refused({"code": "c", "state": state}, connection="other")
    assert provider.presented.total() == 0


def test_an_expired_link_neither_opens_nor_finishes(flow: BrowserFlow, provider: PretendProvider) -> None:
    link = flow.start()
    state = flow.authorize(link)["state"]
    flow.world.clock.advance(timedelta(minutes=11))
    assert why(flow.finish({"code": "c", "state": state})) is Why.EXPIRED
    assert why(flow.offer(link)) is Why.OTHER_BROWSER
    assert why(flow.offer(link, ANNAS_BROWSER)) is why(flow.goes_on(link)) is Why.EXPIRED
    never_opened = flow.start()
    flow.world.clock.advance(timedelta(minutes=11))
    assert why(flow.offer(never_opened)) is why(flow.goes_on(never_opened)) is Why.EXPIRED
    assert provider.presented.total() == 0


def test_declining_is_a_refusal_and_mints_nothing(flow: BrowserFlow, provider: PretendProvider) -> None:
    state = flow.authorize(flow.start())["state"]
    assert "declined at GitHub" in flow.refused({"error": "access_denied", "state": state})
    assert provider.presented.total() == 0
    assert flow.world.audited("connect.refused") == 1


def test_an_error_is_quoted_only_if_it_is_a_code(flow: BrowserFlow) -> None:
    state = flow.authorize(flow.start())["state"]
    assert flow.refused({"error": "<script>", "state": state}) == "GitHub answered unnamed"


def test_a_callback_without_a_code_is_refused(flow: BrowserFlow) -> None:
    state = flow.authorize(flow.start())["state"]
    assert "no code" in flow.refused({"state": state})


@pytest.mark.parametrize("iss", [None, "https://evil.example"])
def test_a_connection_whose_issuer_nobody_knows_believes_no_answer(flow: BrowserFlow, iss: str | None) -> None:
    flow.profile = replace(PROFILES["github"], sends_iss=True)
    state = flow.authorize(flow.start())["state"]
    params = {"code": "c", "state": state} | ({"iss": iss} if iss else {})
    assert "does not say which provider" in flow.refused(params)


@pytest.mark.parametrize(
    ("iss", "words"),
    [
        (None, "the answer does not say which provider it comes from"),
        ("https://evil.example", "the answer comes from another provider"),
    ],
)
def test_an_answer_of_another_issuer_than_the_connections_is_refused(
    flow: BrowserFlow, provider: PretendProvider, iss: str | None, words: str
) -> None:
    """And the session stays as it was: what the right one answers connects."""
    owner = replace(flow.world.owner, config={"issuer": "https://forge.example"})
    flow.world.store.write(lambda c: rewrite_connection(c, owner))
    flow.profile = replace(PROFILES["github"], sends_iss=True)
    state = flow.authorize(flow.start())["state"]
    params = {"code": "c", "state": state}
    assert flow.refused(params | ({"iss": iss} if iss else {})) == words
    assert provider.forms == []
    assert isinstance(flow.finish(params | {"iss": "https://forge.example"}), Connected)


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="forge"),
        Scope(kind=ScopeKind.USER, key="anna"),
        Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)),
    ],
    ids=str,
)
def test_a_session_that_began_before_a_revocation_is_refused(
    flow: BrowserFlow, provider: PretendProvider, scope: Scope
) -> None:
    link, unopened = flow.start(), flow.start()
    state = flow.authorize(link)["state"]
    flow.world.revoke(scope)
    assert why(flow.offer(unopened)) is why(flow.goes_on(unopened)) is Why.REVOKED
    assert "revoked after this link" in flow.refused({"code": "c", "state": state})
    assert provider.presented.total() == 0  # its code was not even exchanged
    again = flow.authorize(flow.start())["state"]
    assert isinstance(flow.finish({"code": "c", "state": again}), Connected)


def test_no_session_begins_under_a_stopped_tenant(flow: BrowserFlow) -> None:
    flow.world.store.write(lambda c: remember_stop(c, Scope(kind=ScopeKind.TENANT, key="acme"), stopped=True))
    with pytest.raises(PolicyDenied, match="stopped"):
        flow.start()


def test_somebody_elses_provider_account_is_refused_and_nothing_stays(flow: BrowserFlow) -> None:
    link_person(flow, "robot", "4711")
    state = flow.authorize(flow.start())["state"]
    assert "linked to someone else" in flow.refused({"code": "c", "state": state})
    assert flow.world.generation() == 0
    assert flow.world.audited("account.connected") == 0
    (row,) = flow.world.store.read(lambda c: c.execute(select(audit).where(audit.c.kind == "connect.refused")).all())
    assert (row.tenant_id, row.principal_id, row.outcome) == ("acme", "anna", Why.LINKED_ELSEWHERE)
    assert (row.detail["external_id"], row.detail["linked_to"]) == ("4711", "robot")
    assert row.detail["next"] == "aswhom aliases remove --tenant acme --provider github --external-id 4711"
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "robot"


def test_two_tenants_know_the_same_login_independently(flow: BrowserFlow) -> None:
    bea = AccountKey(tenant="globex", connection="forge", principal="bea")

    def globex(connection: Connection) -> None:
        now = flow.world.clock.now
        ensure_tenant(connection, id="globex", name="Globex", now=now)
        ensure_principal(connection, id="bea", tenant="globex", kind=PrincipalKind.USER, name="bea", now=now)

    flow.world.store.write(globex)
    assert isinstance(flow.consents(), Connected)
    assert isinstance(flow.consents(bea), Connected)
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "anna"
    assert flow.world.store.read(lambda c: resolve_alias(c, "globex", "github", "4711")) == "bea"


def test_the_same_number_at_another_server_of_a_provider_is_another_person(flow: BrowserFlow) -> None:
    """GitHub Enterprise numbers its users by itself."""
    store, owner = flow.world.store, flow.world.owner
    assert isinstance(flow.consents(), Connected)
    ghe = replace(owner, id="ghe", token_url="https://ghe.example/token", config={"people": "ghe"})
    assert store.read(lambda c: taken_for(c, ghe)) is None
    ghe = replace(ghe, token_url=owner.token_url)  # the same pretend server plays both
    store.write(lambda c: add_connection(c, ghe, now=flow.world.clock.now))
    sealed = seal_secret(
        flow.world.vault, ghe, id="s-ghe", name=CLIENT_SECRET, secret=Secret("x"), now=flow.world.clock.now
    )
    store.write(lambda c: add_secret(c, sealed))
    bob = AccountKey(tenant="acme", connection="ghe", principal="robot")
    state = flow.authorize(flow.start(bob))["state"]
    assert isinstance(flow.finish({"code": "c", "state": state}, connection="ghe"), Connected)

    def who(through: str | None) -> str | None:
        return store.read(lambda c: resolve_alias(c, "acme", "github", "4711", through=through))

    assert (who("forge"), who("ghe"), who(None)) == ("anna", "robot", "anna")
    # Named again: whom its connects have linked goes along, and nobody else.
    assert store.write(lambda c: name_people(c, ghe, "forge.example")) == 1
    assert (who("forge"), who("ghe"), who(None)) == ("anna", "robot", "anna")
    assert store.read(lambda c: resolve_alias(c, "acme", "ghe", "4711")) is None


def test_a_login_or_an_address_alone_links_nobody(flow: BrowserFlow, provider: PretendProvider) -> None:
    """Who is called like somebody else is not that person: only the provider's id counts."""
    provider.user = {"id": 1, "login": "mona", "email": "anna@acme.example"}
    link_person(flow, "robot", "2", login="mona")
    assert isinstance(flow.consents(), Connected)
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "1")) == "anna"
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "2")) == "robot"


def test_a_reconnect_by_another_account_is_refused_and_the_old_grant_stays(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    assert isinstance(flow.consents(), Connected)
    token = flow.world.token()
    flow.woken.clear()
    provider.user = {"id": 815, "login": "hubot"}
    link = flow.start()
    offer = flow.offer(link)
    assert isinstance(offer, ConnectOffer)
    assert str(offer.awaited) == "mona"
    reason = flow.refused({"code": "c", "state": flow.authorize(link)["state"]})
    assert "signed in at GitHub as hubot, and mona is expected" in reason
    assert (flow.world.generation(), flow.world.token(), flow.world.account().external_login) == (
        1,
        token,
        "mona",
    )
    assert flow.world.store.read(lambda c: resolve_alias(c, "acme", "github", "815")) is None


def test_an_admin_may_let_another_account_take_the_place(flow: BrowserFlow, provider: PretendProvider) -> None:
    flow.consents()
    provider.user = {"id": 815, "login": "hubot"}
    outcome = flow.consents(any_account=True)
    assert isinstance(outcome, Connected)
    assert (outcome.generation, outcome.login, flow.world.account().external_id) == (2, "hubot", "815")


def test_who_an_admin_named_is_awaited_at_the_first_connect_too(flow: BrowserFlow, provider: PretendProvider) -> None:
    link_person(flow, "anna", "815", login="hubot")
    assert why(flow.consents()) is Why.WRONG_ACCOUNT
    assert flow.world.generation() == 0
    provider.user = {"id": 815, "login": "hubot"}
    assert isinstance(flow.consents(), Connected)


def test_where_nobody_says_whose_it_is_it_is_not_taken_for_the_one_awaited(flow: BrowserFlow) -> None:
    """Anybody may have signed in through her link: her account keeps what it has."""
    assert isinstance(flow.consents(), Connected)
    token = flow.world.token()
    flow.woken.clear()
    flow.profile = replace(flow.profile, whoami=None)
    outcome = flow.consents()
    assert why(outcome) is Why.OPERATOR
    assert isinstance(outcome, ConnectRefused)
    assert outcome.reason == "mona is expected, and GitHub cannot be asked here whose account this is"
    assert "needs a userinfo_url, or the link --any-account" in outcome.next_step
    assert (flow.world.generation(), flow.world.token(), flow.woken) == (1, token, [])
    # An admin who lets anybody take the place knows no more whose it is, and nor does the account's row.
    assert isinstance(flow.consents(any_account=True), Connected)
    account = flow.world.account()
    assert (flow.world.generation(), account.external_id, account.external_login) == (2, None, None)


def test_whom_an_admin_named_is_not_taken_for_granted_where_nobody_says_whose_it_is(flow: BrowserFlow) -> None:
    flow.profile = replace(flow.profile, whoami=None)
    link_person(flow, "anna", "4711")
    assert why(flow.consents()) is Why.OPERATOR
    assert flow.world.generation() == 0


def test_the_last_page_leads_only_where_an_operator_said(flow: BrowserFlow) -> None:
    url, store, now = "https://app.example/settings?tab=agents", flow.world.store, flow.world.clock.now
    with pytest.raises(BadInput, match="no return target of acme"):
        flow.start(return_to=url)
    assert store.write(lambda c: add_target(c, id="ret-1", tenant="acme", url=url, now=now))
    assert not store.write(lambda c: add_target(c, id="ret-2", tenant="acme", url=url, now=now))
    for near in (url + "&", url + "#x", "https://app.example/", url.replace("app", "evil.app")):
        with pytest.raises(BadInput, match="no return target"):
            flow.start(return_to=near)
    link = flow.connect.start(ANNA, now=now, return_to=url)
    assert flow.connect.about(link.session) == (ANNA, url)
    assert store.write(lambda c: remove_target(c, "ret-1"))
    assert flow.connect.about(link.session) == (ANNA, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example",
        "javascript:alert(1)",
        "https://",
        "https://a@b.example/",
        "https://b.example/#x",
        "http://b/ c",
    ],
)
def test_what_is_no_whole_address_is_no_return_target(url: str) -> None:
    with pytest.raises(BadInput, match="cannot be returned to"):
        checked_url(url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda form: None, "did not answer"),
        (lambda form: reply({"error": "bad_verification_code"}), "used or has expired"),
        (lambda form: reply({"error": "unheard_of"}), "gave no token"),
        (lambda form: reply({"error": "invalid_grant"}, 400), "used or has expired"),
        (lambda form: reply({"error": "incorrect_client_credentials"}), "does not accept this installation's client"),
        (lambda form: reply({}), "gave no token"),
        (lambda form: reply({}, 503), "gave no token"),
        (lambda form: reply({}, 503, retry_after="60"), "gave no token"),
        (lambda form: reply({}, 429), "gave no token"),
    ],
)
def test_a_provider_that_gives_no_token_is_named_and_left_alone_where_it_wants_to_be(
    flow: BrowserFlow, provider: PretendProvider, answer: Callable[[dict[str, str]], Any], words: str
) -> None:
    provider.answer = answer
    state = flow.authorize(flow.start())["state"]
    assert words in flow.refused({"code": "c", "state": state})
    said = answer({})
    held = said is not None and (said[0] == 429 or "retry-after" in said[1])
    assert (flow.gate.look(Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE), CAUTIOUS) is not None) is held


def add_second_secret(world: World) -> None:
    """That goes first, as in the overlap of a rotation."""
    sealed = seal_secret(
        world.vault,
        world.owner,
        id="secret-2",
        name=CLIENT_SECRET,
        secret=Secret("new-canary"),
        now=world.clock.now + timedelta(minutes=1),
    )
    world.store.write(lambda connection: rotate_secret(connection, sealed, retire_at=None))


def test_a_code_is_exchanged_by_the_other_secret_where_the_first_is_refused(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    world = flow.world
    add_second_secret(world)

    def answer(form: dict[str, str]) -> Any:
        known = form["client_secret"] == "client-canary"
        return provider.rotate(form) if known else reply({"error": "incorrect_client_credentials"})

    provider.answer = answer
    state = flow.authorize(flow.start())["state"]
    assert isinstance(flow.finish({"code": "c", "state": state}), Connected)
    assert [form["client_secret"] for form in provider.forms] == ["new-canary", "client-canary"]
    assert world.audited("connection.secret_refused") == 1


def test_the_other_secret_is_shown_at_once_though_people_wait(flow: BrowserFlow, provider: PretendProvider) -> None:
    """The code would be lost: its session is used up by then."""
    now = [1000.0]
    flow.gate = Gate(None, monotonic=lambda: now[0])
    add_second_secret(flow.world)
    provider.answer = lambda form: provider.rotate(form) if form["client_secret"] == "client-canary" else reply({}, 401)
    where, pace = Endpoint.of(flow.world.owner, Credential.AUTHORIZATION_CODE), flow.profile.token_pace
    while flow.gate.enter(where, pace, keep=CONNECT_KEEPS) is None:
        pass
    state = flow.authorize(flow.start())["state"]
    told = flow.finish({"code": "c", "state": state})
    assert isinstance(told, InLine)
    for n in range(20):
        flow.gate.look(where, pace, keep=CONNECT_KEEPS, who=Waiter(f"connect:other-{n}", Rank.CONNECT))
    now[0] += told.turn_in.total_seconds()
    flow.world.clock.advance(told.turn_in)
    assert isinstance(flow.finish({"code": "c", "state": state}), Connected)
    assert len(provider.forms) == 2


def test_a_secret_that_a_former_address_refused_is_not_marked(flow: BrowserFlow, provider: PretendProvider) -> None:
    world = flow.world
    add_second_secret(world)
    provider.refuse_client_after(world.move_token_endpoint)
    state = flow.authorize(flow.start())["state"]
    flow.finish({"code": "c", "state": state})
    assert world.audited("connection.secret_refused") == 0


def test_a_provider_that_does_not_say_who_is_refused(flow: BrowserFlow, provider: PretendProvider) -> None:
    provider.user = {"message": "Bad credentials"}
    state = flow.authorize(flow.start())["state"]
    assert "whose account" in flow.refused({"code": "c", "state": state})


def test_scopes_that_were_not_granted_are_named(flow: BrowserFlow, provider: PretendProvider) -> None:
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r", "scope": "read"})
    state = flow.authorize(flow.start())["state"]
    outcome = flow.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ("write",)
    assert flow.world.grant().scopes == ("read",)


def test_what_a_server_grants_under_another_name_is_not_missing(flow: BrowserFlow, provider: PretendProvider) -> None:
    """Google's names for OpenID's scopes; and offline_access, which whoever got a refresh token was granted."""
    flow.profile = replace(flow.profile, implies=PROFILES["google"].implies)
    named = {"scope": "openid https://www.googleapis.com/auth/userinfo.email"}
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r"} | named)
    asked = ("openid", "email", "profile", "offline_access")
    outcome = flow.consents(scopes=asked)
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ("profile",)
    provider.answer = lambda form: reply({"access_token": "a"} | named)
    outcome = flow.consents(scopes=asked)
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ("profile", "offline_access")


def test_a_token_that_is_no_bearers_connects_nothing_and_is_shown_to_nobody(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r", "token_type": "DPoP"})
    state = flow.authorize(flow.start())["state"]
    assert "not set up" in flow.refused({"code": "c", "state": state})
    assert provider.asked == 0


def end_at_the_provider(connection: Connection, world: World) -> None:
    """What asking GitHub comes to."""
    account = find_account(connection, ANNA)
    assert account is not None
    number = next_number(connection)
    taken = take_grant(connection, account, EndedConsents(upto=number), revocation="rev", now=world.clock.now)
    assert taken is not None
    settle(connection, taken, to=WithdrawalState.DONE, reason=None, now=world.clock.now)


def test_a_reconnect_revives_a_revoked_account(flow: BrowserFlow) -> None:
    flow.world.consent()
    flow.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert flow.world.state() is AccountState.REVOKED
    with pytest.raises(Unavailable, match="a consent of now would end with it"):
        flow.start()  # GitHub would end it together with the old one
    flow.world.store.write(lambda c: end_at_the_provider(c, flow.world))
    state = flow.authorize(flow.start())["state"]
    outcome = flow.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert (outcome.generation, flow.world.state()) == (2, AccountState.ACTIVE)


def test_neither_state_nor_verifier_nor_cookie_lies_open_in_the_ledger(
    flow: BrowserFlow, provider: PretendProvider
) -> None:
    state = flow.authorize(flow.start())["state"]
    flow.finish({"code": "c", "state": state})
    row = flow.world.store.read(lambda c: c.execute(select(connect_sessions)).one())
    stored = repr(tuple(row))
    for secret in (state, provider.forms[0]["code_verifier"], ANNAS_BROWSER):
        assert secret not in stored
