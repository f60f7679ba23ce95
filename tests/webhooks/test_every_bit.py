"""Flips every bit of the shorter published payloads, and one bit in each byte of the longer ones."""

from __future__ import annotations

import pytest

from tests.webhooks import published
from tests.webhooks.flips import flips
from tests.webhooks.parts import fault_of
from webhooks.sources.reading import Fault, Refusal

EVERY_BIT = 5000  # bytes: of a longer payload all bits would take the suite a quarter of an hour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("sent", [*published.sent()], ids=lambda one: f"{one.source}-{one.name}")
def test_a_flipped_bit_in_any_byte_of_a_published_payload_is_refused(sent: published.Sent) -> None:
    read = sent.reader()
    assert not isinstance(read(sent.body), Refusal)
    places = None if len(sent.body) <= EVERY_BIT else (byte * 8 + byte % 8 for byte in range(len(sent.body)))
    for number, flipped in enumerate(flips(sent.body, places)):
        assert fault_of(read(flipped)) is Fault.SIGNATURE, number
