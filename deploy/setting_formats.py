"""Parsing and validation of settings from text. Each error says what would be accepted."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from deploy.secret_files import text_of

_BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps")
_WITH_SEVERAL = ("sentinel", "amqp", "amqps")  # accept several addresses, since their members replicate
_REDISES = ("redis", "rediss", "unix")
_CERTIFICATES = ("required", "optional", "none")  # understood by both Kombu and redis-py


def _seconds(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        seconds = float(str(value))
    except ValueError:
        raise ValueError("give seconds, such as 20 or 0.5") from None
    if not 0 <= seconds < 10**8:
        raise ValueError("give seconds, none or more, such as 20 or 0.5")
    return timedelta(seconds=seconds)


def _names(value: object) -> object:
    return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value


def _allowed(value: tuple[str, ...]) -> tuple[str, ...]:
    for entry in value:
        plain = entry.startswith("http://")
        if not _is_host(entry.removeprefix("http://"), with_port=True if plain else None):
            raise ValueError(
                f"give host or host:port of what may be private, such as idp.acme.example, and http://host:port of "
                f"what may be plain HTTP too; {entry!r} is none of these{_instead(entry)}"
            )
    return tuple(entry.lower() for entry in value)


def _instead(entry: str) -> str:
    """Suggest what to write, if the intention is recognisable."""
    if entry != "".join(entry.split()):
        return ": separate several by commas"
    with suppress(ValueError):
        return f": write [{IPv6Address(entry)}]"
    if entry.startswith("http://") and _is_host(entry.removeprefix("http://"), with_port=False):
        return f": write {entry}:80, or the port that it listens on"
    if entry.startswith("https://"):
        return ": leave https:// out"
    if "/" in entry or "*" in entry:
        return ": a network or a pattern is none, so name each host"
    return ""


def _reachable(value: tuple[str, ...]) -> tuple[str, ...]:
    for entry in value:
        if not _is_host(entry.removeprefix("*."), with_port=False):
            raise ValueError(f"give hosts, such as api.github.com, or *.example for whatever ends so; not {entry!r}")
    return tuple(entry.lower() for entry in value)


def _is_host(entry: str, *, with_port: bool | None) -> bool:
    """True if *entry* is a host as written in URLs. *with_port* None accepts it with or without a port."""
    parts = urlsplit(f"//{entry}")
    try:
        has_port = parts.port is not None
    except ValueError:
        return False
    if parts.netloc != entry or not parts.hostname or set(entry) & set("@*"):
        return False
    return entry.isascii() and entry.isprintable() and with_port in (None, has_port)


def _origin(value: str) -> str:
    parts = urlsplit(value)
    odd = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in ("http", "https") or not parts.hostname or odd:
        raise ValueError("give the address others reach this by, without a path, such as https://aswhom.example")
    # The form in which browsers serialize an Origin (RFC 6454 §6.1), since forms are checked against it.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("give the issuer letter by letter, such as https://accounts.example")
    return value


def is_operator(name: str) -> bool:
    """True if *name* can identify an operator in the audit: one word, such as a login, short enough for its column."""
    return 0 < len(name) <= 64 and name.isprintable() and not set(name) & set(" /")


def _operator(value: str) -> str:
    if not is_operator(value):
        raise ValueError("give a name of one word, such as ada or ada@acme.example")
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("give host:port, such as 127.0.0.1:8080")
    return value


def _database(value: SecretStr) -> SecretStr:
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme in ("postgres", "postgresql"):
        return SecretStr(f"postgresql+psycopg://{rest}")
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise ValueError("give sqlite:///path or postgresql://user@host/name")
    if scheme == "sqlite":  # absolute, because processes run in another directory than the command line
        return SecretStr(f"sqlite:///{Path(rest.removeprefix('/')).absolute()}")
    return value


def _broker(value: SecretStr) -> SecretStr:
    addresses = value.get_secret_value().split(";")  # Kombu accepts several
    schemes = {urlsplit(address).scheme for address in addresses}
    if len(addresses) > 1 and not schemes <= set(_BROKERS) and urlsplit(addresses[0]).scheme in _WITH_SEVERAL:
        raise ValueError("write each address in full, such as amqp://user:password@a;amqp://user:password@b")
    if not schemes <= set(_BROKERS):
        raise ValueError(f"give an address that begins with one of: {', '.join(f'{name}://' for name in _BROKERS)}")
    if len(addresses) > 1 and not (len(schemes) == 1 and schemes <= set(_WITH_SEVERAL)):
        raise ValueError(
            "give one address: two servers do not hold the same bells and locks. Sentinel (sentinel://) takes several, "
            "separated by ;, and so does RabbitMQ. A ; in a password is written %3B"
        )
    return SecretStr(";".join(map(_verifying, addresses)))


def _redis(value: SecretStr) -> SecretStr:
    address = value.get_secret_value()
    if urlsplit(address).scheme not in _REDISES:
        raise ValueError(f"give an address that begins with one of: {', '.join(f'{name}://' for name in _REDISES)}")
    if ";" in address:  # redis-py would parse it as an option, and quote the second password in its error
        raise ValueError("give one address. A ; in a password is written %3B")
    return value


def _verifying(address: str) -> str:
    """Make Kombu verify the certificate of a `rediss://` broker. Unlike redis-py, it does not unless it is told to.

    See `_init_params` in https://github.com/celery/kombu/blob/main/kombu/connection.py.
    """
    parts = urlsplit(address)
    if parts.scheme != "rediss":
        return address
    asked = dict(parse_qsl(parts.query)).get("ssl_cert_reqs")
    if asked is None:
        return parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))).geturl()
    if asked not in _CERTIFICATES:
        raise ValueError(f"give ssl_cert_reqs as one of: {', '.join(_CERTIFICATES)}; without it, required holds")
    return address


def _authorities(value: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except ssl.SSLError:
        raise ValueError(f"{value} has no certificate in PEM, or one that cannot be read") from None
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from None
    return value


def _proxies(value: str) -> str:
    from webhooks.client_address import Proxies

    try:
        Proxies.of(value)
    except ValueError:
        raise ValueError(
            "give how many proxies stand before the web, such as 1, or their networks, such as 10.0.0.0/8"
        ) from None
    return value


SecretText = Annotated[SecretStr, BeforeValidator(text_of)]
DatabaseUrl = Annotated[SecretText, AfterValidator(_database)]
BrokerUrl = Annotated[SecretText, AfterValidator(_broker)]
RedisUrl = Annotated[SecretText, AfterValidator(_redis)]
Origin = Annotated[str, AfterValidator(_origin)]
Issuer = Annotated[str, AfterValidator(_issuer)]
Proxies = Annotated[str, AfterValidator(_proxies)]
Operator = Annotated[str, AfterValidator(_operator)]
Listen = Annotated[str, AfterValidator(_listen)]
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
AllowHosts = Annotated[Names, AfterValidator(_allowed)]
EgressHosts = Annotated[Names, AfterValidator(_reachable)]
# Made absolute when read, because processes run in another directory than the command line.
Place = Annotated[Path, AfterValidator(Path.absolute)]
Authorities = Annotated[Place, AfterValidator(_authorities)]
Days = Annotated[int, Field(ge=0, le=36500)]
Port = Annotated[int, Field(ge=0, le=65535)]


def as_text(value: object) -> str:
    """Return a setting as the text it is parsed from."""
    forms: Mapping[type, Callable[[Any], str]] = {
        SecretStr: lambda secret: secret.get_secret_value(),
        timedelta: lambda duration: repr(duration.total_seconds()),
        tuple: ",".join,
    }
    return forms.get(type(value), str)(value)
