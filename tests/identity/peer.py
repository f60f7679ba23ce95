"""The certified authorization server, and our side of it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from sqlalchemy import Connection

from identity.accounts.grants import REFRESH
from identity.connect.flow import ConnectFlow, Outcome
from identity.connections.registry import add_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, live_secrets, retire_secret, seal_secret
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.model import AccountKey, ProviderConnection
from identity.providers.profile import ClientAuth, Profile, Reach, Revocation
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.token_endpoint.gate import Gate
from tests.identity.coordinators import BUDGET, put_together
from tests.identity.world import World
from tests.servers.oidc import Oidc

KEY = AccountKey(tenant="acme", connection="peer", principal="anna")
PROFILE = Profile(
    name="peer",
    title="Peer",
    api_url="",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.BASIC,
    rotates=True,
    sends_iss=True,
)
PROFILES = {"peer": PROFILE}
ENDS = replace(PROFILE, revocation=Revocation(reach=Reach.GRANT, presents=REFRESH))


class Peer:
    """Our side of the peer: its registration, and a person with a browser."""

    def __init__(self, world: World, oidc: Oidc, http: Client) -> None:
        self.world, self.oidc, self.http = world, oidc, http
        self.owner = ProviderConnection(
            id="peer",
            tenant=None,
            provider="peer",
            client_id=oidc.client_id,
            scopes=("openid", "api"),
            api_url=oidc.issuer,
            authorize_url=oidc.authorization_url,
            token_url=oidc.token_url,
            config={"issuer": oidc.issuer},
        )
        world.store.write(lambda connection: add_connection(connection, self.owner, now=world.clock.now))
        self.set_secret(oidc.client_secret)

    def set_secret(self, text: str) -> None:
        now = self.world.clock.now
        self.world.clock.advance(timedelta(seconds=1))
        secret = seal_secret(
            self.world.vault, self.owner, id=self.world.id(), name=CLIENT_SECRET, secret=Secret(text), now=now
        )
        self.world.store.write(lambda connection: add_secret(connection, secret))

    def retire_secrets(self) -> None:
        def retire(connection: Connection) -> None:
            for secret in live_secrets(connection, "peer", CLIENT_SECRET):
                retire_secret(connection, secret.id, at=self.world.clock.now)

        self.world.store.write(retire)

    @property
    def flow(self) -> ConnectFlow:
        world = self.world
        return ConnectFlow(
            world.store,
            world.vault,
            self.http,
            PROFILES,
            Signer.from_seed(bytes(32)),
            redirect_uri=lambda connection: self.oidc.redirect_uri,
            ids=world.id,
            token=lambda: secrets.token_urlsafe(32),
            gate=Gate(None),
        )

    def connect(self, *, refuse: bool = False, **more: Any) -> Outcome:
        world, flow = self.world, self.flow
        link = flow.start(KEY, now=world.clock.now, **more)
        url = flow.authorize(link.text, browser="cookie", now=world.clock.now)
        assert isinstance(url, str)
        callback = self.oidc.consent(url, login=secrets.token_hex(4), refuse=refuse)
        params = dict(parse_qsl(urlsplit(callback).query))
        return flow.finish(
            params,
            browser="cookie",
            connection_id="peer",
            now=world.clock.now,
            also=lambda connection, key: None,
        )

    def coordinator(self, client: redis.Redis | None = None) -> Coordinator:
        lock = RefreshLock(client, ttl=BUDGET.lock_ttl, token=lambda: secrets.token_hex(8), prefix=f"{id(self)}:")
        world = self.world
        return put_together(
            world.store, world.vault, self.http, lock, PROFILES, clock=world.clock, ids=world.id, budget=BUDGET
        )

    def token(self, name: str) -> str:
        return self.world.token(KEY, name)
