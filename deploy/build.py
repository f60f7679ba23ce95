"""Which build this is: two of one version may differ, and whoever looks for a fault has to know which one runs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

_PLACE = Path(__file__).with_name("revision.txt")


def version() -> str:
    return importlib.metadata.version("aswhom")


def revision(place: Path = _PLACE) -> str:
    """The commit that an image was built of, which the image's build writes there; elsewhere nobody does: empty."""
    return place.read_text(encoding="utf-8").strip() if place.is_file() else ""


def told() -> str:
    """The version, and of what commit it is where that is known."""
    return f"{version()} ({of})" if (of := revision()) else version()


def show() -> None:
    """Have this process' metrics say it."""
    from pipeline.metrics import show_build

    show_build(version(), revision())
