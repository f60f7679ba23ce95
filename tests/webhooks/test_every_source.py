"""What holds of every source, however its sender signs: one suite over a row of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from identity.secret import Secret
from tests.webhooks import disfigured
from tests.webhooks.disfigured import TEXTS, assert_sound
from tests.webhooks.flips import flips, text_flips
from tests.webhooks.parts import (
    NOW,
    OLD_SECRET,
    SECRET,
    MemoryLedger,
    MemoryRing,
    Secrets,
    fault_of,
    github_headers,
    linear_headers,
    lower,
    registry,
    slack_headers,
)
from tests.webhooks.signing import (
    KEY,
    OTHER,
    OTHER_PUBLIC,
    PLAIN,
    PUBLIC,
    STRIPE,
    TIMED,
    by_private,
    by_shared,
    plain,
    stripe,
    timed,
)
from webhooks.app import create_app
from webhooks.settings import WebSettings
from webhooks.sources import described, github, linear, slack, standard
from webhooks.sources.reading import Fault, Reading, Received, Source

ORDER = b'{"type":"order.created","id":"evt_1","account":{"id":7}}'


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to sign: the headers that *sign* makes of a body and a live secret, and which of them are *guarded*."""

    name: str
    source: Source
    body: bytes
    sign: Callable[[bytes, str], dict[str, str]]
    guarded: tuple[str, ...]
    live: str = SECRET
    other: str = OLD_SECRET
    config: Mapping[str, str] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        return self.sign(self.body, self.live)

    def read(self, headers: dict[str, str], body: bytes | None = None, secrets: Sequence[str] | None = None) -> Reading:
        keys = [Secret(one) for one in ((self.live,) if secrets is None else secrets)]
        return self.source.read(lower(headers), self.body if body is None else body, keys, NOW)


STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
CASES = [
    Case(
        name="github",
        source=github.SOURCE,
        body=b'{"action":"opened","issue":{"number":7},"installation":{"id":42}}',
        sign=lambda body, secret: github_headers(body, secret=secret),
        guarded=("X-Hub-Signature-256",),
    ),
    Case(
        name="slack",
        source=slack.SOURCE,
        body=b'{"type":"event_callback","team_id":"T1","event_id":"Ev1","event":{"type":"app_mention"}}',
        sign=lambda body, secret: slack_headers(body, secret=secret),
        guarded=("X-Slack-Signature", "X-Slack-Request-Timestamp"),
    ),
    Case(
        name="linear",
        source=linear.SOURCE,
        body=json.dumps({"type": "Comment", "webhookTimestamp": int(NOW.timestamp() * 1000)}).encode(),
        sign=lambda body, secret: linear_headers(body, secret=secret),
        guarded=("Linear-Signature",),
    ),
    Case(
        name="standard-shared",
        source=standard.SOURCE,
        body=ORDER,
        sign=by_shared,
        guarded=STANDARD,
        live=KEY,
        other=OTHER,
    ),
    Case(
        name="standard-private",
        source=standard.SOURCE,
        body=ORDER,
        sign=by_private,
        guarded=STANDARD,
        live=PUBLIC,
        other=OTHER_PUBLIC,
    ),
    Case(
        name="described-timed",
        source=described.SOURCE.of(TIMED),
        config=TIMED,
        body=ORDER,
        sign=timed,
        guarded=("X-Signature", "X-Time", "X-Id"),
    ),
    Case(
        name="described-plain",
        source=described.SOURCE.of(PLAIN),
        config=PLAIN,
        body=ORDER,
        sign=plain,
        guarded=("X-Signature",),
    ),
    Case(
        name="described-stripe",
        source=described.SOURCE.of(STRIPE),
        config=STRIPE,
        body=ORDER,
        sign=stripe,
        guarded=("Stripe-Signature",),
    ),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each
def test_every_flipped_bit_of_the_body_is_refused(case: Case) -> None:
    headers = case.headers()
    assert isinstance(case.read(headers), Received)
    for flipped in flips(case.body):
        assert fault_of(case.read(headers, flipped)) is Fault.SIGNATURE


@each
def test_every_flipped_bit_of_the_signature_and_of_each_header_it_covers_is_refused(case: Case) -> None:
    headers = case.headers()
    for name in case.guarded:
        for flipped in text_flips(headers[name]):
            assert fault_of(case.read(headers | {name: flipped})) is Fault.SIGNATURE, (name, flipped)


class _Asked(dict[str, str]):
    """Headers that remember which were read."""

    names: set[str]

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


@each
def test_every_header_that_a_source_reads_is_among_those_that_are_disfigured(case: Case) -> None:
    headers = _Asked(lower(case.headers()))
    headers.names = set()
    assert isinstance(case.source.read(headers, case.body, [Secret(case.live)], NOW), Received)
    assert headers.names <= set(headers)
    assert headers.names >= {name.lower() for name in case.guarded}


@each
@given(data=st.data())
def test_whatever_the_headers_are_a_delivery_is_sound_or_refused(case: Case, data: st.DataObject) -> None:
    genuine = lower(case.headers())
    lines = data.draw(disfigured.headers(genuine, TEXTS | st.text()))
    said = _joined(lines)
    reading = case.source.read(said, case.body, [Secret(case.live)], NOW)
    assert_sound(reading)
    # Beside the genuine one, some senders may list more: other versions, or a secret that is being rotated.
    if any(genuine[name.lower()] not in said.get(name.lower(), "") for name in case.guarded):
        assert fault_of(reading) is Fault.SIGNATURE


@each
@given(data=st.data())
def test_whatever_the_headers_are_the_web_has_an_answer(case: Case, data: st.DataObject) -> None:
    genuine = lower(case.headers())
    wire = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)  # PEP 3333
    lines = data.draw(disfigured.headers(genuine, wire))
    client, ledger = _web()
    ledger.accepted.clear()
    answer = client.post(f"/webhooks/{case.source.name}/{case.name}", data=case.body, headers=lines)
    assert answer.status_code < 500, answer.text
    assert (answer.status_code in (200, 202)) == (len(ledger.accepted) == 1)


@cache
def _web() -> tuple[FlaskClient, MemoryLedger]:
    """The web with a connection for each case, by its name."""
    ledger = MemoryLedger()
    for case in CASES:
        secrets = (Secret(case.live),)
        ledger.connections[case.name] = Secrets(provider=case.source.name, config=case.config, webhook_secrets=secrets)
    settings = WebSettings(base_url="https://aswhom.example")
    return create_app(settings, ledger, registry(), MemoryRing(), clock=lambda: NOW).test_client(), ledger


def _joined(lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    """As a server joins lines of one name (RFC 9110 §5.3)."""
    joined: dict[str, str] = {}
    for name, value in lines:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


@each
def test_both_secrets_fit_while_they_are_rotated_and_neither_when_there_is_none(case: Case) -> None:
    both = (case.live, case.other)
    for secret in both:
        headers = case.sign(case.body, secret)
        assert isinstance(case.read(headers, secrets=both), Received)
        assert isinstance(case.read(headers, secrets=both[::-1]), Received)
        assert fault_of(case.read(headers, secrets=())) is Fault.SIGNATURE
    assert fault_of(case.read(case.sign(case.body, case.other))) is Fault.SIGNATURE
