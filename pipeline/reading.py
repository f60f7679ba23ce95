"""Reading of upstream responses: their shapes, what may be quoted of them, and how long they ask us to wait.

Part of the Python API: docs/reference/python-api.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from identity.oauth.lifetime import count, http_date
from identity.quoting import error_name, is_name, quoted, sentence
from pipeline.action import Response, UnreadableAnswer
from pipeline.fields import misfitting
from pipeline.throttle.limits import LONGEST_WAIT

__all__ = ["count", "error_name", "is_name", "parse", "quoted", "sentence", "wait_until"]

T = TypeVar("T")


def parse(response: Response, shape: type[T], *, at: tuple[str, ...] = ()) -> T:
    """Parse the part of the body that lies *at* the given path as *shape*.

    Raises UnreadableAnswer, which names the fields and never quotes the body.
    """
    found = response.json()
    for name in at:
        if not isinstance(found, dict) or name not in found:
            raise UnreadableAnswer(f"the answer (status {response.status}) lacks {'.'.join(at)}")
        found = found[name]
    try:
        return TypeAdapter(shape).validate_python(found)
    except ValidationError as error:
        fields = misfitting(error, at=at, whole="the body")
    raise UnreadableAnswer(f"the answer (status {response.status}) lacks or mistypes: {fields}")


def wait_until(epoch_seconds: float, headers: Mapping[str, str]) -> timedelta | None:
    """Return the time from the response's own Date (RFC 9110 §6.6.1) to a moment the upstream names, at most a day.

    Our own clock is not involved.
    """
    now = http_date(headers.get("date", ""))
    if now is None:
        return None
    return timedelta(seconds=min(max(0.0, epoch_seconds - now.timestamp()), LONGEST_WAIT.total_seconds()))
