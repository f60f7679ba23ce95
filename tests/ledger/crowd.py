"""A workspace of very many connected people, and the signal that ends it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from identity.model import PrincipalKind
from identity.sql.sequence import next_number
from identity.tables import accounts, grants, principals
from pipeline.model import SignedDelivery
from pipeline.signal import Asks, Nobody, Signal, Workspaces
from tests.ledger.house import House


def crowd(house: House, number: int) -> None:
    """So many people of acme are connected, beside ada and the service."""
    now = datetime.now(UTC)

    def fill(connection: Connection) -> None:
        names = [f"p{one:05}" for one in range(number)]
        kept = {"tenant_id": "acme", "created_at": now}
        people = [{**kept, "id": name, "kind": PrincipalKind.USER, "name": name} for name in names]
        connection.execute(insert(principals), people)
        account = {**kept, "connection_id": "gh", "provider": "github", "credential": "authorization_code"}
        account |= {"state": "active", "updated_at": now}
        connection.execute(insert(accounts), [{**account, "id": f"acc-{name}", "principal_id": name} for name in names])
        grant = {"generation": 1, "consented": next_number(connection), "token_type": "bearer", "scopes": []}
        grant |= {"access_sealed": b"sealed", "obtained_at": now, "consented_at": now}
        connection.execute(insert(grants), [{**grant, "account_id": f"acc-{name}"} for name in names])

    house.database.write(fill)


def uninstalled(house: House, key: str = "gone", **more: Any) -> SignedDelivery:
    """The workspace's own word that the app is gone from it."""
    whom = (Workspaces(ids=frozenset({"installation-acme"})), Nobody(why="an address is no person"))
    said = Signal(source="slack.app_uninstalled", asks=Asks.REVOKE, whom=whom, reason="uninstalled", **more)
    return house.delivery(key, signal=said)
