"""Key sets of transmitters: fetched once, again when a key is rotated in, and not at a stranger's pace."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from identity.errors import Unavailable
from identity.http.client import Answer, Client, HttpRequest, NoAnswer
from identity.oauth import jose
from identity.oauth.jose import Key, Signed
from identity.oauth.jwks import KeyRing, read_keys
from tests.identity.providers import PretendProvider, pretend_provider

KEY = RSAKey.generate_key(2048, {"kid": "k1"})
NEXT = RSAKey.generate_key(2048, {"kid": "k2"})


def keys(*these: Key) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in these]}


def naming(kid: str | None, *, alg: str = "RS256") -> Signed:
    """A token that names that key, and was signed by nobody."""
    header = json.dumps({"alg": alg} | ({} if kid is None else {"kid": kid})).encode()
    return jose.read(urlsafe_b64encode(header).rstrip(b"=") + b".e30.x")


class Ring:
    """A key ring, the transmitter it asks, and a clock that is moved by hand."""

    def __init__(self, http: Client, transmitter: PretendProvider) -> None:
        self.now = 1000.0
        self.transmitter = transmitter
        self.ring = KeyRing(http, monotonic=lambda: self.now)

    def has(self, kid: str | None) -> bool:
        return self.ring.key(self.transmitter.url, naming(kid)) is not None

    def passes(self, duration: timedelta) -> None:
        self.now += duration.total_seconds()


@pytest.fixture
def ring(http: Client) -> Iterator[Ring]:
    with pretend_provider() as transmitter:
        transmitter.user = keys(KEY)
        yield Ring(http, transmitter)


def test_a_set_is_fetched_once_for_many_tokens(ring: Ring) -> None:
    assert [ring.has("k1") for _ in range(5)] == [True] * 5
    assert ring.transmitter.asked == 1
    ring.passes(timedelta(hours=1))
    assert ring.has("k1")
    assert ring.transmitter.asked == 2


def test_a_rotated_key_is_found_and_a_withdrawn_one_is_gone(ring: Ring) -> None:
    assert ring.has("k1")
    ring.transmitter.user = keys(NEXT)
    ring.passes(timedelta(minutes=1))
    assert ring.has("k2")
    assert not ring.has("k1")


def test_strangers_with_made_up_ids_make_it_fetch_once_a_minute(ring: Ring) -> None:
    for number in range(50):
        assert not ring.has(f"made-up-{number}")
    assert ring.transmitter.asked == 1
    ring.passes(timedelta(minutes=1))
    for number in range(50):
        assert not ring.has(f"made-up-{number}")
    assert ring.transmitter.asked == 2


def test_a_transmitter_that_is_away_is_asked_again_later_and_its_keys_serve_for_a_day(ring: Ring) -> None:
    ring.transmitter.user = None
    for _ in range(20):
        with pytest.raises(Unavailable):
            ring.has("k1")
    assert ring.transmitter.asked == 1
    ring.transmitter.user = keys(KEY)
    ring.passes(timedelta(seconds=5))
    assert ring.has("k1")
    ring.transmitter.user = None
    ring.passes(timedelta(hours=23))
    assert ring.has("k1")
    ring.passes(timedelta(hours=2))
    with pytest.raises(Unavailable):
        ring.has("k1")


def test_a_key_that_may_have_been_rotated_in_is_not_called_none_while_its_set_cannot_be_fetched(ring: Ring) -> None:
    """Its token would be refused for good, and what it revokes with it."""
    assert ring.has("k1")
    ring.transmitter.user = None
    ring.passes(timedelta(minutes=1))
    for _ in range(2):  # by the try, and by what it left
        with pytest.raises(Unavailable):
            ring.has("k2")
    assert ring.has("k1")
    ring.transmitter.user = keys(KEY, NEXT)
    ring.passes(timedelta(minutes=1))
    assert ring.has("k2")
    assert not ring.has("k3")
    assert ring.transmitter.asked == 3


class SlowHost:
    """An HTTP client before a host that takes its time."""

    def __init__(self, answer: Callable[[], Answer | NoAnswer]) -> None:
        self._answer = answer
        self.asked = 0

    def send(self, request: HttpRequest, **more: Any) -> Answer | NoAnswer:
        self.asked += 1
        return self._answer()


def test_a_host_that_hangs_is_left_alone_for_a_while_after_each_try() -> None:
    """Those who queued meanwhile do not each hang in their turn."""
    now = 1000.0

    def hang() -> NoAnswer:
        nonlocal now
        now += 5
        return NoAnswer(reason="the deadline passed")

    host = SlowHost(hang)
    ring = KeyRing(cast("Client", host), monotonic=lambda: now)
    for _ in range(2):
        with pytest.raises(Unavailable):
            ring.key("https://hangs.example", naming("k1"))
    assert host.asked == 1


def test_while_a_host_hangs_nobody_else_does_and_a_known_key_serves() -> None:
    now, away, entered, over = 1000.0, False, threading.Event(), threading.Event()

    def answer() -> Answer:
        if away:
            entered.set()
            over.wait()
        return Answer(status=200, headers={}, body=json.dumps(keys(KEY)).encode(), elapsed=timedelta())

    ring = KeyRing(cast("Client", SlowHost(answer)), monotonic=lambda: now, patience=timedelta())
    assert ring.key("https://hangs.example", naming("k1"))
    now, away = now + timedelta(hours=1).total_seconds(), True
    asking = threading.Thread(target=ring.key, args=("https://hangs.example", naming("k1")), daemon=True)
    asking.start()
    entered.wait()
    assert ring.key("https://hangs.example", naming("k1"))
    with pytest.raises(Unavailable):
        ring.key("https://hangs.example", naming("k2"))
    over.set()
    asking.join()
    assert ring.key("https://hangs.example", naming("k2")) is None


def test_a_try_that_ends_in_an_error_is_remembered_too() -> None:
    def fail() -> NoAnswer:
        raise LookupError

    host = SlowHost(fail)
    ring = KeyRing(cast("Client", host), monotonic=lambda: 1000.0)
    with pytest.raises(LookupError):
        ring.key("https://odd.example", naming("k1"))
    for _ in range(5):
        with pytest.raises(Unavailable):
            ring.key("https://odd.example", naming("k1"))
    assert host.asked == 1


def test_a_token_without_a_key_id_is_by_the_one_key_that_fits_and_by_none_of_two(ring: Ring) -> None:
    """RFC 7515 §4.1.4 and RFC 7517 §4.5 leave the id out at will."""
    nameless = RSAKey.import_key(KEY.as_dict(private=False))
    row = {name: value for name, value in keys(nameless)["keys"][0].items() if name != "kid"}
    curve = ECKey.generate_key("P-256", {"kid": "ec"})
    ring.transmitter.user = {"keys": [row, *keys(curve)["keys"]]}
    assert ring.has(None)
    assert not ring.has("k1")  # what names a key is by that one
    assert ring.ring.key(ring.transmitter.url, naming(None, alg="ES384")) is None
    assert ring.transmitter.asked == 1
    ring.transmitter.user = keys(KEY, NEXT)
    ring.passes(timedelta(minutes=1))  # nothing in a token tells of a rotation: it is looked for
    assert not ring.has(None)
    assert ring.has("k1")


def test_keys_of_two_kinds_may_share_an_id(ring: Ring) -> None:
    curve = ECKey.generate_key("P-256", {"kid": "k1"})
    ring.transmitter.user = keys(KEY, curve)
    for algorithm, kind in (("RS256", "RSA"), ("PS256", "RSA"), ("ES256", "EC")):
        found = ring.ring.key(ring.transmitter.url, naming("k1", alg=algorithm))
        assert found is not None
        assert found.key_type == kind
    assert ring.ring.key(ring.transmitter.url, naming("k1", alg="Ed25519")) is None


def test_a_key_is_for_the_algorithm_that_it_says(ring: Ring) -> None:
    ring.transmitter.user = {"keys": [KEY.as_dict(private=False) | {"alg": "RS256"}]}
    assert ring.has("k1")
    assert ring.ring.key(ring.transmitter.url, naming("k1", alg="PS256")) is None


def test_a_key_that_gives_authority_ends_soon_after_it_was_taken_out(ring: Ring, http: Client) -> None:
    """Within ten minutes, and within an hour where whoever stole it keeps us from the set."""
    ring.ring = KeyRing.giving_authority(http, monotonic=lambda: ring.now)
    assert ring.has("k1")
    ring.transmitter.user = keys(NEXT)
    ring.passes(timedelta(minutes=9))
    assert ring.has("k1")
    ring.passes(timedelta(minutes=1))
    assert not ring.has("k1")
    ring.transmitter.user = None
    ring.passes(timedelta(minutes=59))
    assert ring.has("k2")
    ring.passes(timedelta(minutes=2))
    with pytest.raises(Unavailable):
        ring.has("k2")


@pytest.mark.parametrize(
    "unknown",
    [{"kty": "EC", "crv": "brainpoolP256r1", "x": "AA", "y": "AA"}, {"kty": "OKP", "crv": "Zed", "x": "AA"}],
    ids=lambda row: str(row["crv"]),
)
def test_a_key_of_an_unknown_curve_leaves_the_others_usable(ring: Ring, unknown: dict[str, str]) -> None:
    ring.transmitter.user = {"keys": [unknown | {"kid": "odd"}, *keys(KEY)["keys"]]}
    assert ring.has("k1")
    assert not ring.has("odd")
    assert ring.transmitter.asked == 1


def read_ids(document: Any) -> set[object]:
    return {key.kid for key in read_keys(json.dumps(document).encode())}


def test_an_rsa_key_is_as_strong_as_its_modulus_is_long_without_the_zeros_before_it() -> None:
    modulus = KEY.as_dict(private=False)["n"]
    padded = [
        KEY.as_dict(private=False) | {"n": "A" * 200 + "x" * 180, "kid": "weak"},
        KEY.as_dict(private=False) | {"n": "AAAA" + str(modulus)},
        KEY.as_dict(private=False) | {"n": f"{modulus}=", "kid": "unreadable"},
    ]
    assert read_ids({"keys": padded}) == {"k1"}


def test_keys_that_are_weak_private_or_not_for_signing_are_none() -> None:
    weak = KEY.as_dict(private=False) | {"n": "AQAB" * 40, "kid": "weak"}
    secret = OctKey.import_key("0" * 64, {"kid": "oct"}).as_dict()
    curve = ECKey.generate_key("P-256", {"kid": "ec"})
    rows = [
        KEY.as_dict(private=False),
        NEXT.as_dict(private=True),
        curve.as_dict(private=False),
        KEY.as_dict(private=False) | {"use": "enc", "kid": "enc"},
        KEY.as_dict(private=False) | {"key_ops": ["encrypt"], "kid": "ops"},
        KEY.as_dict(private=False) | {"kid": 7},
        {"kty": "RSA", "kid": "empty"},
        weak,
        secret,
        7,
    ]
    assert read_ids({"keys": rows}) == {"k1", "ec"}
    for none in (b"", b"[]", b'{"keys":7}', b"\xff"):
        assert read_keys(none) == ()
