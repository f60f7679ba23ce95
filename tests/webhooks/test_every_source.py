"""What holds of every source, however its sender signs: one suite over a row of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.secret import Secret
from tests.webhooks.flips import flips, text_flips
from tests.webhooks.parts import (
    NOW,
    OLD_SECRET,
    SECRET,
    fault_of,
    github_headers,
    linear_headers,
    lower,
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
        body=ORDER,
        sign=timed,
        guarded=("X-Signature", "X-Time", "X-Id"),
    ),
    Case(
        name="described-plain",
        source=described.SOURCE.of(PLAIN),
        body=ORDER,
        sign=plain,
        guarded=("X-Signature",),
    ),
    Case(
        name="described-stripe",
        source=described.SOURCE.of(STRIPE),
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


@each
@given(kept=st.integers(0, 16), texts=st.tuples(st.text(), st.text(), st.text()))
def test_no_text_in_a_header_is_a_crash(case: Case, kept: int, texts: tuple[str, ...]) -> None:
    """Whether it begins as the genuine one does (`v1,`, `sha256=`) or not."""
    headers = case.headers()
    said = {name: headers[name][:kept] + text for name, text in zip(case.guarded, texts, strict=False)}
    assert fault_of(case.read(headers | said)) is Fault.SIGNATURE


@each
def test_both_secrets_fit_while_they_are_rotated_and_neither_when_there_is_none(case: Case) -> None:
    both = (case.live, case.other)
    for secret in both:
        headers = case.sign(case.body, secret)
        assert isinstance(case.read(headers, secrets=both), Received)
        assert isinstance(case.read(headers, secrets=both[::-1]), Received)
        assert fault_of(case.read(headers, secrets=())) is Fault.SIGNATURE
    assert fault_of(case.read(case.sign(case.body, case.other))) is Fault.SIGNATURE
