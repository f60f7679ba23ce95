"""Which addresses the guarded client may connect to: public ones, and what an operator allows by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from identity.errors import Misconfigured

Address = IPv4Address | IPv6Address

# What `is_global` lets pass and is no public server: ways to write an IPv4 address inside an IPv6 one (compatible,
# translated, NAT64 by RFC 6052 and RFC 8215, 6to4, Teredo), special blocks that Python 3.11 does not know, and Azure's
# metadata service, which lives at a public address. The other clouds' are link-local, unique local or shared.
_REFUSED = tuple(
    map(
        ip_network,
        (
            "::/96",
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2002::/16",
            "2001::/32",
            "fec0::/10",
            "3fff::/20",
            "5f00::/16",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "168.63.129.16/32",
        ),
    )
)
_HTTPS = 443
_UNPRIVILEGED = 1024


@dataclass(frozen=True, kw_only=True)
class AddressPolicy:
    """What may be reached. `allow_hosts` are `host` or `host:port`, exactly as URLs name them: the sandbox."""

    allow_hosts: frozenset[str] = frozenset()

    def allows_by_name(self, host: str, port: int) -> bool:
        """Whether an operator named it: then it may be private, and plain HTTP."""
        return host in self.allow_hosts or f"{host}:{port}" in self.allow_hosts

    def prohibits_url(self, scheme: str, host: str, port: int, *, userinfo: bool) -> str | None:
        """Why a URL of this form is not fetched, or None. *userinfo*: it has a name or password before the host."""
        if userinfo:
            return f"the URL of {host} has a name or password in it"
        if self.allows_by_name(host, port):
            return None if scheme in ("http", "https") else f"{scheme}://{host} is neither http nor https"
        if scheme != "https":
            return f"{scheme}://{host} is not https, and the host is not allowed by name"
        if port != _HTTPS and port < _UNPRIVILEGED:
            return f"port {port} of {host} is that of another service, and the host is not allowed by name"
        return None

    def prohibits(self, host: str, port: int, addresses: Iterable[str]) -> str | None:
        """Why none of what *host* resolved to is connected to, or None. One bad address spoils them all."""
        if self.allows_by_name(host, port):
            return None
        for text in addresses:
            if not _public(ip_address(text.partition("%")[0])):
                return f"{host} resolves to an address that is not public"
        return None

    def checked_url(self, url: str, *, what: str) -> str:
        """*url*, if it has a form that may be fetched; what it resolves to is seen at each connection.

        Raises Misconfigured, which names it as *what*.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or (80 if parts.scheme == "http" else _HTTPS)
        except ValueError:
            raise Misconfigured(f"{what} is not a URL: give one such as https://example.com/path") from None
        if not parts.hostname or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
            raise Misconfigured(f"{what} is not a URL: give one such as https://example.com/path")
        if refusal := self.prohibits_url(parts.scheme, parts.hostname, port, userinfo="@" in parts.netloc):
            raise Misconfigured(f"{what} is not used: {refusal}")
        return url


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _public(address.ipv4_mapped)
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast
