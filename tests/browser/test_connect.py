"""People connect their accounts in a real browser, at providers nobody here wrote and at the sandbox's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import pytest

from deploy.demo.provision import GITHUB, linear_of
from identity.connect.reasons import Why
from identity.connect.return_targets import add_target
from identity.model import AccountKey, AccountState, Scope, ScopeKind
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.states import JobState, Wait
from tests.browser.connect_site import ConnectSite
from tests.browser.person import Person

Meet = Callable[..., Person]

pytestmark = pytest.mark.usefixtures("chromium")  # by name, so that CI installs it


@pytest.mark.timeout(400)
def test_a_person_connects_and_the_job_that_waited_for_her_goes_on(connect_site: ConnectSite, person: Meet) -> None:
    system, grace = connect_site.system, person(java_script_enabled=False)
    at_github = AccountKey(tenant="acme", connection=GITHUB, principal="acme.grace")
    at_linear = AccountKey(tenant="acme", connection=linear_of("acme"), principal="acme.grace")
    grace.goes_to(connect_site.link(at_github))
    assert grace.heading == "Connect GitHub"
    for said in ("Acme asks to act at GitHub for you, grace", "Create and change issues", "Comment on an issue"):
        assert said in grace.text
    grace.goes_on()
    grace.signs_in("grace")
    assert grace.heading == "GitHub is connected"
    assert "as grace" in grace.text

    system.start("worker", "housekeeping")
    system.pull("acme/shop", "grace", "bug")
    system.wait(lambda: [job.wait for job in system.jobs()] == [Wait.CONSENT], "that it waits for her", seconds=90)
    grace.connects(connect_site.link(at_linear), "grace")
    assert grace.heading == "Linear is connected"
    system.wait(lambda: [job.state for job in system.jobs()] == [JobState.DONE], "that it goes on", seconds=90)
    assert grace.complaints == []


def test_an_account_is_connected_at_a_certified_server(connect_site: ConnectSite, person: Meet) -> None:
    key, name = connect_site.someone("olga", at="oidc"), f"olga-{secrets.token_hex(3)}"
    olga = person()
    olga.goes_to(connect_site.link(key))
    olga.goes_on()
    olga.signs_in_at_oidc(name)
    assert olga.heading == "OpenID is connected"
    assert f"as {name}" in olga.text
    assert "iss=" in olga.callbacks[0]
    assert connect_site.generation(key) == 1


@pytest.mark.slow
def test_a_scope_that_was_not_granted_is_named(connect_site: ConnectSite, person: Meet) -> None:
    key, olga = connect_site.someone("olga", at="oidc"), person()
    olga.goes_to(connect_site.link(key, scopes=("openid", "api", "payments:write")))
    olga.goes_on()
    olga.signs_in_at_oidc(f"olga-{secrets.token_hex(3)}")
    assert "Not everything was allowed" in olga.text
    assert "payments:write" in olga.text
    olga.finds_it_accessible("missing")
    assert connect_site.generation(key) == 1


@pytest.mark.slow
def test_who_says_no_has_connected_nothing_and_is_led_back(connect_site: ConnectSite, person: Meet) -> None:
    key, back = connect_site.someone("ada"), f"{connect_site.system.web}/healthz"
    add = partial(add_target, id=secrets.token_hex(8), tenant="acme", url=back, now=datetime.now(UTC))
    connect_site.system.runtime.database.write(add)
    ada = person()
    ada.connects(connect_site.link(key, return_to=back), "ada", decides="Deny")
    assert ada.heading == "You said no"
    assert "access was declined at GitHub" in ada.text.replace("Access", "access")
    ada.finds_it_accessible("declined")
    assert (connect_site.generation(key), connect_site.refusals(key)) == (0, ["declined"])
    ada.tab.get_by_role("link", name="Return to").click()
    ada.tab.wait_for_url(f"{back}?aswhom=declined")


@pytest.mark.slow
def test_a_link_that_is_expired_mistyped_or_another_browsers_has_a_page_of_its_own(
    connect_site: ConnectSite, person: Meet
) -> None:
    key, ada, eve = connect_site.someone("ada"), person(), person()
    ada.goes_to(connect_site.link(key, age=timedelta(minutes=11)))
    assert ada.heading == "This link has expired"
    assert "ask for a new link" in ada.text.lower()
    ada.finds_it_accessible("expired")
    link = connect_site.link(key)
    ada.goes_to(link[:-1])
    assert ada.heading == "This link is not known"

    ada.goes_to(link)
    ada.goes_on()
    eve.goes_to(link)
    assert eve.heading == "This link belongs to another browser"
    ada.signs_in("ada")
    eve.goes_to(link)
    assert eve.heading == "This link was used already"
    eve.goes_to(ada.tab.url)
    assert eve.heading == "This link belongs to another browser"
    ada.goes_to(link)
    assert ada.heading == "GitHub is connected"


def test_another_browser_cannot_finish_what_one_has_begun(connect_site: ConnectSite, person: Meet) -> None:
    """Eve begins with her own link, says yes as herself, and has Ada's browser open the answer."""
    key, eve, ada = connect_site.someone("eve"), person(), person()
    eve.goes_to(connect_site.link(key))
    eve.goes_on()
    ada.goes_to(eve.answer_for("margaret"))
    assert ada.heading == "This link belongs to another browser"
    assert connect_site.generation(key) == 0


