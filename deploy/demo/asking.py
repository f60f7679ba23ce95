"""Requests to the demo's own processes, which may be slow or gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from identity.errors import Unavailable

ADVICE = "Try it again on a quiet machine or with more time; --data-dir keeps what its processes say, in demo.log"


@contextmanager
def asking(whom: str) -> Iterator[None]:
    """Turn HTTP errors of *whom* into a sentence. Raise Unavailable."""
    try:
        yield
    except httpx.HTTPError as fault:
        said = f"{type(fault).__name__}: {fault}".removesuffix(": ")
        raise Unavailable(f"{whom} did not answer as it should ({said}). {ADVICE}") from fault
