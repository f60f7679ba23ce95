"""Answers to approvals, given by a button in Slack.

https://docs.slack.dev/reference/interaction-payloads/block_actions-payload
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.signed_answer import APPROVE, DENY, SignedAnswer, read_carried
from webhooks.sources.stated import name


def answer(document: Mapping[str, Any]) -> tuple[SignedAnswer | None, str]:
    """Return the answer in a `block_actions` payload, or why our button cannot be read; neither without one."""
    actions = document.get("actions")
    pressed = [one for one in (actions if isinstance(actions, list) else []) if isinstance(one, dict) and _is_ours(one)]
    if document.get("type") != "block_actions" or not pressed:
        return None, ""
    user = document.get("user")
    who = name(user.get("id")) if isinstance(user, dict) else None
    value = pressed[0].get("value")
    about = read_carried(value) if isinstance(value, str) else None
    if len(pressed) != 1 or who is None or about is None:
        return None, "a button of an approval without its user or what it carries"
    approval, digest = about
    yes = pressed[0]["action_id"] == APPROVE
    return SignedAnswer(provider="slack", user=who, approval=approval, digest=digest, yes=yes), ""


def _is_ours(action: Mapping[str, Any]) -> bool:
    return action.get("action_id") in (APPROVE, DENY)
