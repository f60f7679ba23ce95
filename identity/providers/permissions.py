"""Permissions of an installation's token: scopes such as `issues:write`, and GitHub's permissions for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LEVELS = ("read", "write", "admin")


def permissions(scopes: Sequence[str]) -> dict[str, str] | None:
    """Return scopes such as `issues:write` as an installation token's permissions; None if one has another form."""
    wanted: dict[str, str] = {}
    for scope in scopes:
        name, _, level = scope.partition(":")
        if not name or level not in _LEVELS:
            return None
        wanted[name] = max(wanted.get(name, level), level, key=_LEVELS.index)
    return wanted or None


def allowed(asked: Sequence[str], said: Any) -> tuple[str, ...]:
    """Return those of *asked* that an answer's permissions allow; all if it has none, or *asked* has another form.

    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    """
    if not isinstance(said, Mapping) or not said or permissions(asked) is None:
        return tuple(asked)
    return tuple(scope for scope in asked if _allows(said, *scope.split(":", 1)))


def _allows(said: Mapping[str, Any], name: str, level: str) -> bool:
    has = said.get(name)
    return has in _LEVELS and _LEVELS.index(has) >= _LEVELS.index(level)
