"""`gunicorn deploy.wsgi:app`: serves webhooks, the agents' API, connect pages, the authority, health and metrics.

Importing this opens the ledger, whose locks must not cross a fork: do not use `--preload` (see deploy/gunicorn.py).
"""

from __future__ import annotations

import atexit

from deploy import process
from deploy.console import console
from deploy.environment import metrics_folder
from identity.keys.trusted_keys import key_id
from webhooks.api.app import Agents
from webhooks.app import create_app
from webhooks.quota import Quota, Rates, SharedCounts
from webhooks.replies import Replies

settings = process.settings_or_exit()
runtime = process.open_runtime(settings, "web")
atexit.register(runtime.close)
web = settings.web(metrics_folder())
url = settings.redis()
counts = None if url is None else SharedCounts.at(url, prefix=web.key_prefix)
agents = Agents(
    requests=runtime.requests,
    invitations=runtime.invitations,
    workflows=runtime.workflows,
    quota=Quota(web.api_rate, counts),
)
app = create_app(
    web,
    runtime.intake,
    runtime.workflows,
    runtime.ring,
    connector=runtime.connecting,
    agents=agents,
    security_events=runtime.security_events,
    authority=runtime.authority,
    approver=runtime.approving,
    rates=Rates.of(web.webhook_rate, web.webhook_tenant_rate, counts),
    replies=Replies(runtime.http),
    console=console(settings, runtime),
    signing_key=key_id(runtime.signer.public_key()),
)
