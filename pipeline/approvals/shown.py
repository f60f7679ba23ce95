"""Wording of a step for its approvers, the same on pages, in chat and on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.approvals.unseen import is_seen

IN_DOUBT = "it was sent before and no answer came: it may have been done already"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Somebody(_Frozen):
    """A principal: its id, and the name people use."""

    id: str
    name: str


class Actor(Somebody):
    """The principal a step acts as, its kind, and the access pattern."""

    kind: str
    pattern: str


class Wanted(_Frozen):
    """One rule's quorum, and the names of those who may say yes."""

    rule: str
    quorum: int
    approvers: tuple[str, ...]


def _later() -> Any:
    """Return the default of a field that older approvals lack; they keep their digest."""
    return Field(default=None, exclude_if=lambda value: value is None)


class Shown(_Frozen):
    """All that an approver is told of a step."""

    does: str
    action: str
    provider: str
    resource: str | None
    amount: str | None
    parameters: dict[str, Any]
    as_whom: Actor
    on_behalf_of: Somebody | None
    agent: str
    workflow: str
    job: str
    step: int
    why: str
    through: str | None = _later()  # the provider connection, and the address it calls
    started_by: str | None = _later()
    request_sha256: str | None = _later()  # of the request to send: method, path with query, and body
    needs: tuple[Wanted, ...] | None = _later()
    in_doubt: str | None = _later()  # an earlier call of the step may have had its effect

    @property
    def document(self) -> dict[str, Any]:
        """The stored form, which the digest covers."""
        return self.model_dump(mode="json")


def to_the_letter(value: object) -> str:
    """Return a parameter as it is, text or JSON, if all its characters are visible; otherwise as ASCII JSON.

    A character that changes the writing direction, or has no width, makes text look like other text.
    """
    if isinstance(value, str) and is_seen(value.replace("\n", "")):
        return value
    return _json(value)


def letters(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return every parameter by name; nested ones span several lines."""
    return {
        name: _json(value, indent=2) if isinstance(value, dict | list) else to_the_letter(value)
        for name, value in shown["parameters"].items()
    }


def _json(value: object, *, indent: int | None = None) -> str:
    plain = json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=isinstance(value, str) or not is_seen(plain), indent=indent)


def on_a_line(value: object) -> str:
    """Return a value on one line, as JSON if it has line breaks: the rest would look like a separate fact."""
    letter = to_the_letter(value)
    return json.dumps(letter, ensure_ascii=False) if "\n" in letter else letter


def in_lines(shown: Mapping[str, Any]) -> list[str]:
    """Return everything, one fact per line, whatever the values contain; the first line says what is done."""
    whom, behalf = shown["as_whom"], shown["on_behalf_of"]
    return [
        f"{on_a_line(shown['does'])} ({shown['action']})",
        *([shown["in_doubt"]] if shown.get("in_doubt") else []),
        *([f"on {on_a_line(shown['resource'])}"] if shown["resource"] else []),
        *([f"for {on_a_line(shown['amount'])}"] if shown["amount"] else []),
        f"as {on_a_line(whom['name'])} ({whom['kind']}, {whom['pattern']}) at {shown['provider']}"
        + (f", through {on_a_line(shown['through'])}" if shown.get("through") else "")
        + (f", on behalf of {on_a_line(behalf['name'])}" if behalf else "")
        + f", by agent {on_a_line(shown['agent'])} in {on_a_line(shown['workflow'])}",
        *([f"started by {on_a_line(shown['started_by'])}"] if shown.get("started_by") else []),
        f"because: {on_a_line(shown['why'])}",
        *(f"{name} = {on_a_line(value)}" for name, value in shown["parameters"].items()),
        *([f"SHA-256 of the request: {shown['request_sha256']}"] if shown.get("request_sha256") else []),
    ]


def quorums(shown: Mapping[str, Any]) -> list[str]:
    """Return how many people each rule wants to say yes, and which, one rule per line."""
    return [
        f"needs {need['quorum']} of {on_a_line(', '.join(need['approvers']))} to say yes"
        f", by the rule {on_a_line(need['rule'])}"
        for need in shown.get("needs") or ()
    ]
