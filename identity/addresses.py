"""Which addresses the guarded client may connect to: public ones, and what an operator allows by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Ways to write a private IPv4 address that `is_global` lets pass: NAT64 (RFC 6052, RFC 8215), 6to4, Teredo.
_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


@dataclass(frozen=True, kw_only=True)
class AddressPolicy:
    """What may be reached. `allow_hosts` are `host` or `host:port`, exactly as URLs name them: the sandbox."""

    allow_hosts: frozenset[str] = frozenset()

    def allows_by_name(self, host: str, port: int) -> bool:
        """Whether an operator named it: then it may be private, and plain HTTP."""
        return host in self.allow_hosts or f"{host}:{port}" in self.allow_hosts

    def prohibits_scheme(self, scheme: str, host: str, port: int) -> str | None:
        """Why a URL of this scheme is not fetched, or None."""
        if scheme == "https" or (scheme == "http" and self.allows_by_name(host, port)):
            return None
        return f"{scheme}://{host} is not https, and the host is not allowed by name"

    def prohibits(self, host: str, port: int, addresses: Iterable[str]) -> str | None:
        """Why none of what *host* resolved to is connected to, or None. One bad address spoils them all."""
        if self.allows_by_name(host, port):
            return None
        for text in addresses:
            if not _public(ip_address(text.partition("%")[0])):
                return f"{host} resolves to an address that is not public"
        return None


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast
