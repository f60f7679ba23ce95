"""A product that does literally what docs/howto/connect-your-users.md says, with people in browsers of their own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask, g, redirect, request, session, url_for
from flask.testing import FlaskClient
from markupsafe import Markup

from identity.accounts.grants import get_grant
from identity.accounts.states import find_account
from identity.agents.api_keys import Role
from identity.connect.return_targets import add_target
from identity.connections.registry import get_connection, rewrite_connection
from identity.model import AccountKey
from tests.api.agents_api import AgentsApi
from tests.docs.pages import DOCS
from tests.identity.providers import PretendProvider, pretend_provider
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

BACK = "https://app.example/settings/agents"
HANDLERS = re.findall(
    r"^```python\n(.*?)^```",
    (DOCS / "howto" / "connect-your-users.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Person:
    """A browser, signed in at the product, and what it does at Aswhom."""

    product: FlaskClient
    aswhom: FlaskClient

    def presses_connect(self) -> str:
        """The link that they got."""
        return self.product.post("/settings/agents/connect").headers["Location"]

    def follows(self, link: str) -> str:
        """The address that they come back to, which they have not opened yet."""
        away = self.aswhom.post(urlsplit(link).path)
        (line,) = (line for line in away.text.splitlines() if "http-equiv" in line)
        at_provider = Markup(line.partition("url=")[2].partition('"')[0]).unescape()
        (state,) = parse_qs(urlsplit(at_provider).query)["state"]
        back = self.aswhom.get("/connect/callback/gh", query_string={"code": "c-1", "state": state})
        assert back.headers["Location"].startswith(f"{BACK}?aswhom=confirm&")
        return back.headers["Location"]

    def opens(self, address: str) -> str:
        """What the product then says."""
        parts = urlsplit(address)
        answer = self.product.get(f"{parts.path}?{parts.query}", follow_redirects=True)
        assert answer.status_code == 200
        return answer.text


class GuideProduct:
    """The guide's handlers, in a Flask application whose people are signed in by its session."""

    def __init__(self, api: AgentsApi) -> None:
        self.api = api
        self.app = Flask("product")
        self.app.secret_key = secrets.token_bytes(16)

        def signed_in(view: Callable[[], Any]) -> Callable[[], Any]:
            @wraps(view)
            def let_in() -> Any:
                g.user = session["user"]
                return view()

            return let_in

        names = {
            "app": self.app,
            "signed_in": signed_in,
            "current_user": _CurrentUser(),
            "session": session,
            "request": request,
            "redirect": redirect,
            "url_for": url_for,
            "quote": quote,
            "secrets": secrets,
            "render_template": lambda _, outcome=None: str(outcome),
            "httpx": SimpleNamespace(post=self._post),
            "KEY": api.keys["acme", Role.PRODUCT].reveal(),
            "BACK": BACK,
        }
        for handler in HANDLERS:
            exec(handler, names)

    def person(self, user: str) -> Person:
        browser = self.app.test_client()
        with browser.session_transaction() as kept:
            kept["user"] = user
        return Person(browser, self.api.app.test_client())

    def has_connected(self, user: str) -> bool:
        def read(c: Any) -> bool:
            account = find_account(c, AccountKey(tenant="acme", connection="gh", principal=f"acme.{user}"))
            return account is not None and get_grant(c, account.id) is not None

        return self.api.database.read(read)

    def _post(self, url: str, *, headers: dict[str, str], json: dict[str, Any]) -> Any:
        answer = self.api.client.post(urlsplit(url).path, headers=headers, json=json)
        told = SimpleNamespace(status_code=answer.status_code, json=lambda: answer.json)
        told.raise_for_status = lambda: told
        return told


class _CurrentUser:
    @property
    def id(self) -> str:
        return str(g.user)


@pytest.fixture
def provider() -> Iterator[PretendProvider]:
    with pretend_provider() as pretend:
        yield pretend


@pytest.fixture
def product(api: AgentsApi, provider: PretendProvider) -> GuideProduct:
    before = api.database.read(lambda c: get_connection(c, "gh"))
    owner = replace(before, api_url=provider.url, token_url=f"{provider.url}/token")
    api.database.write(lambda c: rewrite_connection(c, owner))
    api.database.write(partial(add_target, id="ret-1", tenant=None, url=BACK, now=datetime.now(UTC)))
    return GuideProduct(api)


def test_who_presses_connect_and_comes_back_is_connected_also_from_the_first_of_two_tabs(product: GuideProduct) -> None:
    grace = product.person("grace")
    first, _ = grace.presses_connect(), grace.presses_connect()
    assert grace.opens(grace.follows(first)) == "connected"
    assert product.has_connected("grace")


def test_grace_opens_where_a_link_that_an_agent_made_for_her_led_mallory(product: GuideProduct) -> None:
    agents = product.api.keys["acme", Role.AGENT]
    body = {
        "user": "grace",
        "connection": "gh",
        "return_to": BACK,
        "confirm": True,
        "nonce": "made-up-by-the-model-xyz",
    }
    link = product.api.ask("POST", "/v1/connect-links", agents, json=body).json["url"]
    mallory, grace = product.person("mallory"), product.person("grace")
    for has_pressed in (False, True):
        if has_pressed:
            grace.presses_connect()
            link = product.api.ask("POST", "/v1/connect-links", agents, json=body).json["url"]
        assert grace.opens(mallory.follows(link)) == "unconfirmed"
        assert not product.has_connected("grace")


def test_mallory_has_grace_follow_a_link_of_his_own(product: GuideProduct) -> None:
    mallory, grace = product.person("mallory"), product.person("grace")
    assert grace.opens(grace.follows(mallory.presses_connect())) == "unconfirmed"
    assert not product.has_connected("grace")
    assert not product.has_connected("mallory")


def test_mallory_has_grace_open_where_his_own_link_led_himself(product: GuideProduct) -> None:
    mallory, grace = product.person("mallory"), product.person("grace")
    assert grace.opens(mallory.follows(mallory.presses_connect())) == "unconfirmed"
    assert not product.has_connected("grace")
