"""Which addresses may be reached: every way to write a private one, and a name that changes its mind."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest

from identity.errors import Misconfigured
from identity.http.addresses import AddressPolicy
from identity.http.client import Client, HttpRequest, NotSent

LONG = timedelta(seconds=20)
POLICY = AddressPolicy()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "ff02::1",
    ],
)
def test_no_address_of_a_machine_nearby_is_connected_to(address: str) -> None:
    assert POLICY.prohibits("api.example", 443, [address])


@pytest.mark.parametrize("address", ["8.8.8.8", "140.82.112.3", "2606:4700::1111", "2a00:1450:4001::8a"])
def test_a_public_address_is_connected_to(address: str) -> None:
    assert POLICY.prohibits("api.example", 443, [address]) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/",
        "https://user@api.example/",
        "https://user:password@api.example/",
        "https://api.example@127.0.0.1/",
        "https://api.example:22/",
        "https://api.example:25/",
        "https://api.example:80/",
        "https://api.example:99999/",
        "https://api.example/#x",
        "https:///path",
        "https://api.example/a b",
        "https://api.example/\n",
        "https://\u0430pi.example/",
        "gopher://api.example/",
        "//api.example/",
        "",
    ],
)
def test_an_address_of_a_wrong_form_is_not_configured(url: str) -> None:
    with pytest.raises(Misconfigured) as error:
        POLICY.checked_url(url, what="the token endpoint")
    assert "password" not in str(error.value).replace("a name or password", "")


@pytest.mark.parametrize("url", ["https://api.example", "https://api.example:8443/x?y=z", "https://[2606:4700::1]/"])
def test_an_ordinary_address_is_configured(url: str) -> None:
    assert POLICY.checked_url(url, what="it") == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://user:canary@127.0.0.1:9/", "a name or password"),
        ("https://127.0.0.1:25/", "port 25"),
        ("http://127.0.0.1/", "add http://127.0.0.1:80 to ASWHOM_ALLOW_HOSTS, for this command and for every process"),
    ],
)
def test_the_client_refuses_what_configuration_would(url: str, why: str) -> None:
    with Client(policy=POLICY, pool_size=1) as client:
        outcome = client.send(HttpRequest(method="GET", url=url), within=LONG)
    assert isinstance(outcome, NotSent)
    assert why in outcome.reason
    assert "canary" not in outcome.reason


def test_a_host_allowed_by_name_still_has_no_userinfo_and_no_other_scheme() -> None:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))
    assert policy.checked_url("http://127.0.0.1:9/", what="it")
    for url in ("http://a@127.0.0.1:9/", "ftp://127.0.0.1:9/"):
        with pytest.raises(Misconfigured):
            policy.checked_url(url, what="it")


@pytest.mark.parametrize("entry", ["idp.internal", "idp.internal:8443", "http://idp.internal:8443"])
def test_a_host_allowed_by_name_may_be_private_and_is_spoken_to_over_tls(entry: str) -> None:
    policy = AddressPolicy(allow_hosts=frozenset({entry}))
    assert policy.checked_url("https://idp.internal:8443/token", what="it")
    assert policy.prohibits("idp.internal", 8443, ["10.0.0.5"]) is None
    assert POLICY.prohibits("idp.internal", 8443, ["10.0.0.5"])


@pytest.mark.parametrize("entry", ["idp.internal", "idp.internal:8080", "http://idp.internal:80", "10.0.0.5"])
def test_a_host_allowed_by_name_gets_nothing_in_clear_text(entry: str) -> None:
    """A slip in an address, or a metadata document, must not send a refresh token so."""
    policy = AddressPolicy(allow_hosts=frozenset({entry}))
    for url in ("http://idp.internal:8080/token", "http://10.0.0.5:8080/token"):
        with pytest.raises(Misconfigured, match=r"not https.*ASWHOM_ALLOW_HOSTS"):
            policy.checked_url(url, what="the token endpoint")


def test_what_is_allowed_by_name_as_plain_http_is_that_very_port() -> None:
    policy = AddressPolicy(allow_hosts=frozenset({"http://idp.internal:8080"}))
    assert policy.checked_url("http://idp.internal:8080/token", what="it")
    for url in ("http://idp.internal/token", "http://idp.internal:8081/token", "http://other.internal:8080/"):
        with pytest.raises(Misconfigured):
            policy.checked_url(url, what="it")


def test_another_services_port_is_allowed_by_that_port_alone() -> None:
    of_host, of_port = (AddressPolicy(allow_hosts=frozenset({name})) for name in ("h.internal", "h.internal:636"))
    with pytest.raises(Misconfigured, match="port 636"):
        of_host.checked_url("https://h.internal:636/", what="it")
    assert of_port.checked_url("https://h.internal:636/", what="it")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "127.0.0.1:9", "[::1]:9", "localhost:9"])
def test_a_loopback_address_allowed_by_name_may_be_plain(name: str) -> None:
    url = f"http://{name.removesuffix(':9')}:9/"
    assert AddressPolicy(allow_hosts=frozenset({name})).checked_url(url, what="it")
    with pytest.raises(Misconfigured):
        POLICY.checked_url(url, what="it")


REACHING = AddressPolicy(
    allow_hosts=frozenset({"idp.internal"}), egress_hosts=frozenset({"api.github.com", "*.okta.com"})
)


@pytest.mark.parametrize("host", ["api.github.com", "acme.okta.com", "eu.acme.okta.com", "idp.internal"])
def test_a_host_that_is_listed_is_reached(host: str) -> None:
    assert REACHING.checked_url(f"https://{host}/", what="it")
    assert REACHING.prohibits(host, 443, ["8.8.8.8"]) is None


@pytest.mark.parametrize(
    "host", ["attacker.example", "okta.com", "notokta.com", "okta.com.attacker.example", "github.com", "8.8.8.8"]
)
def test_a_host_that_is_not_listed_is_not_reached_whatever_the_ledger_says(host: str) -> None:
    """Who can write to the ledger can move a token endpoint, and finds nothing sent there."""
    with pytest.raises(Misconfigured, match="ASWHOM_EGRESS_HOSTS"):
        REACHING.checked_url(f"https://{host}/token", what="the token endpoint")
    assert REACHING.prohibits(host, 443, ["8.8.8.8"])
    with Client(policy=REACHING, pool_size=1) as client:
        outcome = client.send(HttpRequest(method="POST", url=f"https://{host}/token"), within=LONG)
    assert isinstance(outcome, NotSent)
    assert "ASWHOM_EGRESS_HOSTS" in outcome.reason


def test_a_name_that_changes_its_mind_is_asked_once_and_connected_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the first answer is public, the next is not. What was checked is what is connected to."""
    asked: list[str] = []
    reached: list[Any] = []

    def resolve(host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        if host == "rebind.example":
            asked.append(host)
            address = "192.0.2.1" if len(asked) > 1 else "8.8.8.8"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    def connect(address: Any, *rest: Any, **named: Any) -> socket.socket:
        reached.append(address)
        raise ConnectionRefusedError("nobody is there")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with Client(policy=POLICY, pool_size=1) as client:
        first = client.send(HttpRequest(method="GET", url="https://rebind.example/"), within=LONG)
        second = client.send(HttpRequest(method="GET", url="https://rebind.example/"), within=LONG)
    assert isinstance(first, NotSent)
    assert reached == [("8.8.8.8", 443)]  # the address itself: the name is not resolved again
    assert isinstance(second, NotSent)
    assert "not public" in second.reason
    assert len(asked) == 2
