"""Where a request came from: the peer, or what a proxy that is trusted says of it. Nothing else of a request is kept.

Each proxy appends to `X-Forwarded-For` whom it was asked by, so what stands to the left of the last trusted one anybody
may have written. The right-most hop that is not trusted is the client (`ASWHOM_TRUSTED_PROXIES`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flask import Flask, current_app, request

_KEY = "aswhom-proxies"
_WITH_PORT = re.compile(r"\[([^]]+)\](?::\d+)?|([^:]+):\d+")  # as some proxies write a hop

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Proxies:
    """Whose word counts about who came to them: so many hops before us, or those of some networks."""

    hops: int = 0
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, text: str) -> Proxies:
        """As the setting says it. Raises ValueError."""
        if text.isdecimal():
            return cls(hops=int(text))
        networks = tuple(ip_network(one.strip()) for one in text.split(","))
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("everybody is no proxy")
        return cls(networks=networks)

    def client(self, peer: str | None, forwarded: str) -> str | None:
        """Who came to the first of them; None: it came by a socket of this machine, and no proxy says from where."""
        client = None
        for place, hop in enumerate((peer or "", *reversed(forwarded.split(",")))):
            address = _address(hop)
            if address is None and place > 0:
                break  # what a trusted proxy wrote is no address: it is the last that is known
            client = address
            if not self._trusts(address, place):
                break
        return None if client is None else str(client)

    def _trusts(self, address: Address | None, place: int) -> bool:
        if not self.networks:
            return place < self.hops
        # Whoever has the socket's file is one of this machine.
        return address is None or any(address in network for network in self.networks)


NO_PROXIES = Proxies()


def client_address() -> str | None:
    """Where the request at hand came from."""
    proxies: Proxies = current_app.extensions[_KEY]
    return proxies.client(request.remote_addr, ",".join(request.headers.getlist("X-Forwarded-For")))


def install(app: Flask, proxies: Proxies) -> None:
    """Have `client_address` believe *proxies*."""
    app.extensions[_KEY] = proxies


def _address(hop: str) -> Address | None:
    found = _WITH_PORT.fullmatch(hop.strip())
    try:
        address = ip_address((found[1] or found[2]) if found else hop.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
