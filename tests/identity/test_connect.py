"""Connecting in the browser: the whole way once, and every callback that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from sqlalchemy import Connection, select

from identity.accounts import find_account
from identity.audit.tables import audit
from identity.connect.flow import Connected, ConnectOffer, ConnectRefused, Finishing
from identity.connect.reasons import Why
from identity.connect.return_targets import add_target, checked_url, remove_target
from identity.connect.sessions import bind_browser, digest, use_up
from identity.connection_secrets import CLIENT_SECRET, add_secret, rotate_secret, seal_secret
from identity.connections import add_connection, rewrite_connection
from identity.errors import BadInput, PolicyDenied, Unavailable
from identity.model import AccountKey, AccountState, Credential, Leased, PrincipalKind, Scope, ScopeKind
from identity.people import name_people, taken_for
from identity.principals import ensure_principal, ensure_tenant, resolve_alias
from identity.providers import PROFILES
from identity.refresh.gate import Endpoint
from identity.refresh.pace import CAUTIOUS, Pace
from identity.scopes import stop_scope
from identity.secret import Secret
from identity.sequence import next_number
from identity.signing import Signer
from identity.tables import connect_sessions
from identity.withdrawals import WithdrawalState, settle, take_grant
from tests.identity.connecting import ANNAS_BROWSER, ANOTHER_BROWSER, Connecting, link_person, why
from tests.identity.providers import PretendProvider, reply
from tests.identity.stores import EngineStore, StandsStill
from tests.identity.world import ANNA, World
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


def test_a_person_connects_their_account(connecting: Connecting, provider: PretendProvider) -> None:
    query = connecting.authorize(connecting.start())
    assert query["redirect_uri"] == "https://aswhom.example/connect/forge/callback"
    assert (query["scope"], query["code_challenge_method"]) == ("read write", "S256")
    outcome = connecting.finish({"code": "code-1", "state": query["state"]})
    assert isinstance(outcome, Connected)
    assert (outcome.key, outcome.generation, outcome.missing_scopes) == (ANNA, 1, ())
    (form,) = provider.forms
    assert (form["grant_type"], form["code"]) == ("authorization_code", "code-1")
    began = str(connecting.world.grant().consented)
    assert (provider.heads[0]["x-aswhom-connect"], provider.questions[0]["x-aswhom-connect"]) == (began, began)
    assert create_s256_code_challenge(form["code_verifier"]) == query["code_challenge"]  # type: ignore[no-untyped-call]
    assert isinstance(connecting.world.examine(), Leased)
    assert connecting.woken == [ANNA]
    account = connecting.world.account()
    assert (account.external_id, account.external_login) == ("4711", "mona")
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "anna"
    assert connecting.world.audited("account.connected") == 1


def test_a_connect_on_the_wire_while_its_people_are_named_anew_is_linked_under_the_new_name(
    connecting: Connecting, provider: PretendProvider
) -> None:
    world = connecting.world

    def named_meanwhile(form: dict[str, str]) -> Any:
        world.store.write(lambda c: name_people(c, world.owner, "forge.example"))
        return provider.rotate(form)

    provider.answer = named_meanwhile
    assert isinstance(connecting.consents(), Connected)
    found = [world.store.read(partial(_holder, name)) for name in ("forge.example", "github")]
    assert found == ["anna", None]


def _holder(name: str, connection: Connection) -> str | None:
    return resolve_alias(connection, "acme", name, "4711")


def test_a_callback_works_once_and_says_the_same_again(connecting: Connecting, provider: PretendProvider) -> None:
    state = connecting.authorize(connecting.start())["state"]
    first = connecting.finish({"code": "code-1", "state": state})
    assert isinstance(first, Connected)
    assert connecting.finish({"code": "code-1", "state": state}) == first
    assert connecting.finish({"code": "another", "state": state}) == first
    assert connecting.connect.result(first.session, browser=ANNAS_BROWSER, now=connecting.world.clock.now) == first
    assert provider.presented.total() == 1
    assert connecting.woken == [ANNA]


def test_only_a_code_that_is_exchanged_counts_against_the_providers_pace(connecting: Connecting) -> None:
    """A page that is reloaded must not take the turns of everybody's refreshes."""
    connecting.profile = replace(connecting.profile, token_pace=Pace(requests=2, per=timedelta(days=2), burst=1))
    declined, late, revoked = ({"state": connecting.authorize(connecting.start())["state"]} for _ in range(3))
    assert why(connecting.finish(declined | {"error": "access_denied"})) is Why.DECLINED
    assert why(connecting.finish(declined | {"code": "c"})) is Why.DECLINED
    connecting.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert why(connecting.finish(revoked | {"code": "c"})) is Why.REVOKED
    connecting.world.clock.advance(timedelta(minutes=11))
    assert why(connecting.finish(late | {"code": "c"})) is Why.EXPIRED
    state = connecting.authorize(connecting.start())["state"]
    first = connecting.finish({"code": "c", "state": state})
    assert isinstance(first, Connected)
    assert connecting.finish({"code": "c", "state": state}) == first  # the only turn there was is taken


