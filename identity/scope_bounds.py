"""What a scope includes, and the bound of an account's scopes: no answer and no signal lets it have more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from identity.providers import PROFILES


def covered(provider: str, scopes: Iterable[str]) -> frozenset[str]:
    """The scopes and what the provider takes them to include."""
    profile = PROFILES.get(provider)
    return profile.covered(scopes) if profile else frozenset(scopes)


def within(provider: str, scopes: Iterable[str], *, ceiling: Sequence[str] | None) -> list[str]:
    """Those of *scopes* that *ceiling* covers, in their order; None: there is no bound."""
    bound = None if ceiling is None else covered(provider, ceiling)
    return [scope for scope in scopes if bound is None or scope in bound]
