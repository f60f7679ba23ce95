"""Environment variables that Celery would obey by itself.

In a shared environment they mostly belong to another application, and Celery lets them override its configuration:
another broker, another pool. Only ASWHOM_ variables configure Aswhom. Celery's stay in the environment nevertheless,
because a workflow may hand work to that application, whose code then runs here and reads them.
"""

from __future__ import annotations

from collections.abc import Iterable

import click

# The `celery` command acts on these before it loads any module of ours: it changes to that directory, or remaps SIGTERM
# (to SIGQUIT, for example, which cuts off calls in flight).
TOO_LATE = ("CELERY_WORKDIR", "REMAP_SIGTERM")


def celerys(names: Iterable[str]) -> list[str]:
    """Return the *names* that Celery reads."""
    return sorted(name for name in names if name.startswith("CELERY_") or name in TOO_LATE)


def too_late(names: Iterable[str]) -> list[str]:
    """Return a line for each of *names* that the `celery` command has already acted on."""
    return [
        f"{name} is Celery's, which has acted on it already: start Aswhom's processes without it, "
        f"by `env -u {name} celery …` where it is set for all"
        for name in sorted(names)
        if name in TOO_LATE
    ]


def take_no_options() -> None:
    """Make the `celery` command that loads us take its options from its command line only."""
    command = click.get_current_context(silent=True)
    if command is not None:
        command.auto_envvar_prefix = None
