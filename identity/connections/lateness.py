"""Permitted lateness of a sender's deliveries: the provider connection's setting, or as long as the sender retries.

A sender that retries with the same signed bytes states the time of its first try. A replay within this period is
recognised by its body, because bodies are remembered for longer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from identity.errors import BadInput

SETTING = "late_hours"
MOST = timedelta(hours=71)  # less than the three days for which a body is remembered, allowing for clocks that are off

# By provider, for those whose retries carry the time of the first try. Linear retries after a minute, an hour and six.
# https://linear.app/developers/webhooks; that they are the same bytes: https://github.com/vercel/eve/issues/1570
TRIES_FOR: Mapping[str, timedelta] = {"linear": timedelta(hours=8)}


def allowed_lateness(provider: str, config: Mapping[str, str]) -> timedelta:
    """Return how long after signing a delivery is accepted. Raises BadInput for a setting that cannot be read."""
    text = config.get(SETTING)
    if text is None:
        return TRIES_FOR[provider]
    most = MOST // timedelta(hours=1)
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) > most:
        raise BadInput(
            f"{SETTING} is a whole number from 0 to {most}: a body is remembered for 3 days, and what comes later than "
            "that could be a replay"
        )
    return timedelta(hours=int(text))
