"""A ledger with a tenant or two, services that take capabilities, and the authority in front of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import Connection, select, update

from identity.accounts.scopes import remember_stop, revoke_scope
from identity.audit import Act
from identity.audit.tables import audit
from identity.capability import audiences, issued, keys
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer
from identity.capability.keys import NewKey
from identity.capability.model import Algorithm, Audience, CapabilityRequest, Outcome
from identity.capability.narrowing import Narrower
from identity.capability.tables import capabilities
from identity.capability.verifier import Capability, Limit, request_hash
from identity.connections.registry import add_connection
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.model import PrincipalKind, ProviderConnection, Scope
from identity.principals import ensure_agent, ensure_principal, ensure_tenant
from identity.secret import Secret
from identity.sql.sequence import lock_exclusive, next_number
from pipeline.db.database import Database

BASE = "https://aswhom.example"
PAY = ("POST", "/v1/invoices/inv_7/pay", b'{"amount": "1250.00", "currency": "EUR"}')
PAID = request_hash(*PAY)

INVOICES = Audience(
    id="invoices",
    uri="https://invoices.example",
    tenant="acme",
    connection="inv",
    algorithm=Algorithm.ED25519,
    passes_to=("bank",),
)
BANK = Audience(
    id="bank",
    uri="https://bank.example",
    tenant="acme",
    connection=None,
    algorithm=Algorithm.ES256,
    passes_to=("vault-room",),
)
VAULT_ROOM = replace(BANK, id="vault-room", uri="https://vault.example", passes_to=("cellar",))
CELLAR = replace(BANK, id="cellar", uri="https://cellar.example", passes_to=())
THEIRS = replace(
    INVOICES, id="globex-invoices", uri="https://globex.example", tenant="globex", connection=None, passes_to=()
)
ALL = (CELLAR, VAULT_ROOM, BANK, INVOICES, THEIRS)
NEXT = "a" * 64
ASKED = Narrower(request_sha256=NEXT, limit=Limit(amount=Decimal(1200), currency="EUR"))


@dataclass
class CapabilityLedger:
    """Everything that decides about capabilities. Its clock is the machine's, as the database's is."""

    database: Database
    vault: Vault = field(default_factory=lambda: Vault({1: bytes(32)}, secrets.token_bytes))
    ids: Ids = field(default_factory=Ids)
    ahead: timedelta = timedelta()  # how far this ledger's clock is ahead of the machine's

    def __post_init__(self) -> None:
        self.issuer = Issuer(self.database, self.vault, url=BASE, clock=self.now)
        self.authority = Authority(self.database, self.issuer, ids=self.ids, clock=self.now)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def act(self) -> Act:
        return Act(audit_id=self.ids("aud"), by="test", now=self.now())

    def build(self) -> CapabilityLedger:
        now = self.now()
        pairs = [NewKey.make(algorithm, self.vault) for algorithm in Algorithm]

        def rows(c: Connection) -> None:
            ensure_agent(c, id="payer", tenant=None, name="payer", now=now)
            for tenant in ("acme", "globex"):
                ensure_tenant(c, id=tenant, name=tenant, now=now)
            ensure_principal(c, id="acme.ada", tenant="acme", kind=PrincipalKind.USER, name="ada", now=now)
            add_connection(c, _connection(), now=now)
            for one in ALL:
                audiences.add(c, one, secret_of(one), self.act())
            for pair in pairs:
                keys.ensure(c, pair, now=now)

        self.database.write(rows)
        return self

    def wanted(self, **other: Any) -> CapabilityRequest:
        """A payment of at most 1,500 euros; *other* says what is otherwise."""
        base = CapabilityRequest(
            id=self.ids("cap"),
            audience=INVOICES,
            tenant="acme",
            connection="inv",
            agent="payer",
            principal="acme.ada",
            accepted=self.number(),
            job=self.ids("job"),
            step=self.ids("step"),
            action="invoices.PayInvoice",
            resource="invoices/inv_7",
            limit=Limit(amount=Decimal("1500.00"), currency="EUR"),
            request_sha256=PAID,
        )
        return replace(base, **other)

    def issue(self, wanted: CapabilityRequest | None = None, **other: Any) -> Capability:
        """Record one."""
        chosen = wanted or self.wanted(**other)
        now = self.now()
        return self.database.write(partial(issued.issue, wanted=chosen, now=now, use_within=timedelta(seconds=10)))

    def token(self, capability: Capability | None = None, algorithm: Algorithm = Algorithm.ED25519) -> Secret:
        return self.issuer.sign(capability or self.issue(), algorithm)

    def close(self, capability: Capability, outcome: Outcome = Outcome.EFFECT) -> None:
        self.database.write(partial(issued.close, step=capability.step, outcome=outcome, now=self.now()))

    def expire(self, capability: Capability) -> None:
        """Its time has passed by the ledger's clock."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        late = update(capabilities).where(capabilities.c.jti == capability.id).values(expires_at=past)
        self.database.write(lambda c: c.execute(late).rowcount)

    def spend(self, token: Secret, *, by: Audience = INVOICES, request: str | None = PAID) -> dict[str, Any]:
        return dict(self.authority.introspect(token, by, request_sha256=request))

    def number(self) -> int:
        return self.database.write(next_number)

    def revoke(self, scope: Scope) -> int:
        """The revocation's number."""
        return self.database.write(partial(revoke, scope=scope))

    def stop(self, scope: Scope) -> None:
        self.database.write(partial(remember_stop, scope=scope, stopped=True))

    def audited(self, kind: str) -> list[Any]:
        return list(self.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == kind)).all()))


def revoke(c: Connection, scope: Scope) -> int:
    """Revoke *scope* under its lock; the revocation's number."""
    lock_exclusive(c, scope)
    number = next_number(c)
    revoke_scope(c, scope, number, reason="test", now=datetime.now(UTC))
    return number


def secret_of(audience: Audience) -> Secret:
    return Secret(f"awr_secret-of-{audience.id}")


def reasons(answers: Iterable[dict[str, Any]]) -> set[str]:
    return {str(answer.get("reason", answer.get("spend"))) for answer in answers}


def _connection() -> ProviderConnection:
    return ProviderConnection(
        id="inv",
        tenant="acme",
        provider="invoices",
        client_id="",
        scopes=(),
        api_url="http://127.0.0.1:1",
        authorize_url="",
        token_url="",
    )
