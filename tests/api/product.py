"""A customer's product, whose people connect by links that it makes and confirms; their provider is a pretended one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from markupsafe import Markup

from identity.agents.api_keys import Role
from identity.connect.return_targets import add_target
from identity.connections.registry import get_connection, rewrite_connection
from tests.api.agents_api import AgentsApi
from tests.identity.providers import PretendProvider

BACK = "https://app.example/settings?tab=agents"
NONCE = "f3c1b7e0-9d52-4c1e-8a44-ada-s-session"


@dataclass
class Product:
    """What a customer's product does: it makes links, and says who is signed in."""

    api: AgentsApi

    @property
    def key(self) -> Any:
        return self.api.keys["acme", Role.PRODUCT]

    def link(self, user: str, *, key: Any = None, confirm: bool | None = True, **more: Any) -> Any:
        body = {"user": user, "connection": "gh", "return_to": BACK, "nonce": NONCE, **more}
        said = {} if confirm is None else {"confirm": confirm}
        return self.api.ask("POST", "/v1/connect-links", key or self.key, json=body | said)

    def comes_back(self, link: str) -> dict[str, str]:
        """What a browser that goes the whole way by that link brings in its address."""
        browser, path = self.api.app.test_client(), urlsplit(link).path
        assert browser.get(path).status_code == 200
        away = browser.post(path)
        (url,) = (line for line in away.text.splitlines() if "http-equiv" in line)
        at_provider = Markup(url.partition("url=")[2].partition('"')[0]).unescape()
        (state,) = parse_qs(urlsplit(at_provider).query)["state"]
        back = browser.get("/connect/callback/gh", query_string={"code": "c-1", "state": state})
        assert back.status_code == 303, back.text
        address = back.headers["Location"]
        assert address.startswith(f"{BACK}&aswhom=confirm&")
        return dict(parse_qsl(urlsplit(address).query))

    def confirms(
        self, user: str, brought: dict[str, str], key: Any = None, *, act: str = "confirm", **more: str
    ) -> Any:
        """Says that *user* is signed in in that browser."""
        body = {"user": user, "code": brought["aswhom_code"], "nonce": NONCE, **more}
        return self.api.ask("POST", f"/v1/connect-links/{brought['aswhom_link']}/{act}", key or self.key, json=body)

    def looks(self, user: str, brought: dict[str, str], key: Any = None, **more: str) -> Any:
        """Asks who consented in that browser."""
        return self.confirms(user, brought, key, act="look", **more)


def product_of(api: AgentsApi, provider: PretendProvider) -> Product:
    """One of acme's, whose browsers go to that provider and come back to a page of its own."""
    before = api.database.read(lambda c: get_connection(c, "gh"))
    owner = replace(before, api_url=provider.url, token_url=f"{provider.url}/token")
    api.database.write(lambda c: rewrite_connection(c, owner))
    api.database.write(partial(add_target, id="ret-1", tenant=None, url=BACK, now=datetime.now(UTC)))
    return Product(api)
