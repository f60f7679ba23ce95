"""Where a request came from: what a trusted proxy says, and nothing that whoever asks could have written."""

from __future__ import annotations

import pytest

from identity.errors import Misconfigured
from webhooks.client_address import Proxies

CLIENT, FORGED, PROXY, OUTER = "198.51.100.7", "192.0.2.66", "10.0.0.1", "10.0.0.2"


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "came_from"),
    [
        ("0", CLIENT, "", CLIENT),
        ("0", CLIENT, FORGED, CLIENT),
        ("1", PROXY, CLIENT, CLIENT),
        ("1", PROXY, f"{FORGED}, {CLIENT}", CLIENT),
        ("2", PROXY, f"{FORGED}, {CLIENT}, {OUTER}", CLIENT),
        ("2", PROXY, CLIENT, CLIENT),  # it came in behind the first of them
        ("1", CLIENT, "", CLIENT),  # and past both
        ("10.0.0.0/8", PROXY, f"{FORGED},{CLIENT},{OUTER}", CLIENT),
        ("10.0.0.0/8", CLIENT, FORGED, CLIENT),
        ("10.0.0.0/8", PROXY, OUTER, OUTER),  # a proxy of ours asks by itself, to see whether we are well
        ("10.0.0.1, 2001:db8::/32", "::ffff:10.0.0.1", "2001:db9::1, 2001:db8::2", "2001:db9::1"),
        ("1", PROXY, f"{CLIENT}:51234", CLIENT),
        ("1", PROXY, "[2001:db8::7]:443", "2001:db8::7"),
        ("1", PROXY, f"{FORGED}, unknown", PROXY),
        ("1", PROXY, "no\naddress <script>", PROXY),
        ("1", None, CLIENT, CLIENT),  # nginx on the same machine, by a socket
        ("10.0.0.0/8", None, f"{FORGED}, {CLIENT}", CLIENT),
        ("0", None, CLIENT, None),
    ],
)
def test_the_right_most_hop_that_is_not_trusted_is_where_it_came_from(
    trusted: str, peer: str | None, forwarded: str, came_from: str | None
) -> None:
    assert Proxies.of(trusted).client(peer, forwarded) == came_from


@pytest.mark.parametrize(
    "text", ["-1", "ten", "10.0.0.1/8", "10.0.0.0/8,", "0.0.0.0/0", "::/0", "https://proxy.example"]
)
def test_what_names_no_proxies_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from deploy.settings import load

    monkeypatch.setenv("ASWHOM_TRUSTED_PROXIES", text)
    with pytest.raises(Misconfigured, match=r"ASWHOM_TRUSTED_PROXIES: give how many proxies"):
        load()
