"""The connect flow before a house's ledger, as the web server has it."""

from __future__ import annotations

import secrets
from functools import partial

from identity.connect.flow import ConnectFlow
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.providers import PROFILES
from identity.token_endpoint.gate import Gate
from tests.ledger.house import House


def connect_flow(house: House, http: Client, signer: Signer, *, base_url: str) -> ConnectFlow:
    return ConnectFlow(
        house.database,
        house.vault,
        http,
        PROFILES,
        signer,
        redirect_uri=lambda connection: f"{base_url}/connect/callback/{connection}",
        ids=partial(house.ids, "con"),
        token=partial(secrets.token_urlsafe, 32),
        gate=Gate(None),
    )
