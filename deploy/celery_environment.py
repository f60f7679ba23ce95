"""What Celery would take from the environment by itself.

Such variables are mostly another application's, in an environment that is shared, and Celery has them win over what it
is configured with: another broker, another pool. Aswhom is set by its own variables alone. They stay in the environment
all the same: a workflow may well hand work on to that application, whose code runs here then, and reads them.
"""

from __future__ import annotations

from collections.abc import Iterable

import click

# The `celery` command has acted on these before it loads any module of ours: it went to that directory, and SIGTERM
# means to it what the second says (`SIGQUIT`: the calls on the wire are cut).
TOO_LATE = ("CELERY_WORKDIR", "REMAP_SIGTERM")


def celerys(names: Iterable[str]) -> list[str]:
    """Those of *names* that Celery reads."""
    return sorted(name for name in names if name.startswith("CELERY_") or name in TOO_LATE)


def too_late(names: Iterable[str]) -> list[str]:
    """A line for each of *names* that a `celery` command which has it in its environment has acted on."""
    return [
        f"{name} is Celery's, which has acted on it already: start Aswhom's processes without it, "
        f"by `env -u {name} celery …` where it is set for all"
        for name in sorted(names)
        if name in TOO_LATE
    ]


def take_no_options() -> None:
    """Have the `celery` command that loads us take what its worker or beat is told from its command line alone."""
    command = click.get_current_context(silent=True)
    if command is not None:
        command.auto_envvar_prefix = None
