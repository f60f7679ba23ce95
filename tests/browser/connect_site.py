"""What there is to visit: the sandbox's providers, one that only the tests know, and Aswhom's web in this process."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection, select
from werkzeug.serving import WSGIRequestHandler, make_server

from deploy.demo.provision import GITHUB
from identity.accounts.grants import get_grant
from identity.accounts.states import find_account, move_account
from identity.audit.tables import audit
from identity.connect.confirmation import CameBack
from identity.connect.flow import ConnectFlow, ConnectRefused
from identity.connect.reasons import Why
from identity.connections.registry import add_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.http.client import HttpRequest
from identity.model import AccountKey, AccountState, PrincipalKind, ProviderConnection
from identity.principals import ensure_principal
from identity.providers import PROFILES
from identity.providers.profile import ClientAuth, ExternalIdentity, Profile, WhoAmI
from identity.secret import Secret
from identity.tables import accounts
from identity.withdrawals.tables import withdrawals
from pipeline.accounts.connecting import Connecting, wake_waiting
from tests.servers.oidc import Oidc
from tests.system.rig import System
from webhooks.app import create_app
from webhooks.settings import WebSettings

WHOAMI = WhoAmI(
    request=lambda owner, token: HttpRequest(
        method="GET", url=f"{owner.api_url}/me", headers={"authorization": f"Bearer {token.reveal()}"}
    ),
    read=lambda _owner, document: ExternalIdentity(id=document["sub"], login=document["sub"]),
)


class _Quiet(WSGIRequestHandler):
    """The development server's, without a line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class ConnectSite:
    """Links for people, and what became of their accounts."""

    def __init__(self, system: System, oidc: Oidc) -> None:
        self.system = system
        self.oidc = oidc
        runtime = system.runtime
        profile = Profile(
            name="oidc",
            title="OpenID",
            api_url=oidc.issuer,
            authorize_url=oidc.authorization_url,
            token_url=oidc.token_url,
            client_auth=ClientAuth.BASIC,
            rotates=True,
            sends_iss=True,
            whoami=WHOAMI,
        )
        self.connect = ConnectFlow(
            runtime.database,
            runtime.vault,
            runtime.http,
            {**PROFILES, "oidc": profile},
            runtime.signer,
            redirect_uri=lambda connection: f"{system.web}/connect/callback/{connection}",
            ids=partial(runtime.ids, "con"),
            token=partial(secrets.token_urlsafe, 32),
            gate=runtime.gate,
        )
        connecting = Connecting(runtime.database, self.connect, runtime.workflows)
        settings = WebSettings(base_url=system.web)
        app = create_app(settings, runtime.intake, runtime.workflows, runtime.ring, connector=connecting)
        self._server = make_server("127.0.0.1", system.port, app, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self.add_oidc("oidc", issuer=self.oidc.issuer)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_oidc(self, id: str, *, issuer: str) -> None:
        """A provider connection to the OAuth server, which is to come from *issuer*."""
        runtime, now = self.system.runtime, datetime.now(UTC)
        owner = ProviderConnection(
            id=id,
            tenant=None,
            provider="oidc",
            client_id=self.oidc.client_id,
            scopes=("openid", "api"),
            api_url=self.oidc.issuer,
            authorize_url=self.oidc.authorization_url,
            token_url=self.oidc.token_url,
            config={"issuer": issuer},
        )
        secret = seal_secret(
            runtime.vault, owner, id=f"sec-{id}", name=CLIENT_SECRET, secret=Secret(self.oidc.client_secret), now=now
        )

        def add(c: Connection) -> None:
            add_connection(c, owner, now=now)
            add_secret(c, secret)

        runtime.database.write(add)

    def someone(self, name: str, *, of: str = "acme", at: str = GITHUB) -> AccountKey:
        """A new person *of* a tenant, who is to connect *at* a provider connection."""
        principal = f"{of}.{name}-{secrets.token_hex(3)}"
        make = partial(
            ensure_principal,
            id=principal,
            tenant=of,
            kind=PrincipalKind.USER,
            name=principal.removeprefix(f"{of}."),
            now=datetime.now(UTC),
        )
        self.system.runtime.database.write(make)
        return AccountKey(tenant=of, connection=at, principal=principal)

    def link(self, key: AccountKey, *, age: timedelta = timedelta(), **more: Any) -> str:
        """A link, made *age* ago."""
        made = self.connect.start(key, now=datetime.now(UTC) - age, **more)
        return f"{self.system.web}/connect/{made.text}"

    def confirmed(self, brought: Mapping[str, str], key: AccountKey, nonce: str) -> Why | None:
        """The product says whom it has signed in, with what their browser brought and their session there holds.

        None: that connected them.
        """
        outcome = self.connect.confirmations.confirm(
            brought["aswhom_link"],
            CameBack(principal=key.principal, code=brought["aswhom_code"], nonce=nonce),
            tenant=key.tenant,
            by="the product",
            now=datetime.now(UTC),
            also=wake_waiting,
        )
        assert outcome is not None
        return outcome.why if isinstance(outcome, ConnectRefused) else None

    def ended(self, key: AccountKey) -> list[str]:
        """How far the ends of what that person's connects had won have come."""
        rows = select(withdrawals.c.state).join(accounts, accounts.c.id == withdrawals.c.account_id)
        return [row.state for row in self.system.rows(rows.where(accounts.c.principal_id == key.principal))]

    def generation(self, key: AccountKey) -> int:
        """0: nothing is stored."""

        def read(c: Connection) -> int:
            account = find_account(c, key)
            grant = get_grant(c, account.id) if account else None
            return grant.generation if grant else 0

        return self.system.runtime.database.read(read)

    def state(self, key: AccountKey) -> AccountState:
        account = self.system.runtime.database.read(partial(find_account, key=key))
        assert account is not None
        return account.state

    def dies(self, key: AccountKey, *, reason: str) -> None:
        """Its grant is found dead: it waits for a person."""

        def write(c: Connection) -> None:
            account = find_account(c, key)
            assert account is not None
            now = datetime.now(UTC)
            move_account(c, account.id, to=AccountState.NEEDS_RECONNECT, reason=reason, now=now)

        self.system.runtime.database.write(write)

    def refusals(self, key: AccountKey) -> list[str]:
        """How the connects of that person were refused, by the audit."""
        rows = select(audit.c.outcome).where(audit.c.kind == "connect.refused", audit.c.principal_id == key.principal)
        return [row.outcome for row in self.system.rows(rows.order_by(audit.c.number))]

    def codes_shown(self) -> int:
        """How many codes the sandbox's token endpoint was shown."""
        return sum(one["kind"] == "authorization_code" for one in self.system.sandbox("auth", "presentations"))
