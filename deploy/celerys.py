"""What Celery would take from the environment by itself.

Such variables are mostly another application's, in an environment that is shared, and Celery has them win over what it
is configured with: another broker, another pool. Aswhom is set by its own variables alone, so they are taken out before
Celery looks.
"""

from __future__ import annotations

from collections.abc import Iterable

# The `celery` command has acted on these before it loads any module of ours: it went to that directory, and SIGTERM
# means to it what the second says (`SIGQUIT`: the calls on the wire are cut).
_TOO_LATE = ("CELERY_WORKDIR", "REMAP_SIGTERM")


def celerys(names: Iterable[str]) -> list[str]:
    """Those of *names* that Celery reads."""
    return sorted(name for name in names if name.startswith("CELERY_") or name in _TOO_LATE)


def too_late(names: Iterable[str]) -> list[str]:
    """A line for each of *names* that a `celery` command which has it in its environment cannot forget any more."""
    return [
        f"{name} is Celery's, which has acted on it already: unset it for Aswhom's processes"
        for name in sorted(names)
        if name in _TOO_LATE
    ]
