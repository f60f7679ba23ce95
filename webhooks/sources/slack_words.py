"""What a person at Slack is told of a command they gave or a button they pressed: they alone see it. Pure.

https://docs.slack.dev/interactivity/handling-user-interaction/#message_responses
https://docs.slack.dev/interactivity/implementing-slash-commands/#responding_to_commands
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline.model import Acceptance, DeliveryOutcome

ASK = "Ask whoever runs this installation"


def of_press(acceptance: Acceptance, _usages: Sequence[str]) -> Mapping[str, Any] | None:
    """Whether an answer to an approval counts; None: that was said before."""
    match acceptance.outcome:
        case DeliveryOutcome.DUPLICATE:
            return None
        case DeliveryOutcome.ACCEPTED:
            return _words(f"Your answer counts: {acceptance.reason}.", replace_original=False)
        case _:
            return _words(f"Your answer does not count: {acceptance.reason}.", replace_original=False)


def of_command(acceptance: Acceptance, usages: Sequence[str], *, command: str) -> Mapping[str, Any]:
    """What comes of a command; *usages* is what could be typed, where nothing wanted what was."""
    if acceptance.unknown_user:
        return _words(f"Nobody here knows you yet. {ASK} for a link by which you connect your accounts.")
    if acceptance.jobs:
        return _words("Understood: it is under way.")
    if usages:
        known = "\n".join(f"{command} {usage}" for usage in usages)
        return _words(f"That is no command here. What can be typed:\n{known}")
    return _words(f"Nothing comes of that: {acceptance.reason}. {ASK}.")


def _words(text: str, **more: bool) -> Mapping[str, Any]:
    return {"response_type": "ephemeral", "text": escape(text, quote=False), **more}
