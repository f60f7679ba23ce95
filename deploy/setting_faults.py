"""The faults of settings: each in a line that names the variable, and all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from identity.errors import Misconfigured

# What an earlier version had: the name that is nearest is another thing, such as the vault's key file of the audit's.
_FORMER = frozenset({"AUDIT_KEY_FILE", "VISIBILITY_TIMEOUT"})
_FOLLOWS = "default_factory_not_called"  # pydantic's word for a default that another setting's fault left open


def unknown(environment: Mapping[str, str], *, known: Iterable[str], prefix: str) -> list[str]:
    """A line for each variable that begins with *prefix* and is no setting; *known* are their names."""
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
    """A line for each fault that pydantic found, without the value, which may be a secret."""
    details = error.errors(include_input=False, include_url=False)
    return [
        f"{prefix}{str(detail['loc'][0]).upper()}: {str(detail['msg']).removeprefix('Value error, ')}"
        for detail in details
        if detail["type"] != _FOLLOWS
    ]


def refuse(faults: Sequence[str]) -> None:
    """Raise Misconfigured with every one of *faults*, if there are any."""
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(f"the settings cannot be used:{listed}")
