"""`gunicorn deploy.wsgi:app`: webhooks in, connect pages, health, metrics.

Importing this opens the ledger, whose locks must not cross a fork: so no `--preload`, as deploy/gunicorn.py says too.
"""

from __future__ import annotations

import atexit

from deploy import process
from deploy.settings import metrics_folder
from webhooks.app import create_app

settings = process.settings_or_exit()
runtime = process.open_runtime(settings)
atexit.register(runtime.close)
app = create_app(
    settings.web(metrics_folder()),
    runtime.intake,
    runtime.workflows,
    runtime.ring,
    runtime.connecting,
    events=runtime.events,
)
