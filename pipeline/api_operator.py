"""Names of API callers in audit rows, receipts and jobs, where other operators have names of their own."""

from __future__ import annotations

from identity.agents.api_keys import Caller

_BY_API = "api:"


def api_operator(caller: Caller) -> str:
    """Return the name of an API caller in audit rows and receipts."""
    return f"{_BY_API}{caller.agent}:{caller.key}"


def key_of_operator(by: str) -> str | None:
    """Return the key in *by*, a name by `api_operator`; None if the operator used no key."""
    return by.rpartition(":")[2] if by.startswith(_BY_API) else None
