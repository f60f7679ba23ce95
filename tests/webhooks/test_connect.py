"""The connect pages: one browser from the link to the answer, and pages that say what to do."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from flask.testing import FlaskClient

from identity.errors import BadInput, GrantRevoked, Unavailable
from tests.webhooks.parts import NOW, MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


@dataclass(frozen=True, kw_only=True)
class Connected:
    provider: str = "github"
    login: str = "octocat"
    principal: str = "user-1"
    missing_scopes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refused:
    reason: str
    next_step: str


@dataclass
class MemoryConnector:
    """Binds a session to the first browser, and finishes it for that one only."""

    browsers: dict[str, str] = field(default_factory=dict)
    outcome: Connected | Refused = field(default_factory=Connected)
    error: Exception | None = None

    def authorize(self, session: str, *, browser: str, now: datetime) -> str:
        assert now == NOW
        if self.error:
            raise self.error
        self.browsers[f"state-{session}"] = browser
        return f"https://github.example/login/oauth/authorize?client_id=c&state=state-{session}"

    def finish(self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime) -> Connected | Refused:
        assert (connection, now) == ("gh", NOW)
        if self.error:
            raise self.error
        if not browser or self.browsers.pop(params.get("state", ""), None) != browser:
            return Refused(reason="This browser did not open the link.", next_step="Open the link here.")
        return self.outcome


@pytest.fixture
def connector() -> MemoryConnector:
    return MemoryConnector()


def browser_of(connector: MemoryConnector, base_url: str = "https://aswhom.example") -> FlaskClient:
    """A fresh browser."""
    settings = WebSettings(base_url=base_url)
    app = create_app(settings, MemoryLedger(), registry(), MemoryRing(), connector, clock=lambda: NOW)
    client = app.test_client()
    client.environ_base["wsgi.url_scheme"] = base_url.partition(":")[0]
    return client


def test_a_person_is_sent_to_the_provider_and_comes_back_connected(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    away = browser.get("/connect/s1")
    assert away.status_code == 303
    assert away.headers["Location"].startswith("https://github.example/login/oauth/authorize?")
    cookie = away.headers["Set-Cookie"]
    assert re.match(r"__Host-aswhom-connect-[0-9a-f]{16}=[\w-]{43};", cookie)
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=900"):
        assert attribute in cookie

    back = browser.get("/connect/callback/gh?code=c-1&state=state-s1")
    assert back.status_code == 200
    assert "Github is connected" in back.text
    assert "octocat" in back.text
    assert "did not grant" not in back.text
    assert "Max-Age=0" in back.headers["Set-Cookie"]


def test_without_tls_the_cookie_is_plain(connector: MemoryConnector) -> None:
    browser = browser_of(connector, "http://localhost:8000")
    cookie = browser.get("/connect/s1").headers["Set-Cookie"]
    assert cookie.startswith("aswhom-connect-")
    assert "Secure" not in cookie
    assert browser.get("/connect/callback/gh?code=c&state=state-s1").status_code == 200


def test_who_starts_a_connect_cannot_have_another_browser_finish_it(connector: MemoryConnector) -> None:
    attacker, victim = browser_of(connector), browser_of(connector)
    attacker.get("/connect/s1")
    page = victim.get("/connect/callback/gh?code=c&state=state-s1")
    assert page.status_code == 400
    assert "Nothing was connected" in page.text
    assert "This browser did not open the link." in page.text


def test_two_tabs_do_not_disturb_each_other_and_no_answer_counts_twice(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.get("/connect/s1")
    browser.get("/connect/s2")
    for state in ("state-s1", "state-s2"):
        assert browser.get(f"/connect/callback/gh?code=c&state={state}").status_code == 200
        assert browser.get(f"/connect/callback/gh?code=c&state={state}").status_code == 400


def test_missing_scopes_are_named(connector: MemoryConnector) -> None:
    connector.outcome = Connected(missing_scopes=("repo", "read:org"))
    browser = browser_of(connector)
    browser.get("/connect/s1")
    page = browser.get("/connect/callback/gh?code=c&state=state-s1").text
    assert "<code>repo</code>" in page
    assert "<code>read:org</code>" in page


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BadInput("no connect session is known by this link"), 400, "No connect session is known by this link."),
        (GrantRevoked("the user was revoked after the link was made"), 403, "Ask your administrator"),
        (Unavailable("busy"), 503, "Wait a minute"),
        (RuntimeError("canary-77"), 500, "Something failed on our side."),
    ],
)
@pytest.mark.parametrize("path", ["/connect/s1", "/connect/callback/gh?code=canary-77&state=x"])
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
    connector.outcome = Refused(reason="<script>alert(1)</script>", next_step='"><img src=x>')
    browser = browser_of(connector)
    browser.get("/connect/s1")
    page = browser.get("/connect/callback/gh?error=%3Cscript%3E&state=state-s1").text
    assert "<script" not in page
    assert "<img" not in page


def test_an_answer_that_names_a_parameter_twice_is_refused(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.get("/connect/s1")
    assert browser.get("/connect/callback/gh?code=a&code=b&state=state-s1").status_code == 400
    assert "state-s1" in connector.browsers  # nothing was finished


def test_a_previewer_does_not_become_the_browser_of_a_session(connector: MemoryConnector) -> None:
    browser = browser_of(connector)
    browser.head("/connect/s1")
    browser.get("/connect/s1", headers={"Sec-Purpose": "prefetch;prerender"})
    assert connector.browsers == {}


@pytest.mark.parametrize("path", ["/connect/s1", "/connect/callback/gh?code=c&state=none"])
def test_pages_cannot_be_framed_kept_or_leak_their_address(connector: MemoryConnector, path: str) -> None:
    headers = browser_of(connector).get(path).headers
    policy = headers["Content-Security-Policy"]
    for directive in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert directive in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_policy_permits_the_pages_own_style_and_nothing_else(connector: MemoryConnector) -> None:
    page = browser_of(connector).get("/connect/callback/gh?state=none")
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert "http" not in page.text


def test_without_a_connector_there_is_no_connect_page() -> None:
    app = create_app(WebSettings(base_url="https://x"), MemoryLedger(), registry(), MemoryRing())
    assert app.test_client().get("/connect/s1").status_code == 404