def test_a_second_callback_meanwhile_is_told_to_look_again_and_later_that_it_was_cut_off(
    connecting: Connecting,
) -> None:
    link = connecting.start()
    state = connecting.authorize(link)["state"]
    session, now = link.partition(".")[0], connecting.world.clock.now
    assert connecting.world.store.write(lambda c: use_up(c, session, now=now))  # and here its process died
    assert connecting.finish({"code": "c", "state": state}) == Finishing(session=session)
    assert connecting.offer(link, ANNAS_BROWSER) == Finishing(session=session)
    connecting.world.clock.advance(timedelta(minutes=2))
    assert why(connecting.finish({"code": "c", "state": state})) is Why.INTERRUPTED
    assert connecting.world.generation() == 0


def test_a_process_that_stands_still_once_a_session_is_used_up_shows_no_code(
    connecting: Connecting, provider: PretendProvider
) -> None:
    """By then access may have been revoked, and all of it have ended."""
    state = connecting.authorize(connecting.start())["state"]
    store = StandsStill(connecting.world.store)
    connecting.world.store, connecting.monotonic = cast("EngineStore", store), store.monotonic
    assert "was not asked" in connecting.refused({"code": "c", "state": state})
    assert provider.presented.total() == 0


def test_how_it_ended_is_for_the_browser_that_went_through_it(connecting: Connecting) -> None:
    done = connecting.consents()
    assert isinstance(done, Connected)
    for stranger in ("", ANOTHER_BROWSER):
        assert (
            why(connecting.connect.result(done.session, browser=stranger, now=connecting.world.clock.now))
            is Why.OTHER_BROWSER
        )


@pytest.mark.parametrize("params", [{}, {"code": "c"}, {"code": "c", "state": "made-up"}], ids=str)
def test_a_callback_without_one_of_our_states_is_refused(
    connecting: Connecting, provider: PretendProvider, params: dict[str, str]
) -> None:
    connecting.authorize(connecting.start())
    assert "belongs to no link of ours" in connecting.refused(params)
    assert provider.presented.total() == 0


def test_a_callback_in_another_browser_is_refused_and_ends_nothing(
    connecting: Connecting, provider: PretendProvider
) -> None:
    state = connecting.authorize(connecting.start())["state"]
    assert "not the browser" in connecting.refused({"code": "c", "state": state}, browser=ANOTHER_BROWSER)
    assert provider.presented.total() == 0
    assert isinstance(connecting.finish({"code": "c", "state": state}), Connected)


def test_looking_at_a_link_binds_nothing(connecting: Connecting) -> None:
    link = connecting.start()
    for browser in ("", ANOTHER_BROWSER, ANNAS_BROWSER):
        offer = connecting.offer(link, browser)
        assert isinstance(offer, ConnectOffer)
        assert (offer.key, offer.provider, offer.scopes) == (ANNA, "github", ("read", "write"))
        assert (offer.awaited, offer.state) == (None, None)
    connecting.authorize(link, ANOTHER_BROWSER)


def test_a_link_belongs_to_the_first_browser_that_goes_on_from_it(connecting: Connecting) -> None:
    link = connecting.start()
    connecting.authorize(link)
    connecting.authorize(link)
    assert why(connecting.goes_on(link, ANOTHER_BROWSER)) is Why.OTHER_BROWSER
    assert why(connecting.offer(link, ANOTHER_BROWSER)) is Why.OTHER_BROWSER
    assert why(connecting.offer(link)) is Why.OTHER_BROWSER
    # Of two browsers that looked before either went on, one is bound: the statement decides.
    session, now = link.partition(".")[0], connecting.world.clock.now
    for browser, bound in ((ANOTHER_BROWSER, False), (ANNAS_BROWSER, True)):
        bind = partial(bind_browser, session=session, browser_hash=digest(browser), now=now, expires_at=now)
        assert connecting.world.store.write(bind) is bound


