"""Invoices and payments per tenant. A payment is made once per call and idempotency key."""

import itertools
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any


class Refused(Exception):
    """A change that the books do not allow."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class Books:
    """The books in memory. Every method concerns one tenant."""

    def __init__(self, tenants: list[dict[str, Any]]) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._given = tenants
        self.forget()

    def forget(self) -> None:
        """Reset everything to its initial state."""
        with self._lock:
            self._invoices = {
                (row["tenant"], one["id"]): {"status": "open", "refunded": "0.00", **one}
                for row in self._given
                for one in row["invoices"]
            }
            self.movements: list[dict[str, Any]] = []
            self._done: dict[str, dict[str, Any]] = {}  # by call, and by tenant and idempotency key

    def show(self, tenant: str, invoice: str) -> dict[str, Any]:
        with self._lock:
            return dict(self._find(tenant, invoice))

    def reprice(self, tenant: str, invoice: str, amount: str) -> None:
        """Change an invoice's amount, as if its vendor had sent it again."""
        with self._lock:
            self._find(tenant, invoice)["amount"] = amount

    def pay(self, tenant: str, invoice: str, amount: Decimal, currency: str, *, marks: list[str]) -> dict[str, Any]:
        """Pay an open invoice in full."""

        def pay(row: dict[str, Any]) -> None:
            if row["status"] != "open":
                raise Refused(409, "already_paid")
            if (amount, currency) != (Decimal(row["amount"]), row["currency"]):
                raise Refused(422, "wrong_amount")
            row["status"] = "paid"

        return self._once(marks, lambda: self._move("payment", tenant, invoice, amount, currency, pay))

    def refund(self, tenant: str, invoice: str, amount: Decimal, currency: str, *, marks: list[str]) -> dict[str, Any]:
        """Refund a paid invoice, in part or in full."""

        def refund(row: dict[str, Any]) -> None:
            back = Decimal(row["refunded"]) + amount
            if row["status"] != "paid" or currency != row["currency"] or back > Decimal(row["amount"]):
                raise Refused(422, "not_refundable")
            row["refunded"] = f"{back:f}"

        return self._once(marks, lambda: self._move("refund", tenant, invoice, amount, currency, refund))

    def _once(self, marks: list[str], act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was done under any of these marks, or do it now."""
        with self._lock:
            known = next((self._done[mark] for mark in marks if mark in self._done), None)
            done = known or act()
            for mark in marks:
                self._done[mark] = done
            return {**done, "repeated": known is not None}

    def _move(
        self,
        kind: str,
        tenant: str,
        invoice: str,
        amount: Decimal,
        currency: str,
        change: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        change(self._find(tenant, invoice))
        made = {
            "id": f"{kind[:3]}_{next(self._numbers)}",
            "kind": kind,
            "tenant": tenant,
            "invoice": invoice,
            "amount": f"{amount:f}",
            "currency": currency,
        }
        self.movements.append(made)
        return made

    def _find(self, tenant: str, invoice: str) -> dict[str, Any]:
        row = self._invoices.get((tenant, invoice))
        if row is None:
            raise Refused(404, "not_found")
        return row
