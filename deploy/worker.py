"""`celery --app deploy.worker worker`: the workers of the pattern queues and of revocations."""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_ready

from deploy import process

ignored = process.celerys_or_exit()
settings = process.settings_or_exit()
app = process.celery_app(settings, process.workflows_or_exit(settings))


@setup_logging.connect(weak=False)
def leave_logging_alone(**_: Any) -> None:
    """Celery sets up logging unless someone listens here."""


@celeryd_init.connect(weak=False)
def set_up(sender: str, **_: Any) -> None:
    """The process is called what its command line says: `--hostname worker-1@%h`."""
    process.set_up(sender.partition("@")[0], settings)
    process.tell_ignored(ignored)


@worker_ready.connect(weak=False)
def spare_what_is_loaded(**_: Any) -> None:
    process.spare_what_is_loaded()