def test_a_used_link_says_so_elsewhere_and_how_it_went_in_its_own_browser(connecting: Connecting) -> None:
    link = connecting.start()
    done = connecting.finish({"code": "c", "state": connecting.authorize(link)["state"]})
    assert connecting.offer(link, ANNAS_BROWSER) == connecting.goes_on(link, ANNAS_BROWSER) == done
    assert why(connecting.offer(link)) is why(connecting.goes_on(link, ANOTHER_BROWSER)) is Why.USED


def test_a_link_without_our_signature_is_no_link(connecting: Connecting) -> None:
    link = connecting.start()
    session, _, signature = link.partition(".")
    forged = Connecting(world=connecting.world, http=connecting.http, signer=Signer.from_seed(bytes(31) + b"1"))
    other = connecting.start().partition(".")[2]
    for text in (session, f"{session}.", f"{session}.{other}", f"{other}.{signature}", forged.start(), "é.è", ""):
        assert why(connecting.offer(text)) is why(connecting.goes_on(text)) is Why.UNKNOWN_LINK
    assert isinstance(connecting.offer(link), ConnectOffer)


def test_who_opens_a_link_late_has_the_whole_time_at_the_provider_once(connecting: Connecting) -> None:
    link = connecting.start()
    connecting.world.clock.advance(timedelta(minutes=9))
    state = connecting.authorize(link)["state"]
    connecting.world.clock.advance(timedelta(minutes=9))
    connecting.authorize(link)  # again, from the page before: this adds nothing
    connecting.world.clock.advance(timedelta(minutes=2))
    assert why(connecting.finish({"code": "c", "state": state})) is Why.EXPIRED


def test_a_callback_to_another_connections_address_is_refused(
    connecting: Connecting, provider: PretendProvider
) -> None:
    state = connecting.authorize(connecting.start())["state"]
    assert "another provider connection" in connecting.refused({"code": "c", "state": state}, connection="other")
    assert provider.presented.total() == 0


def test_an_expired_link_neither_opens_nor_finishes(connecting: Connecting, provider: PretendProvider) -> None:
    link = connecting.start()
    state = connecting.authorize(link)["state"]
    connecting.world.clock.advance(timedelta(minutes=11))
    assert why(connecting.finish({"code": "c", "state": state})) is Why.EXPIRED
    assert why(connecting.offer(link)) is Why.OTHER_BROWSER
    assert why(connecting.offer(link, ANNAS_BROWSER)) is why(connecting.goes_on(link)) is Why.EXPIRED
    never_opened = connecting.start()
    connecting.world.clock.advance(timedelta(minutes=11))
    assert why(connecting.offer(never_opened)) is why(connecting.goes_on(never_opened)) is Why.EXPIRED
    assert provider.presented.total() == 0


def test_declining_is_a_refusal_and_mints_nothing(connecting: Connecting, provider: PretendProvider) -> None:
    state = connecting.authorize(connecting.start())["state"]
    assert "declined at GitHub" in connecting.refused({"error": "access_denied", "state": state})
    assert provider.presented.total() == 0
    assert connecting.world.audited("connect.refused") == 1


def test_an_error_is_quoted_only_if_it_is_a_code(connecting: Connecting) -> None:
    state = connecting.authorize(connecting.start())["state"]
    assert connecting.refused({"error": "<script>", "state": state}) == "GitHub answered unnamed"


def test_a_callback_without_a_code_is_refused(connecting: Connecting) -> None:
    state = connecting.authorize(connecting.start())["state"]
    assert "no code" in connecting.refused({"state": state})


@pytest.mark.parametrize("iss", [None, "https://evil.example"])
def test_a_connection_whose_issuer_nobody_knows_believes_no_answer(connecting: Connecting, iss: str | None) -> None:
    connecting.profile = replace(PROFILES["github"], sends_iss=True)
    state = connecting.authorize(connecting.start())["state"]
    params = {"code": "c", "state": state} | ({"iss": iss} if iss else {})
    assert "does not say which provider" in connecting.refused(params)


