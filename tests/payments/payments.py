"""Somebody asks for payments, the agent makes them, and a thief who reads the wire tries what can be tried."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Connection, func, select, update

from identity.audit.tables import audit
from identity.capability import keys
from identity.capability.issuer import FRESH
from identity.capability.keys import NewKey
from identity.capability.model import Algorithm
from identity.capability.tables import capabilities
from identity.capability.tables import keys as signing_keys
from tests.sandbox.driver import Form
from tests.tasks.hands import Hands
from tests.tasks.in_process_system import InProcessSystem

OF_ACME_ALONE, PAID_ALREADY = "inv_2001", "inv_2002"  # 640 euros each
SMALL, LARGE, OTHER, HUGE = "inv_1001", "inv_1002", "inv_1003", "inv_1005"  # 480, 12500, 960.50, 980000 euros


class Paying:
    """What people ask for and answer about tenant acme's payments, and what the service has in its books."""

    def __init__(self, system: Hands) -> None:
        self.system = system
        self.sandbox = system.sandbox

    def ask(self, invoice: str = SMALL, *, by: str = "ada", tenant: str = "acme") -> None:
        """The tenant's own system says that *by* wants an invoice paid."""
        self.system.report(tenant, "payment.requested", {"invoice": invoice, "requested_by": by})

    def ask_back(self, invoice: str, *, by: str = "ada") -> None:
        """The tenant's own system says that *by* wants a paid invoice refunded."""
        self.system.report("acme", "refund.requested", {"invoice": invoice, "requested_by": by})

    def answer(self, *, by: str, yes: bool = True) -> httpx.Response:
        """*by* opens the link that awaits them, and answers what they read there."""
        (waiting,) = [job for job in self.system.jobs() if job.wait == "approval"]
        approval = waiting.waits_for.removeprefix("approval:")
        _, address = self.system.runtime.approving.invite(approval, f"acme.{by}", now=datetime.now(UTC))
        page = self.sandbox.http.get(address)
        assert page.status_code == 200
        form = Form(page.text)
        said = {**form.hidden, "answer": "yes" if yes else "no"}
        return self.sandbox.http.post(address, data=said, headers={"Origin": self.system.runtime.settings.base_url})

    def movements(self) -> list[dict[str, Any]]:
        """The money that has moved, as the service's own books have it."""
        found: list[dict[str, Any]] = self.sandbox.read("invoices", "movements")
        return found

    def order(self, **fault: Any) -> None:
        self.sandbox.order("invoices", "faults", **fault)


class Payments(Paying):
    """They are made in this process, and a thief looks on."""

    system: InProcessSystem

    def __init__(self, system: InProcessSystem) -> None:
        super().__init__(system)

    def deploy(self, module: str) -> Payments:
        """The workflows of *module*, on the same ledger, in a worker that was started anew."""
        settings = self.system.runtime.settings
        system = InProcessSystem(self.sandbox, settings.database.url, workflows=(module,), base_url=settings.base_url)
        return Payments(system)

    def stolen(self, path: str = "/pay") -> dict[str, str]:
        """The last request that carried a token to such a path, token and all."""
        heard: list[dict[str, str]] = self.sandbox.read("invoices", "wire")
        return [one for one in heard if one["target"].endswith(path)][-1]

    def replay(self, heard: dict[str, str], **changed: str) -> httpx.Response:
        """Send what was overheard once more, with something else in it."""
        again = {**heard, **changed}
        headers = {"Content-Type": "application/json"}
        if again["authorization"]:
            headers["Authorization"] = again["authorization"]
        if again["idempotency_key"]:
            headers["Idempotency-Key"] = again["idempotency_key"]
        url = self.sandbox.url("invoices", again["target"])
        return self.sandbox.http.request(again["method"], url, headers=headers, content=again["body"])

    def signed_by(self) -> str:
        """The id of the key that signed the token of the last request to pay."""
        head = self.stolen()["authorization"].removeprefix("Bearer ").split(".")[0]
        return str(json.loads(urlsafe_b64decode(head + "=="))["kid"])

    def rotate(self) -> str:
        """Publish another key, and let time pass until it signs; its id."""
        system, runtime = self.system, self.system.runtime
        new = NewKey.make(Algorithm.ED25519, runtime.vault)

        def rotate(c: Connection) -> None:
            signs_from = keys.rotate(c, new, now=system.clock())
            for key in keys.load(c):
                sooner = key.use_from - (signs_from - system.clock())
                c.execute(update(signing_keys).where(signing_keys.c.kid == key.kid).values(use_from=sooner))

        runtime.database.write(rotate)
        system.ahead += FRESH
        return new.kid

    def expire(self) -> None:
        """Every token that was issued has expired, by the ledger's clock."""
        over = update(capabilities).values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        self.system.runtime.database.write(lambda c: c.execute(over).rowcount)

    def to_pay(self) -> list[Any]:
        """The capabilities to pay, in the order in which they were issued."""
        return [one for one in self.capabilities() if one.action == "invoices.PayInvoice"]

    def capabilities(self) -> list[Any]:
        return self.system.rows(select(capabilities).order_by(capabilities.c.issued_at, capabilities.c.jti))

    def spends(self) -> int:
        """How often a capability to pay was spent, by the audit."""
        (row,) = self.system.rows(
            select(func.count()).where(audit.c.kind == "capability.spent", audit.c.action == "invoices.PayInvoice")
        )
        return int(row[0])
