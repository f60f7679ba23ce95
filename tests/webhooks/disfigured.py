"""What a sender may have signed and nobody foresaw, and what has to hold of whatever is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Any

import orjson
from hypothesis import strategies as st

from webhooks.sources.reading import Challenge, Fault, Reading, Received, Refusal

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # NUL and halves of surrogate pairs, too
_MOMENTS = st.sampled_from(
    ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999-00:01", "2026-03-01T12:00:00", 1 << 39]
)
_SCALARS = st.none() | st.booleans() | st.integers(-1 << 45, 1 << 45) | st.floats(allow_nan=False) | TEXTS | _MOMENTS
_VALUES = st.recursive(
    _SCALARS, lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3), max_leaves=5
)


@st.composite
def bodies(draw: st.DrawFn, *documents: Mapping[str, Any]) -> str:
    """One of *documents*, or any JSON at all, with anything at all in place of some of its values."""

    def copy(value: Any) -> Any:
        if draw(st.integers(0, 7)) == 7:
            return draw(_VALUES)
        match value:
            case dict():
                return {key: copy(one) for key, one in value.items()}
            case list():
                return [copy(one) for one in value]
        return value

    return json.dumps(copy(draw(st.sampled_from(documents))))


@st.composite
def headers(draw: st.DrawFn, genuine: Mapping[str, str], texts: st.SearchStrategy[str]) -> list[tuple[str, str]]:
    """The lines of *genuine* headers, each of them as it is, missing, any text, or there twice."""
    lines = []
    for name, value in genuine.items():
        text, kept = draw(texts), draw(st.integers(0, 16))
        beside = [[(name, value), (name, text)], [(name, text), (name, value)], [(name, value)] * 2]
        lines += draw(st.sampled_from([[(name, value)], [], [(name, text)], [(name, value[:kept] + text)], *beside]))
    return lines


def assert_sound(reading: Reading) -> None:
    """A declared refusal, or a delivery that has its id and says nothing that a ledger cannot hold."""
    match reading:
        case Refusal(fault=fault, detail=detail):
            assert fault in Fault
            assert detail
        case Received(delivery_id=delivery, event=event, installation=installation):
            assert all(named.isascii() and named.isprintable() for named in (delivery, event, installation or "none"))
            assert delivery
            assert event
            assert installation != ""
            for told in (reading.signal, reading.answer):
                assert told is None or b"\\u0000" not in orjson.dumps(asdict(told), default=_plain)
            if reading.signal is not None and reading.signal.happened_at is not None:
                (reading.signal.happened_at + reading.signal.precision).astimezone(UTC)
        case Challenge(answer=answer):
            assert answer is None or len(answer) <= 1000


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)