def test_who_follows_a_link_of_somebody_elses_to_the_end_gives_them_nothing_and_follows_their_own(
    connect_site: ConnectSite, person: Meet
) -> None:
    """Mallory makes a link for himself and sends it to Ada, whom the product has signed in in her browser."""
    system, back = connect_site.system, f"{connect_site.system.web}/healthz"
    add = partial(add_target, id=secrets.token_hex(8), tenant="acme", url=back, now=datetime.now(UTC))
    system.runtime.database.write(add)
    mallory, her, ada = connect_site.someone("mallory"), connect_site.someone("ada"), person()

    def comes_back(key: AccountKey, nonce: str) -> dict[str, str]:
        ada.goes_to(connect_site.link(key, return_to=back, confirm=True, nonce=nonce))
        ada.goes_on()
        ada.signs_in("margaret", back="/healthz")
        return dict(parse_qsl(urlsplit(ada.tab.url).query))

    brought = comes_back(mallory, "of-his-session")
    assert brought["aswhom"] == "confirm"
    ada.goes_to(f"{system.web}/connect/result/{brought['aswhom_link']}")
    assert ada.heading == "Almost connected"
    ada.finds_it_accessible("unconfirmed")
    assert connect_site.confirmed(brought, her, "") is Why.UNCONFIRMED
    ada.goes_to(f"{system.web}/connect/result/{brought['aswhom_link']}")
    assert ada.heading == "It was not confirmed"
    assert (connect_site.generation(mallory), connect_site.refusals(mallory)) == (0, ["unconfirmed"])
    system.start("housekeeping")
    system.wait(lambda: connect_site.ended(mallory) == [WithdrawalState.DONE], "that the provider ended it")

    hers = "of-her-session"
    assert connect_site.confirmed(comes_back(her, hers), her, hers) is None
    assert (connect_site.generation(her), connect_site.state(her)) == (1, AccountState.ACTIVE)


def test_what_another_consented_to_by_a_link_for_ada_is_not_hers_when_she_opens_where_it_led_him(
    connect_site: ConnectSite, person: Meet
) -> None:
    """Mallory got hold of a link for Ada, goes through it as himself, and sends her the address he comes back to."""
    back = f"{connect_site.system.web}/healthz"
    add = partial(add_target, id=secrets.token_hex(8), tenant="acme", url=back, now=datetime.now(UTC))
    connect_site.system.runtime.database.write(add)
    her, mallory, ada = connect_site.someone("ada"), person(), person()
    mallory.goes_to(connect_site.link(her, return_to=back, confirm=True, nonce="of-a-session-that-is-not-hers"))
    mallory.goes_on()
    mallory.signs_in("margaret", back="/healthz")
    ada.goes_to(mallory.tab.url)
    brought = dict(parse_qsl(urlsplit(ada.tab.url).query))
    assert connect_site.confirmed(brought, her, "of-her-session") is Why.UNCONFIRMED
    assert (connect_site.generation(her), connect_site.refusals(her)) == (0, ["unconfirmed"])


