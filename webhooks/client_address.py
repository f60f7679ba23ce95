"""Client address of a request: the peer, or the address a trusted proxy reports. No other request data is kept.

Each proxy appends its own peer to `X-Forwarded-For`, so anything left of the last trusted hop may be forged. The
right-most untrusted hop is the client (`ASWHOM_TRUSTED_PROXIES`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flask import Flask, current_app, request

_KEY = "aswhom-proxies"
_WITH_PORT = re.compile(r"\[([^]]+)\](?::\d+)?|([^:]+):\d+")  # some proxies write a hop like this

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Proxies:
    """Proxies that are trusted to report their peer: a number of hops before us, or a set of networks."""

    hops: int = 0
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, text: str) -> Proxies:
        """Parse the setting. Raises ValueError."""
        if text.isdecimal():
            return cls(hops=int(text))
        networks = tuple(ip_network(one.strip()) for one in text.split(","))
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("everybody is no proxy")
        return cls(networks=networks)

    def client(self, peer: str | None, forwarded: str) -> str | None:
        """Return the peer of the outermost trusted proxy. None: a local socket, and no proxy reports an address."""
        client = None
        for place, hop in enumerate((peer or "", *reversed(forwarded.split(",")))):
            address = _address(hop)
            if address is None and place > 0:
                break  # a trusted proxy wrote something that is no address: keep the last known one
            client = address
            if not self._trusts(address, place):
                break
        return None if client is None else str(client)

    def _trusts(self, address: Address | None, place: int) -> bool:
        if not self.networks:
            return place < self.hops
        # Only local processes can reach a Unix socket.
        return address is None or any(address in network for network in self.networks)


NO_PROXIES = Proxies()


def client_address() -> str | None:
    """Return where the current request came from."""
    proxies: Proxies = current_app.extensions[_KEY]
    return proxies.client(request.remote_addr, ",".join(request.headers.getlist("X-Forwarded-For")))


def install(app: Flask, proxies: Proxies) -> None:
    """Make `client_address` trust *proxies*."""
    app.extensions[_KEY] = proxies


def _address(hop: str) -> Address | None:
    found = _WITH_PORT.fullmatch(hop.strip())
    try:
        address = ip_address((found[1] or found[2]) if found else hop.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