@pytest.mark.parametrize(
    ("iss", "words"),
    [
        (None, "the answer does not say which provider it comes from"),
        ("https://evil.example", "the answer comes from another provider"),
    ],
)
def test_an_answer_of_another_issuer_than_the_connections_is_refused(
    connecting: Connecting, provider: PretendProvider, iss: str | None, words: str
) -> None:
    """And the session stays as it was: what the right one answers connects."""
    owner = replace(connecting.world.owner, config={"issuer": "https://forge.example"})
    connecting.world.store.write(lambda c: rewrite_connection(c, owner))
    connecting.profile = replace(PROFILES["github"], sends_iss=True)
    state = connecting.authorize(connecting.start())["state"]
    params = {"code": "c", "state": state}
    assert connecting.refused(params | ({"iss": iss} if iss else {})) == words
    assert provider.forms == []
    assert isinstance(connecting.finish(params | {"iss": "https://forge.example"}), Connected)


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
    connecting: Connecting, provider: PretendProvider, scope: Scope
) -> None:
    link, unopened = connecting.start(), connecting.start()
    state = connecting.authorize(link)["state"]
    connecting.world.revoke(scope)
    assert why(connecting.offer(unopened)) is why(connecting.goes_on(unopened)) is Why.REVOKED
    assert "revoked after this link" in connecting.refused({"code": "c", "state": state})
    assert provider.presented.total() == 0  # its code was not even exchanged
    again = connecting.authorize(connecting.start())["state"]
    assert isinstance(connecting.finish({"code": "c", "state": again}), Connected)


def test_no_session_begins_under_a_stopped_tenant(connecting: Connecting) -> None:
    connecting.world.store.write(lambda c: stop_scope(c, Scope(kind=ScopeKind.TENANT, key="acme")))
    with pytest.raises(PolicyDenied, match="stopped"):
        connecting.start()


def test_somebody_elses_provider_account_is_refused_and_nothing_stays(connecting: Connecting) -> None:
    link_person(connecting, "robot", "4711")
    state = connecting.authorize(connecting.start())["state"]
    assert "linked to someone else" in connecting.refused({"code": "c", "state": state})
    assert connecting.world.generation() == 0
    assert connecting.world.audited("account.connected") == 0
    (row,) = connecting.world.store.read(
        lambda c: c.execute(select(audit).where(audit.c.kind == "connect.refused")).all()
    )
    assert (row.tenant_id, row.principal_id, row.outcome) == ("acme", "anna", Why.LINKED_ELSEWHERE)
    assert (row.detail["external_id"], row.detail["linked_to"]) == ("4711", "robot")
    assert row.detail["next"] == "aswhom aliases remove --tenant acme --provider github --external-id 4711"
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "robot"


def test_two_tenants_know_the_same_login_independently(connecting: Connecting) -> None:
    bea = AccountKey(tenant="globex", connection="forge", principal="bea")

    def globex(connection: Connection) -> None:
        now = connecting.world.clock.now
        ensure_tenant(connection, id="globex", name="Globex", now=now)
        ensure_principal(connection, id="bea", tenant="globex", kind=PrincipalKind.USER, name="bea", now=now)

    connecting.world.store.write(globex)
    assert isinstance(connecting.consents(), Connected)
    assert isinstance(connecting.consents(bea), Connected)
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "anna"
    assert connecting.world.store.read(lambda c: resolve_alias(c, "globex", "github", "4711")) == "bea"


def test_the_same_number_at_another_server_of_a_provider_is_another_person(connecting: Connecting) -> None:
    """GitHub Enterprise numbers its users by itself."""
    store, owner = connecting.world.store, connecting.world.owner
    assert isinstance(connecting.consents(), Connected)
    ghe = replace(owner, id="ghe", token_url="https://ghe.example/token", config={"people": "ghe"})
    assert store.read(lambda c: taken_for(c, ghe)) is None
    ghe = replace(ghe, token_url=owner.token_url)  # the same pretend server plays both
    store.write(lambda c: add_connection(c, ghe, now=connecting.world.clock.now))
    sealed = seal_secret(
        connecting.world.vault, ghe, id="s-ghe", name=CLIENT_SECRET, secret=Secret("x"), now=connecting.world.clock.now
    )
    store.write(lambda c: add_secret(c, sealed))
    bob = AccountKey(tenant="acme", connection="ghe", principal="robot")
    state = connecting.authorize(connecting.start(bob))["state"]
    assert isinstance(connecting.finish({"code": "c", "state": state}, connection="ghe"), Connected)

    def who(through: str | None) -> str | None:
        return store.read(lambda c: resolve_alias(c, "acme", "github", "4711", through=through))

    assert (who("forge"), who("ghe"), who(None)) == ("anna", "robot", "anna")
    # Named again: whom its connects have linked goes along, and nobody else.
    assert store.write(lambda c: name_people(c, ghe, "forge.example")) == 1
    assert (who("forge"), who("ghe"), who(None)) == ("anna", "robot", "anna")
    assert store.read(lambda c: resolve_alias(c, "acme", "ghe", "4711")) is None