def test_whose_grant_is_dead_is_told_why_and_connects_again(connect_site: ConnectSite, person: Meet) -> None:
    key, margaret = connect_site.someone("margaret", of="globex", at=linear_of("globex")), person()
    margaret.connects(connect_site.link(key), "margaret")
    assert margaret.heading == "Linear is connected"
    connect_site.dies(key, reason="Linear does not accept its credential any more")
    margaret.goes_to(connect_site.link(key))
    assert margaret.heading == "Reconnect Linear"
    for said in ("Why again? Linear no longer takes the access that you gave", "Sign in at Linear as margaret"):
        assert said in margaret.text
    margaret.finds_it_accessible("reconnect")
    margaret.goes_on()
    margaret.signs_in("margaret")
    assert margaret.heading == "Linear is connected"
    assert (connect_site.generation(key), connect_site.state(key)) == (2, AccountState.ACTIVE)
    assert margaret.complaints == []


def test_the_wrong_account_is_refused_and_the_old_one_stays(connect_site: ConnectSite, person: Meet) -> None:
    key, linus = connect_site.someone("linus", at=linear_of("acme")), person()
    linus.connects(connect_site.link(key), "ada")
    assert linus.heading == "Linear is connected"
    linus.goes_to(connect_site.link(key))
    assert "Sign in at Linear as ada" in linus.text
    linus.goes_on()
    linus.signs_in("grace")
    assert linus.heading == "You signed in with another account"
    assert "as grace, and ada is expected" in linus.text
    linus.finds_it_accessible("wrong-account")
    assert (connect_site.generation(key), connect_site.refusals(key)) == (1, ["wrong_account"])


@pytest.mark.slow
def test_a_login_that_is_somebody_elses_is_refused(connect_site: ConnectSite, person: Meet) -> None:
    first, second = connect_site.someone("first", at="oidc"), connect_site.someone("second", at="oidc")
    login = f"shared-{secrets.token_hex(3)}"
    for key in (first, second):
        one = person()
        one.goes_to(connect_site.link(key))
        one.goes_on()
        one.signs_in_at_oidc(login)
    assert one.heading == "This account is somebody else’s here"
    assert first.principal not in one.text
    assert (connect_site.generation(first), connect_site.generation(second)) == (1, 0)
    assert connect_site.refusals(second) == ["linked_elsewhere"]


def test_what_is_revoked_while_she_is_at_the_provider_stays_revoked(connect_site: ConnectSite, person: Meet) -> None:
    key, ada = connect_site.someone("ada"), person()
    ada.goes_to(connect_site.link(key))
    ada.goes_on()
    connect_site.system.revoke(Scope(kind=ScopeKind.USER, key=key.principal), "acme")
    ada.signs_in("margaret")
    assert ada.heading == "Access was withdrawn meanwhile"
    assert (connect_site.generation(key), connect_site.refusals(key)) == (0, ["revoked"])


@pytest.mark.slow
def test_reload_back_and_a_second_answer_change_nothing(connect_site: ConnectSite, person: Meet) -> None:
    key, linus = connect_site.someone("linus", of="globex", at=linear_of("globex")), person()
    before = connect_site.codes_shown()
    linus.goes_to(connect_site.link(key))
    linus.goes_on()
    linus.tab.get_by_label("Sign in as").select_option("linus")
    linus.tab.get_by_role("button", name="Allow").dblclick(no_wait_after=True)
    linus.comes_back()
    look_again = linus.tab.get_by_role("link", name="Look again")
    while look_again.count():  # the second click's answer overtook the first one's
        look_again.click()
    assert linus.heading == "Linear is connected"
    assert "code=" not in linus.tab.url
    linus.tab.reload()
    assert linus.heading == "Linear is connected"
    linus.goes_to(linus.callbacks[0])  # the very answer again
    assert linus.heading == "Linear is connected"
    linus.tab.go_back()
    linus.goes_to(linus.callbacks[-1])
    assert linus.heading == "Linear is connected"
    assert (connect_site.generation(key), connect_site.codes_shown() - before) == (1, 1)
    assert linus.complaints == []


@pytest.mark.slow
def test_the_pages_before_and_after_are_accessible(connect_site: ConnectSite, person: Meet) -> None:
    key, ada = connect_site.someone("ada"), person()
    ada.goes_to(connect_site.link(key))
    ada.finds_it_accessible("start")
    assert ada.tab.locator("html").get_attribute("lang") == "en"
    ada.tab.keyboard.press("Tab")
    focused = ada.tab.evaluate("document.activeElement.innerText")
    assert focused == "Continue to GitHub"  # the first thing a keyboard reaches is what there is to do
    ada.goes_on()
    ada.signs_in("linus")
    ada.finds_it_accessible("done")
    ada.goes_to(connect_site.link(key))
    ada.finds_it_accessible("again")
    assert ada.complaints == []
