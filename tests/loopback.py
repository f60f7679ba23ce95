"""Where the tests' servers listen, which a guarded client is told that it may reach."""

from __future__ import annotations

from identity.http.addresses import AddressPolicy

LOOPBACK = AddressPolicy(allow_hosts=frozenset({"127.0.0.1", "localhost"}))
