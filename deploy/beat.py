"""`celery --app deploy.beat beat`: fires due schedules from the ledger."""

from __future__ import annotations

from typing import Any

from celery.signals import setup_logging

from deploy import process

ignored = process.celerys_or_exit()
settings = process.settings_or_exit()
app = process.celery_app(settings, process.workflows_or_exit(settings))
app.listed = "beat"


@setup_logging.connect(weak=False)
def set_up_logging(**_: Any) -> None:
    """Set up the process here, which also keeps Celery from setting up logging."""
    process.set_up("beat", settings, is_well=app.ticks.is_well, is_ready=app.ticks.have_begun)
    process.tell_ignored(ignored)
