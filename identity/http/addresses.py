"""Address policy of the guarded client: public addresses, and those an operator allows by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from identity.errors import Misconfigured

Address = IPv4Address | IPv6Address

# Blocks that `is_global` passes and that are not public servers: ways to write an IPv4 address inside an IPv6 one
# (compatible, translated, NAT64 by RFC 6052 and RFC 8215, 6to4, Teredo), special blocks that Python 3.11 does not know,
# and Azure's metadata service, which has a public address. Other clouds' are link-local, unique local or shared.
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
_EVERYWHERE = "for this command and for every process, and restart these"


@dataclass(frozen=True, kw_only=True)
class AddressPolicy:
    """An operator's rules for which hosts may be reached, with host names exactly as URLs have them.

    Hosts in `allow_hosts` may be private. An entry is `host`, `host:port` (which also allows a port of another service)
    or `http://host:port` (which also allows plain HTTP; a loopback address may use it with any form). `egress_hosts`,
    unless empty, lists all other hosts that may be reached: `host`, or `*.suffix` for every host with that suffix.
    """

    allow_hosts: frozenset[str] = frozenset()
    egress_hosts: frozenset[str] = frozenset()

    def allows_by_name(self, host: str, port: int) -> bool:
        """True if an operator named it, so that it may be private."""
        return _in_url(host) in self.allow_hosts or not self.allow_hosts.isdisjoint(_with_port(host, port))

    def leaves_out(self, host: str, port: int) -> bool:
        """True if an operator listed the hosts that may be reached, and this is not one."""
        if not self.egress_hosts or self.allows_by_name(host, port) or host in self.egress_hosts:
            return False
        return not any(host.endswith(name.removeprefix("*")) for name in self.egress_hosts if name.startswith("*."))

    def prohibits_url(self, scheme: str, host: str, port: int, *, userinfo: bool) -> str | None:
        """Return why a URL of this form is not fetched, or None.

        *userinfo*: it has a name or password before the host.
        """
        if userinfo:
            return f"the URL of {host} has a name or password in it"
        if scheme not in ("http", "https"):
            return f"{scheme}://{host} is neither http nor https"
        if scheme == "http" and not self._may_be_plain(host, port):
            named = f"http://{_in_url(host)}:{port}"
            return f"http://{host} is not https: to allow it, add {named} to ASWHOM_ALLOW_HOSTS, {_EVERYWHERE}"
        if port != _HTTPS and port < _UNPRIVILEGED and not self._allows_port(host, port):
            named = f"{_in_url(host)}:{port}"
            return (
                f"port {port} is that of another service: to allow it, add {named} to ASWHOM_ALLOW_HOSTS, {_EVERYWHERE}"
            )
        if self.leaves_out(host, port):
            return f"{host} is not among the hosts that may be reached (ASWHOM_EGRESS_HOSTS)"
        return None

    def _may_be_plain(self, host: str, port: int) -> bool:
        if f"http://{_in_url(host)}:{port}" in self.allow_hosts:
            return True
        return is_loopback(host) and self.allows_by_name(host, port)

    def _allows_port(self, host: str, port: int) -> bool:
        if is_loopback(host) and self.allows_by_name(host, port):
            return True
        return not self.allow_hosts.isdisjoint(_with_port(host, port))

    def prohibits(self, host: str, port: int, addresses: Iterable[str]) -> str | None:
        """Return why no connection to *host* is made, given the addresses it resolved to, or None.

        One prohibited address rules out all of them.
        """
        if self.leaves_out(host, port):
            return f"{host} is not among the hosts that may be reached (ASWHOM_EGRESS_HOSTS)"
        if self.allows_by_name(host, port):
            return None
        for text in addresses:
            if not _public(ip_address(text.partition("%")[0])):
                return f"{host} resolves to an address that is not public"
        return None

    def checked_url(self, url: str, *, what: str) -> str:
        """Return *url* if it has a form that may be fetched; the address it resolves to is checked at each connection.

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


def is_loopback(host: str) -> bool:
    """True if a host, as URLs name it, is this machine whatever a name service says."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _with_port(host: str, port: int) -> tuple[str, str]:
    """Return the entries that name exactly this port."""
    return f"{_in_url(host)}:{port}", f"http://{_in_url(host)}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _public(address.ipv4_mapped)
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast
