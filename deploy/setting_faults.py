"""Faults in settings, one line per variable, reported all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from identity.errors import Misconfigured

# Settings of earlier versions. The closest current name would be a wrong suggestion: VAULT_KEY_FILE for AUDIT_KEY_FILE.
_FORMER = frozenset({"AUDIT_KEY_FILE", "VISIBILITY_TIMEOUT"})
_FOLLOWS = "default_factory_not_called"  # pydantic's error for a default that depends on another, faulty setting


def unknown(environment: Mapping[str, str], *, known: Iterable[str], prefix: str) -> list[str]:
    """Return a line for each variable that begins with *prefix* but is not among the *known* names."""
    names = [prefix + name.upper() for name in known]
    faults = []
    for name in sorted(environment):
        if name.startswith(prefix) and name.removeprefix(prefix) in _FORMER:
            faults.append(f"{name} is no setting any more: unset it")
        elif name.startswith(prefix) and name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
            faults.append(f"{name} is not a setting: " + (f"is {near[0]} meant?" if near else "unset it"))
    return faults


def told(error: ValidationError, *, prefix: str) -> list[str]:
    """Return a line for each of pydantic's errors, without the value, which may be a secret."""
    details = error.errors(include_input=False, include_url=False)
    return [
        f"{prefix}{str(detail['loc'][0]).upper()}: {str(detail['msg']).removeprefix('Value error, ')}"
        for detail in details
        if detail["type"] != _FOLLOWS
    ]


def refuse(faults: Sequence[str]) -> None:
    """Raise Misconfigured with all *faults*, if there are any."""
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(f"the settings cannot be used:{listed}")
