"""Every bit of published payloads, flipped: elsewhere only some of each are."""

from __future__ import annotations

import pytest

from tests.webhooks import published
from tests.webhooks.flips import flips
from tests.webhooks.parts import fault_of
from webhooks.sources.reading import Fault, Refusal

LARGEST = 5000  # bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "sent", [one for one in published.sent() if len(one.body) <= LARGEST], ids=lambda one: f"{one.source}-{one.name}"
)
def test_every_flipped_bit_of_a_published_payload_is_refused(sent: published.Sent) -> None:
    read = sent.reader()
    assert not isinstance(read(sent.body), Refusal)
    for number, flipped in enumerate(flips(sent.body)):
        assert fault_of(read(flipped)) is Fault.SIGNATURE, number
