"""Scope inclusion, and the bound of an account's scopes, which no answer and no signal can widen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from identity.providers import PROFILES


def covered(provider: str, scopes: Iterable[str]) -> frozenset[str]:
    """Return the scopes together with those the provider includes in them."""
    profile = PROFILES.get(provider)
    return profile.covered(scopes) if profile else frozenset(scopes)


def within(provider: str, scopes: Iterable[str], *, ceiling: Sequence[str] | None) -> list[str]:
    """Return those of *scopes* that *ceiling* covers, in their order; all of them if it is None."""
    bound = None if ceiling is None else covered(provider, ceiling)
    return [scope for scope in scopes if bound is None or scope in bound]
