"""`gunicorn deploy.wsgi:app`: webhooks in, the agents' API, connect pages, the authority, health, metrics.

Importing this opens the ledger, whose locks must not cross a fork: so no `--preload`, as deploy/gunicorn.py says too.
"""

from __future__ import annotations

import atexit

from deploy import process
from deploy.settings import metrics_folder
from webhooks.api.app import Agents
from webhooks.api.quota import Quota
from webhooks.app import create_app

settings = process.settings_or_exit()
runtime = process.open_runtime(settings)
atexit.register(runtime.close)
web = settings.web(metrics_folder())
agents = Agents(
    requests=runtime.requests,
    invitations=runtime.invitations,
    workflows=runtime.workflows,
    quota=Quota(web.api_rate, runtime.redis, prefix=web.key_prefix),
)
app = create_app(
    web,
    runtime.intake,
    runtime.workflows,
    runtime.ring,
    runtime.connecting,
    agents,
    events=runtime.events,
    authority=runtime.authority,
    approver=runtime.approving,
)
