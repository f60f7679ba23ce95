"""What a person at Slack is told of a command they gave or a button they pressed: they alone see it. Pure.

Whoever installs a public app can type and press, so what is told is from a closed list: the reason on record is for
operators, and names tenants, connections and commands.
https://docs.slack.dev/interactivity/handling-user-interaction/#message_responses
https://docs.slack.dev/interactivity/implementing-slash-commands/#responding_to_commands
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from identity.hold import HELD_FOR_OTHERS
from pipeline.model import Acceptance, DeliveryOutcome

ASK = "Ask whoever runs this installation"
_NOT_HERE = f"This is not set up here. {ASK}."


def of_press(acceptance: Acceptance, _usages: Sequence[str]) -> Mapping[str, Any] | None:
    """Whether an answer to an approval counts; None: that was said before."""
    match acceptance.outcome:
        case DeliveryOutcome.DUPLICATE:
            return None
        case DeliveryOutcome.ACCEPTED:
            return _words(f"Your answer counts: {acceptance.told}.", replace_original=False)
        case _:
            unread = acceptance.outcome is DeliveryOutcome.UNRECOGNISED
            why = "this button cannot be read" if unread else "this is not set up here"
            why = acceptance.told or f"{why}. {ASK}"
            return _words(f"Your answer does not count: {why}.", replace_original=False)


def of_command(acceptance: Acceptance, usages: Sequence[str], *, command: str) -> Mapping[str, Any]:
    """What comes of a command; *usages* is what could be typed here, where nothing wanted what was."""
    if acceptance.nobodys:
        return _words(_NOT_HERE)
    if acceptance.unknown_user:
        return _words(
            "Understood, but nobody here knows you yet: what needs your own access is not done, so there is no use in "
            f"typing it again. {ASK} for a link by which you connect your accounts."
        )
    if acceptance.held:
        return _words(f"Taken, and it waits: {HELD_FOR_OTHERS}.")
    if acceptance.jobs:
        return _words("Understood: it is under way.")
    if usages:
        known = "\n".join(f"{command} {usage}" for usage in usages)
        return _words(f"That is no command here. What can be typed:\n{known}")
    return _words(f"Nothing comes of that here. {ASK}.")


def _words(text: str, **more: bool) -> Mapping[str, Any]:
    return {"response_type": "ephemeral", "text": escape(text, quote=False), **more}
