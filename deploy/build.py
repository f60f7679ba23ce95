"""The build's identity: version and commit, since two builds of one version may differ."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

_PLACE = Path(__file__).with_name("revision.txt")


def version() -> str:
    return importlib.metadata.version("aswhom")


def revision(place: Path = _PLACE) -> str:
    """Return the commit an image was built from, as written by its build. Empty elsewhere."""
    return place.read_text(encoding="utf-8").strip() if place.is_file() else ""


def told() -> str:
    """Return the version, with the commit if known."""
    return f"{version()} ({of})" if (of := revision()) else version()


def show() -> None:
    """Export the build as a metric."""
    from pipeline.metrics import show_build

    show_build(version(), revision())
