"""`celery --app deploy.worker worker`: workers of the pattern queues and of revocations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_ready

from deploy import process

ignored = process.celerys_or_exit()
settings = process.settings_or_exit()
app = process.celery_app(settings, process.workflows_or_exit(settings))


@setup_logging.connect(weak=False)
def leave_logging_alone(**_: Any) -> None:
    """Keep Celery from setting up logging, which it does unless this signal has a receiver."""


@celeryd_init.connect(weak=False)
def set_up(sender: str, options: Mapping[str, Any], **_: Any) -> None:
    """Name the process by its command line: `--hostname worker-1@%h`."""
    name = sender.partition("@")[0]
    app.listed = process.listed_as(name, options.get("queues") or ())
    hearing = app.hearing
    process.set_up(name, settings, listed=app.listed, is_well=hearing.is_well, is_ready=hearing.has_begun)
    process.tell_ignored(ignored)
    process.tell_raised(settings)


@worker_ready.connect(weak=False)
def spare_what_is_loaded(**_: Any) -> None:
    process.spare_what_is_loaded()
