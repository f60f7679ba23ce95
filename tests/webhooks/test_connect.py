"""The connect pages: one browser from the link to the answer, and pages that say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from identity.connect.reasons import Why
from identity.errors import BadInput, GrantRevoked, KeyMissing, Misconfigured, Unavailable
from identity.model import AccountState, Effect
from identity.sql.store import CommitUnknown
from pipeline.accounts.abilities import Ability
from pipeline.accounts.connecting import (
    Away,
    Done,
    Ended,
    Failed,
    InLine,
    Offer,
    Party,
    Permission,
    Unconfirmed,
    Underway,
)
from tests.webhooks.parts import NOW, MemoryLedger, MemoryRing, registry
from webhooks import pages
from webhooks.app import create_app
from webhooks.connect import PAGES
from webhooks.settings import WebSettings

PARTY = Party(provider="GitHub", person="ada", tenant="Acme")
OFFER = Offer(
    party=PARTY,
    host="github.example",
    permissions=(Permission(scope="issues:write", words="Create issues"), Permission(scope="odd", words=None)),
    held=(),
    abilities=(Ability(does="Comment on an issue", effect=Effect.WRITE),),
    waiting=(),
    awaited=None,
    again=None,
    good_for=timedelta(minutes=7),
)
DONE = Done(session="s1", party=PARTY, login="octocat", missing=(), return_to=None)
FAILED = Failed(why=Why.OTHER_BROWSER, reason="this is not the browser", next_step="open the link here")


@dataclass
class MemoryConnector:
    """Binds a link to the first browser that goes on, and finishes it for that one only."""

    browsers: dict[str, str] = field(default_factory=dict)
    offered: Offer | Ended = OFFER
    outcome: Done | Failed | Underway | Unconfirmed = DONE
    line: InLine | None = None
    error: Exception | None = None

    def offer(self, link: str, *, browser: str, now: datetime) -> Offer | Ended:
        assert now == NOW
        self._maybe_fail()
        return self.offered

    def authorize(self, link: str, *, browser: str, now: datetime) -> Away | Ended:
        self._maybe_fail()
        if self.browsers.setdefault(f"state-{link}", browser) != browser:
            return FAILED
        return Away(party=PARTY, url=f"https://github.example/login?client_id=c&state=state-{link}")

    def finish(self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime) -> Ended | InLine:
        assert (connection, now) == ("gh", NOW)
        self._maybe_fail()
        if not browser or self.browsers.get(params.get("state", "")) != browser:
            return FAILED
        return self.line or replace(self.outcome, session="s1")

    def result(self, session: str, *, browser: str, now: datetime) -> Ended:
        self._maybe_fail()
        return self.outcome if browser in self.browsers.values() else FAILED

    def _maybe_fail(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def connector() -> MemoryConnector:
    return MemoryConnector()


def browser_of(connector: MemoryConnector, base_url: str = "https://aswhom.example") -> FlaskClient:
    """A fresh browser."""
    settings = WebSettings(base_url=base_url)
    app = create_app(settings, MemoryLedger(), registry(), MemoryRing(), connector=connector, clock=lambda: NOW)
    client = app.test_client()
    client.environ_base["wsgi.url_scheme"] = base_url.partition(":")[0]
    return client


CALLBACK = "/connect/callback/gh?code=c-1&state=state-l1"


def test_a_person_reads_what_is_asked_goes_on_and_comes_back_connected(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    start = browser.get("/connect/l1")
    assert start.status_code == 200
    assert "Set-Cookie" not in start.headers
    for said in ("Acme asks to act at GitHub", "ada", "Create issues", "<code>odd</code>", "Comment on an issue"):
        assert said in start.text
    assert "github.example" in start.text
    assert "7 more minutes" in start.text
    assert connector.browsers == {}  # to look binds nothing

    away = browser.post("/connect/l1", headers={"Origin": "https://aswhom.example"})
    assert away.status_code == 200
    url = "https://github.example/login?client_id=c&amp;state=state-l1"
    assert f'<meta http-equiv="refresh" content="0; url={url}">' in away.text
    assert f'href="{url}"' in away.text
    cookie = away.headers["Set-Cookie"]
    assert re.match(r"__Host-aswhom-browser=[\w-]{43};", cookie)
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=600"):
        assert attribute in cookie

    back = browser.get(CALLBACK)
    assert (back.status_code, back.headers["Location"]) == (303, "/connect/result/s1")
    for _ in range(2):  # a reload says the same
        page = browser.get("/connect/result/s1")
        assert page.status_code == 200
        assert "GitHub is connected" in page.text
        assert "octocat" in page.text
        assert "did not grant" not in page.text


@pytest.mark.parametrize(("turn", "seconds", "words"), [(4.2, 5, "in 5 s"), (150, 150, "in 2 min")])
def test_a_person_whose_turn_has_not_come_waits_on_a_page_that_goes_on_by_itself(
    connector: MemoryConnector, turn: float, seconds: int, words: str
) -> None:
    browser = browser_of(connector)
    browser.post("/connect/l1", headers={"Origin": "https://aswhom.example"})
    connector.line = InLine(party=PARTY, turn_in=timedelta(seconds=turn))
    page = browser.get(CALLBACK)
    assert page.status_code == 202
    assert f'<meta http-equiv="refresh" content="{seconds}">' in page.text  # this very address, with its code
    assert words in page.text
    assert "c-1" not in page.text
    connector.line = None
    assert browser.get(CALLBACK).headers["Location"] == "/connect/result/s1"


def test_without_tls_the_cookie_is_plain(connector: MemoryConnector) -> None:
    browser = browser_of(connector, "http://localhost:8000")
    cookie = browser.post("/connect/l1").headers["Set-Cookie"]
    assert cookie.startswith("aswhom-browser=")
    assert "Secure" not in cookie
    assert browser.get(CALLBACK).status_code == 303


def test_who_starts_a_connect_cannot_have_another_browser_finish_it(connector: MemoryConnector) -> None:
    attacker, victim = browser_of(connector), browser_of(connector)
    attacker.post("/connect/l1")
    page = victim.get(CALLBACK)
    assert page.status_code == 403
    assert "Nothing was connected" in page.text
    assert "This is not the browser." in page.text
    assert victim.get("/connect/result/s1").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_no_other_site_can_send_a_browser_on(connector: MemoryConnector, headers: dict[str, str]) -> None:
    page = browser_of(connector).post("/connect/l1", headers=headers)
    assert page.status_code == 400
    assert "another site sent this browser" in page.text.lower()
    assert connector.browsers == {}


def test_a_browser_keeps_its_cookie_so_two_tabs_do_not_disturb_each_other(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.post("/connect/l1")
    browser.post("/connect/l2")
    assert len(set(connector.browsers.values())) == 1
    for state in ("state-l1", "state-l2"):
        assert browser.get(f"/connect/callback/gh?code=c&state={state}").status_code == 303


def test_a_cookie_we_did_not_make_is_not_taken(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.set_cookie("__Host-aswhom-browser", "guessable", domain="localhost", secure=True)
    browser.post("/connect/l1")
    assert len(connector.browsers["state-l1"]) == 43


def test_missing_scopes_are_named(connector: MemoryConnector) -> None:
    connector.outcome = replace(DONE, missing=(Permission(scope="repo", words="Read code"),))
    browser = browser_of(connector)
    browser.post("/connect/l1")
    page = browser.get("/connect/result/s1").text
    assert "Not everything was allowed" in page
    assert "Read code" in page
    assert "<code>repo</code>" in page


@pytest.mark.parametrize("state", [AccountState.NEEDS_RECONNECT, AccountState.REVOKED, AccountState.SUSPENDED])
def test_a_reconnect_says_why_again_and_as_whom(connector: MemoryConnector, state: AccountState) -> None:
    connector.offered = replace(OFFER, again=state, awaited="octocat")
    page = browser_of(connector).get("/connect/l1").text
    assert "<h1>Reconnect GitHub</h1>" in page
    assert "Why again?" in page
    assert "as <strong>octocat</strong>" in page


@pytest.mark.parametrize("why", Why)
def test_every_reason_has_a_heading_a_status_and_a_next_step(connector: MemoryConnector, why: Why) -> None:
    connector.offered = Failed(why=why, reason="because", next_step="do this")
    page = browser_of(connector).get("/connect/l1")
    heading, status = PAGES[why]
    assert page.status_code == status
    for said in (f"<h1>{heading}</h1>", "Because.", "Do this.", "What now?"):
        assert said in page.text


def test_what_is_being_finished_elsewhere_can_be_looked_at_again(connector: MemoryConnector) -> None:
    connector.outcome = Underway(session="s1")
    browser = browser_of(connector)
    browser.post("/connect/l1")
    assert browser.get(CALLBACK).headers["Location"] == "/connect/result/s1"
    page = browser.get("/connect/result/s1")
    assert page.status_code == 202
    assert "Look again" in page.text


UNCONFIRMED = Unconfirmed(
    session="s1",
    party=PARTY,
    good_for=timedelta(minutes=5),
    return_to="https://app.example/settings?tab=a%26b",
    code="code-7",
)


def test_what_is_to_be_confirmed_leads_to_the_product_with_a_code_once(connector: MemoryConnector) -> None:
    connector.outcome = UNCONFIRMED
    browser = browser_of(connector)
    browser.post("/connect/l1")
    on = browser.get(CALLBACK)
    said = "aswhom=confirm&aswhom_link=s1&aswhom_code=code-7"
    assert (on.status_code, on.headers["Location"]) == (303, f"https://app.example/settings?tab=a%26b&{said}")
    assert (on.headers["Referrer-Policy"], on.headers["Cache-Control"]) == ("same-origin", "no-store")

    connector.outcome = replace(UNCONFIRMED, code=None)  # as a reload finds it
    assert browser.get(CALLBACK).headers["Location"] == "/connect/result/s1"
    page = browser.get("/connect/result/s1")
    assert page.status_code == 202
    for words in ("Almost connected", "until app.example confirms", "<strong>ada</strong>", "5 minutes"):
        assert words in page.text
    assert 'tab=a%26b&amp;aswhom=unconfirmed"' in page.text


def test_what_is_to_be_confirmed_where_no_way_leads_any_more_says_that_it_is_not(connector: MemoryConnector) -> None:
    connector.outcome = replace(UNCONFIRMED, return_to=None)
    browser = browser_of(connector)
    browser.post("/connect/l1")
    assert browser.get(CALLBACK).headers["Location"] == "/connect/result/s1"
    page = browser.get("/connect/result/s1").text
    assert "Nothing is connected until the place where you got the link confirms" in page
    assert "code-7" not in page


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(DONE, "connected"), (replace(FAILED, why=Why.DECLINED, session="s1", party=PARTY), "declined")],
)
def test_the_last_page_leads_back_with_how_it_ended(
    connector: MemoryConnector, outcome: Done | Failed, told: str
) -> None:
    connector.outcome = replace(outcome, return_to="https://app.example/settings?tab=a%26b")
    browser = browser_of(connector)
    browser.post("/connect/l1")
    page = browser.get("/connect/result/s1").text
    assert f'href="https://app.example/settings?tab=a%26b&amp;aswhom={told}"' in page
    assert "Return to app.example" in page


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BadInput("no connect session is known by this link"), 400, "No connect session is known by this link."),
        (GrantRevoked("the user was revoked after the link was made"), 403, "Ask whether you may connect again"),
        (Misconfigured("there is no provider connection canary-77"), 500, "A setting of this installation is wrong."),
        (KeyMissing("canary-77 needs vault key 2"), 503, "Wait a minute, then reload this page;"),
        (Unavailable("busy"), 503, "Wait a minute"),
        (CommitUnknown("canary-77"), 503, "Wait a minute"),
        (RuntimeError("canary-77"), 500, "Something failed on our side"),
    ],
)
@pytest.mark.parametrize("path", ["/connect/l1", "/connect/callback/gh?code=canary-77&state=x", "/connect/result/s1"])
def test_every_failure_is_a_page_that_says_what_to_do(
    connector: MemoryConnector, error: Exception, status: int, words: str, path: str
) -> None:
    connector.error = error
    page = browser_of(connector).get(path)
    assert page.status_code == status
    assert page.content_type == "text/html; charset=utf-8"
    assert words in page.text
    assert "What now?" in page.text
    assert "canary-77" not in page.text
    assert ("Retry-After" in page.headers) is (status == 503)


def test_what_a_provider_or_a_login_says_is_text_never_markup(connector: MemoryConnector) -> None:
    connector.outcome = replace(FAILED, session="s1", reason="<script>alert(1)</script>", next_step='"><img src=x>')
    browser = browser_of(connector)
    browser.post("/connect/l1")
    page = browser.get("/connect/result/s1").text
    assert "<script" not in page
    assert "<img" not in page


def test_an_answer_that_names_a_parameter_twice_is_refused(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.post("/connect/l1")
    page = browser.get("/connect/callback/gh?code=a&code=b&state=state-l1")
    assert page.status_code == 400
    assert "names a parameter twice" in page.text


def test_a_byte_that_no_text_has_is_the_senders_mistake_and_not_ours(
    connector: MemoryConnector, caplog: pytest.LogCaptureFixture
) -> None:
    page = browser_of(connector).get("/connect/callback/gh?code=%00&state=state-l1")
    assert (page.status_code, "request failed" in caplog.text) == (400, False)


def test_a_previewer_is_not_the_person(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    assert browser.head("/connect/l1").status_code == 204
    assert browser.get("/connect/l1", headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 204
    assert connector.browsers == {}


@pytest.mark.parametrize("path", ["/connect/l1", CALLBACK, "/connect/result/s1"])
def test_pages_cannot_be_framed_kept_or_leak_their_address(connector: MemoryConnector, path: str) -> None:
    headers = browser_of(connector).get(path).headers
    policy = headers["Content-Security-Policy"]
    for directive in ("default-src 'none'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_one_style_sheet_is_kept_by_the_version_its_address_names(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    (address,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', browser.get("/connect/l1").text)
    style = browser.get(address)
    assert style.content_type == "text/css; charset=utf-8"
    assert "immutable" in style.headers["Cache-Control"]
    assert "immutable" not in browser.get("/static/aswhom.css?v=older").headers["Cache-Control"]


@pytest.mark.parametrize("template", sorted(Path(pages.__file__).parent.rglob("*.html")), ids=lambda path: path.name)
def test_no_page_has_anything_inline_or_from_elsewhere(template: Path) -> None:
    text = template.read_text()
    for forbidden in ("<script>", "<style", "style=", "onclick", "|safe", "http://", "https://"):
        assert forbidden not in text


def test_without_a_connector_there_is_no_connect_page() -> None:
    app = create_app(WebSettings(base_url="https://x"), MemoryLedger(), registry(), MemoryRing())
    assert app.test_client().get("/connect/l1").status_code == 404
