"""Metrics of the lines at token endpoints, by provider. Only housekeeping measures them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Connection, select

from identity.connections.registry import connection_of
from identity.connections.self_hosted import profile_for
from identity.measuring import measuring
from identity.metrics import TOKEN_LINE, TOKEN_LINE_SECONDS
from identity.model import Credential, ProviderConnection
from identity.providers.pace import Pace
from identity.providers.profile import Profile
from identity.sql.store import Store
from identity.tables import provider_connections
from identity.token_endpoint.gate import STEP_KEEPS, Endpoint, Gate


def measure_lines(store: Store, gate: Gate, profiles: Mapping[str, Profile]) -> None:
    """Set each provider's gauges, summed over its connections, each of which has a line of its own. O(connections)."""
    with measuring(TOKEN_LINE, TOKEN_LINE_SECONDS):
        asked: dict[Endpoint, tuple[str, Pace]] = {}
        for owner in store.read(_connections):
            if owner.provider in profiles:
                profile = profile_for(profiles, owner)
                for credential in (Credential.AUTHORIZATION_CODE, Credential.INSTALLATION):
                    asked[Endpoint.of(owner, credential)] = owner.provider, profile.pace_of(credential)
        lines = [endpoint for endpoint, number in zip(asked, gate.waiting(list(asked)), strict=True) if number]
        longest = dict.fromkeys(profiles, timedelta())
        for endpoint in lines:  # the wait of a caller that came now; looking also drops those that never came back
            provider, pace = asked[endpoint]
            longest[provider] = max(longest[provider], gate.look(endpoint, pace, keep=STEP_KEEPS) or timedelta())
        waiting = Counter[str]()
        for endpoint, number in zip(lines, gate.waiting(lines), strict=True):
            waiting[asked[endpoint][0]] += number
        for provider, wait in longest.items():
            TOKEN_LINE.labels(provider).set(waiting[provider])
            TOKEN_LINE_SECONDS.labels(provider).set(wait.total_seconds() if waiting[provider] else 0)


def _connections(connection: Connection) -> list[ProviderConnection]:
    return [connection_of(row) for row in connection.execute(select(provider_connections))]
