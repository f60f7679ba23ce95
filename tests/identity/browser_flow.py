"""The connect flow, with a person at the browser."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Connection

from identity.connect.confirmation import CameBack, Consenter
from identity.connect.flow import ConnectFlow, ConnectOffer, ConnectRefused, Outcome
from identity.connect.outcomes import Awaiting
from identity.connect.reasons import Why
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.model import AccountKey
from identity.principals import link_alias
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.token_endpoint.gate import Gate
from tests.identity.world import ANNA, World

NONCE = "nonce-of-the-session-that-asked"
ANNAS_BROWSER, ANOTHER_BROWSER = "cookie-of-anna", "cookie-of-another"


@dataclass
class BrowserFlow:
    """The connect flow with a person at the browser."""

    world: World
    http: Client
    profile: Profile = PROFILES["github"]
    signer: Signer = field(default_factory=lambda: Signer.from_seed(bytes(32)))
    woken: list[AccountKey] = field(default_factory=list)
    gate: Gate = field(default_factory=lambda: Gate(None))
    monotonic: Callable[[], float] = time.monotonic

    @property
    def connect(self) -> ConnectFlow:
        return ConnectFlow(
            self.world.store,
            self.world.vault,
            self.http,
            {self.profile.name: self.profile},
            self.signer,
            redirect_uri=lambda connection: f"https://aswhom.example/connect/{connection}/callback",
            ids=self.world.id,
            token=lambda: secrets.token_urlsafe(32),
            gate=self.gate,
            monotonic=self.monotonic,
        )

    def start(self, key: AccountKey = ANNA, **more: Any) -> str:
        return self.connect.start(key, now=self.world.clock.now, **more).text

    def offer(self, link: str, browser: str = "") -> ConnectOffer | Outcome:
        return self.connect.offer(link, browser=browser, now=self.world.clock.now)

    def goes_on(self, link: str, browser: str = ANNAS_BROWSER) -> str | Outcome:
        return self.connect.authorize(link, browser=browser, now=self.world.clock.now)

    def authorize(self, link: str, browser: str = ANNAS_BROWSER) -> dict[str, str]:
        url = self.goes_on(link, browser)
        assert isinstance(url, str)
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    def finish(self, params: dict[str, str], *, browser: str = ANNAS_BROWSER, connection: str = "forge") -> Outcome:
        return self.connect.finish(
            params,
            browser=browser,
            connection_id=connection,
            now=self.world.clock.now,
            also=lambda _connection, key: self.woken.append(key),
        )

    def consents(self, key: AccountKey = ANNA, **more: Any) -> Outcome:
        """The whole way, once."""
        state = self.authorize(self.start(key, **more))["state"]
        return self.finish({"code": "c", "state": state})

    def look(self, awaiting: Awaiting, *, tenant: str | None = None, **came: str) -> Consenter | Outcome | None:
        """What the product is told that asks who consented."""
        return self.connect.confirmations.look(
            awaiting.session,
            came_back(awaiting, **came),
            tenant=tenant or awaiting.key.tenant,
            now=self.world.clock.now,
        )

    def confirm(self, awaiting: Awaiting, *, tenant: str | None = None, **came: str) -> Outcome | None:
        """What the product is answered that says who came back."""
        return self.connect.confirmations.confirm(
            awaiting.session,
            came_back(awaiting, **came),
            tenant=tenant or awaiting.key.tenant,
            by="the product",
            now=self.world.clock.now,
            also=lambda _connection, key: self.woken.append(key),
        )

    def refused(self, params: dict[str, str], **arguments: str) -> str:
        outcome = self.finish(params, **arguments)
        assert isinstance(outcome, ConnectRefused)
        assert outcome.next_step
        assert self.woken == []
        return outcome.reason


def came_back(awaiting: Awaiting, *, user: str | None = None, code: str | None = None, nonce: str = NONCE) -> CameBack:
    """The link's own person in the session that asked, with what was given out, unless said otherwise."""
    return CameBack(principal=user or awaiting.key.principal, code=code or awaiting.code or "", nonce=nonce)


def why(outcome: object) -> Why:
    assert isinstance(outcome, ConnectRefused), outcome
    assert outcome.reason
    assert outcome.next_step
    return outcome.why


def link_person(flow: BrowserFlow, principal: str, external_id: str, login: str = "mona") -> None:
    def link(connection: Connection) -> bool:
        return link_alias(
            connection,
            tenant="acme",
            provider="github",
            external_id=external_id,
            principal=principal,
            login=login,
            made_by="admin:eve",
            now=flow.world.clock.now,
        )

    assert flow.world.store.write(link)
