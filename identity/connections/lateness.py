"""How late a sender's delivery is taken: as its provider connection says, else as long as the sender tries again.

A sender that tries again with the same signed bytes says the time of its first try. A replay within this is known by
its body, since bodies are remembered for longer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from identity.errors import BadInput

SETTING = "late_hours"
MOST = timedelta(hours=71)  # below the three days for which a body is remembered, clocks that are off included

# By provider, of those whose retries bear the time of the first try. Linear tries after a minute, an hour and six.
# https://linear.app/developers/webhooks; that they are the same bytes: https://github.com/vercel/eve/issues/1570
TRIES_FOR: Mapping[str, timedelta] = {"linear": timedelta(hours=8)}


def allowed_lateness(provider: str, config: Mapping[str, str]) -> timedelta:
    """How long after it was signed a delivery is taken. Raises BadInput for a setting that cannot be read."""
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
