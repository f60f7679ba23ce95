"""Texts for the person at Slack who gave a command or pressed a button; only they see them. Pure.

Anybody who installs a public app can type and press, so the texts come from a closed list: the recorded reason is for
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
    """Say whether an answer to an approval counts; None: that was said before."""
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
    """Say what a command led to; *usages* are valid commands to suggest if nothing wanted this one."""
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