def test_a_login_or_an_address_alone_links_nobody(connecting: Connecting, provider: PretendProvider) -> None:
    """Who is called like somebody else is not that person: only the provider's id counts."""
    provider.user = {"id": 1, "login": "mona", "email": "anna@acme.example"}
    link_person(connecting, "robot", "2", login="mona")
    assert isinstance(connecting.consents(), Connected)
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "1")) == "anna"
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "2")) == "robot"


def test_a_reconnect_by_another_account_is_refused_and_the_old_grant_stays(
    connecting: Connecting, provider: PretendProvider
) -> None:
    assert isinstance(connecting.consents(), Connected)
    token = connecting.world.token()
    connecting.woken.clear()
    provider.user = {"id": 815, "login": "hubot"}
    link = connecting.start()
    offer = connecting.offer(link)
    assert isinstance(offer, ConnectOffer)
    assert str(offer.awaited) == "mona"
    reason = connecting.refused({"code": "c", "state": connecting.authorize(link)["state"]})
    assert "signed in at GitHub as hubot, and mona is expected" in reason
    assert (connecting.world.generation(), connecting.world.token(), connecting.world.account().external_login) == (
        1,
        token,
        "mona",
    )
    assert connecting.world.store.read(lambda c: resolve_alias(c, "acme", "github", "815")) is None


def test_an_admin_may_let_another_account_take_the_place(connecting: Connecting, provider: PretendProvider) -> None:
    connecting.consents()
    provider.user = {"id": 815, "login": "hubot"}
    outcome = connecting.consents(any_account=True)
    assert isinstance(outcome, Connected)
    assert (outcome.generation, outcome.login, connecting.world.account().external_id) == (2, "hubot", "815")


def test_who_an_admin_named_is_awaited_at_the_first_connect_too(
    connecting: Connecting, provider: PretendProvider
) -> None:
    link_person(connecting, "anna", "815", login="hubot")
    assert why(connecting.consents()) is Why.WRONG_ACCOUNT
    assert connecting.world.generation() == 0
    provider.user = {"id": 815, "login": "hubot"}
    assert isinstance(connecting.consents(), Connected)


def test_where_nobody_says_whose_it_is_it_is_not_taken_for_the_one_awaited(
    connecting: Connecting, provider: PretendProvider
) -> None:
    """Anybody may have signed in through her link: her account keeps what it has."""
    assert isinstance(connecting.consents(), Connected)
    token = connecting.world.token()
    connecting.woken.clear()
    connecting.profile = replace(connecting.profile, whoami=None)
    outcome = connecting.consents()
    assert why(outcome) is Why.OPERATOR
    assert isinstance(outcome, ConnectRefused)
    assert outcome.reason == "mona is expected, and GitHub cannot be asked here whose account this is"
    assert "needs a userinfo_url, or the link --any-account" in outcome.next_step
    assert (connecting.world.generation(), connecting.world.token(), connecting.woken) == (1, token, [])
    # An admin who lets anybody take the place knows no more whose it is, and nor does the account's row.
    assert isinstance(connecting.consents(any_account=True), Connected)
    account = connecting.world.account()
    assert (connecting.world.generation(), account.external_id, account.external_login) == (2, None, None)


def test_whom_an_admin_named_is_not_taken_for_granted_where_nobody_says_whose_it_is(connecting: Connecting) -> None:
    connecting.profile = replace(connecting.profile, whoami=None)
    link_person(connecting, "anna", "4711")
    assert why(connecting.consents()) is Why.OPERATOR
    assert connecting.world.generation() == 0


