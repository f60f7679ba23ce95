"""Named crash points at which a test's `reached` lets a process die or wait."""

from __future__ import annotations


def none_reached(point: str) -> None:
    """The crash points of production: none."""
