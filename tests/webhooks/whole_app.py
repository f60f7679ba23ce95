"""The routes of the web application with all its parts. A part that is left out here is checked by nobody."""

from __future__ import annotations

from typing import Any

from pipeline.authoring.registry import Registry
from tests.webhooks.parts import MemoryLedger, MemoryRing
from webhooks.api.app import Agents
from webhooks.app import create_app
from webhooks.console.parts import Console
from webhooks.settings import WebSettings


def every_route() -> set[str]:
    """The rules of an application with all its parts."""
    unasked: Any = object()  # what is not asked for anything while the routes are made
    app = create_app(
        WebSettings(base_url="http://127.0.0.1"),
        MemoryLedger(),
        Registry([]),
        MemoryRing(),
        connector=unasked,
        agents=Agents(requests=unasked, invitations=unasked, workflows=Registry([]), quota=unasked),
        security_events=unasked,
        authority=unasked,
        approver=unasked,
        console=Console(
            store=unasked,
            ahead=unasked,
            workflows=Registry([]),
            ids=unasked,
            public_key=unasked,
            invitations=unasked,
            approving=unasked,
        ),
    )
    return {rule.rule for rule in app.url_map.iter_rules()}