def test_the_last_page_leads_only_where_an_operator_said(connecting: Connecting) -> None:
    url, store, now = "https://app.example/settings?tab=agents", connecting.world.store, connecting.world.clock.now
    with pytest.raises(BadInput, match="no return target of acme"):
        connecting.start(return_to=url)
    assert store.write(lambda c: add_target(c, id="ret-1", tenant="acme", url=url, now=now))
    assert not store.write(lambda c: add_target(c, id="ret-2", tenant="acme", url=url, now=now))
    for near in (url + "&", url + "#x", "https://app.example/", url.replace("app", "evil.app")):
        with pytest.raises(BadInput, match="no return target"):
            connecting.start(return_to=near)
    link = connecting.connect.start(ANNA, now=now, return_to=url)
    assert connecting.connect.about(link.session) == (ANNA, url)
    assert store.write(lambda c: remove_target(c, "ret-1"))
    assert connecting.connect.about(link.session) == (ANNA, None)


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
    connecting: Connecting, provider: PretendProvider, answer: Callable[[dict[str, str]], Any], words: str
) -> None:
    provider.answer = answer
    state = connecting.authorize(connecting.start())["state"]
    assert words in connecting.refused({"code": "c", "state": state})
    said = answer({})
    held = said is not None and (said[0] == 429 or "retry-after" in said[1])
    assert (
        connecting.gate.look(Endpoint.of(connecting.world.owner, Credential.AUTHORIZATION_CODE), CAUTIOUS) is not None
    ) is held


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
    connecting: Connecting, provider: PretendProvider
) -> None:
    world = connecting.world
    add_second_secret(world)

    def answer(form: dict[str, str]) -> Any:
        known = form["client_secret"] == "client-canary"
        return provider.rotate(form) if known else reply({"error": "incorrect_client_credentials"})

    provider.answer = answer
    state = connecting.authorize(connecting.start())["state"]
    assert isinstance(connecting.finish({"code": "c", "state": state}), Connected)
    assert [form["client_secret"] for form in provider.forms] == ["new-canary", "client-canary"]
    assert world.audited("connection.secret_refused") == 1


def test_a_secret_that_a_former_address_refused_is_not_marked(
    connecting: Connecting, provider: PretendProvider
) -> None:
    world = connecting.world
    add_second_secret(world)
    provider.refuse_client_after(world.move_token_endpoint)
    state = connecting.authorize(connecting.start())["state"]
    connecting.finish({"code": "c", "state": state})
    assert world.audited("connection.secret_refused") == 0


def test_a_provider_that_does_not_say_who_is_refused(connecting: Connecting, provider: PretendProvider) -> None:
    provider.user = {"message": "Bad credentials"}
    state = connecting.authorize(connecting.start())["state"]
    assert "whose account" in connecting.refused({"code": "c", "state": state})


def test_scopes_that_were_not_granted_are_named(connecting: Connecting, provider: PretendProvider) -> None:
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r", "scope": "read"})
    state = connecting.authorize(connecting.start())["state"]
    outcome = connecting.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ("write",)
    assert connecting.world.grant().scopes == ("read",)


def end_at_the_provider(connection: Connection, world: World) -> None:
    """What asking GitHub comes to."""
    account = find_account(connection, ANNA)
    assert account is not None
    number = next_number(connection)
    taken = take_grant(connection, account, before=number, revocation="rev", now=world.clock.now)
    assert taken is not None
    settle(connection, taken, to=WithdrawalState.DONE, reason=None, now=world.clock.now)


def test_a_reconnect_revives_a_revoked_account(connecting: Connecting) -> None:
    connecting.world.consent()
    connecting.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert connecting.world.state() is AccountState.REVOKED
    with pytest.raises(Unavailable, match="a consent of now would end with it"):
        connecting.start()  # GitHub would end it together with the old one
    connecting.world.store.write(lambda c: end_at_the_provider(c, connecting.world))
    state = connecting.authorize(connecting.start())["state"]
    outcome = connecting.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert (outcome.generation, connecting.world.state()) == (2, AccountState.ACTIVE)


def test_neither_state_nor_verifier_nor_cookie_lies_open_in_the_ledger(
    connecting: Connecting, provider: PretendProvider
) -> None:
    state = connecting.authorize(connecting.start())["state"]
    connecting.finish({"code": "c", "state": state})
    row = connecting.world.store.read(lambda c: c.execute(select(connect_sessions)).one())
    stored = repr(tuple(row))
    for secret in (state, provider.forms[0]["code_verifier"], ANNAS_BROWSER):
        assert secret not in stored
