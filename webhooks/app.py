"""The composition root of the web: builds one Flask app from its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, NotFound

from pipeline.authoring.registry import Registry
from pipeline.model import Ring
from webhooks import client_address, metrics, problems
from webhooks.api import app as api
from webhooks.api.app import Agents
from webhooks.approvals import Approver, approval_link_pages
from webhooks.authority.endpoints import Authority, authority_pages
from webhooks.bells import Bells
from webhooks.connect import Connector, connect_pages
from webhooks.console import app as console_app
from webhooks.console.parts import Console
from webhooks.health import health
from webhooks.ledger import Ledger
from webhooks.pages import pages
from webhooks.quota import Rates
from webhooks.receiver import receiver
from webhooks.replies import Replies
from webhooks.security_event_push import SecurityEvents, event_receiver
from webhooks.settings import WebSettings

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: WebSettings,
    ledger: Ledger,
    workflows: Registry,
    ring: Ring,
    *,
    connector: Connector | None = None,
    agents: Agents | None = None,
    security_events: SecurityEvents | None = None,
    authority: Authority | None = None,
    approver: Approver | None = None,
    rates: Rates | None = None,
    replies: Replies | None = None,
    console: Console | None = None,
    signing_key: str | None = None,
    clock: Callable[[], datetime] = _now,
) -> Flask:
    """Build the WSGI app. It opens no connection or file, so it may be built before the server forks."""
    app = api.make_app()
    app.debug = False  # Flask would read FLASK_DEBUG: a debugger gives strangers a shell
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, PROPAGATE_EXCEPTIONS=False)
    client_address.install(app, settings.proxies)
    metrics.install(app)
    problems.install(app)
    if settings.metrics_port:
        metrics.keep_apart(app, settings.metrics_port)
    app.before_request(_in_ascii)
    app.before_request(_holds_no_nul)
    app.before_request(partial(_fits_if_it_writes, ledger))
    app.after_request(partial(_plainly, settings))
    bells = Bells(ring)
    rates = rates or Rates.of(settings.webhook_rate, settings.webhook_tenant_rate, None)
    app.register_blueprint(receiver(settings, ledger, workflows, bells, rates, replies=replies, clock=clock))
    if security_events is not None:
        app.register_blueprint(event_receiver(settings, security_events, bells, clock=clock))
    if authority is not None:
        app.register_blueprint(authority_pages(settings, authority, clock=clock))
    app.register_blueprint(metrics.page(settings.metrics_dir))
    app.register_blueprint(health(ledger, workflows, signing_key=signing_key))
    app.register_blueprint(pages())
    if agents is not None:
        api.install(app, agents, bells, base_url=settings.base_url, clock=clock)
    if connector is not None:
        app.register_blueprint(connect_pages(settings, connector, clock=clock))
    if console is not None:
        console_app.install(app, settings, console, bells, clock=clock)
    if approver is not None:
        sign_in = console is not None and console.sign_in is not None
        app.register_blueprint(approval_link_pages(settings, approver, sign_in=sign_in, clock=clock))
    return app


def _in_ascii() -> None:
    """Percent-encode non-ASCII bytes in the query, as browsers do: later readers assume UTF-8."""
    if not request.query_string.isascii():
        request.query_string = quote(request.query_string, safe=bytes(range(128))).encode()


def _holds_no_nul() -> None:
    """Refuse an address with a NUL: no name here contains one, and PostgreSQL stores none in text."""
    if "\0" in request.path:
        raise NotFound
    if b"%00" in request.query_string:
        raise BadRequest


def _fits_if_it_writes(ledger: Ledger) -> None:
    """Refuse writes while the ledger does not fit: a revocation would be acknowledged and end nothing."""
    if request.method not in _READS:
        ledger.fits()


def _plainly(settings: WebSettings, response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    if settings.secure:  # RFC 6797: from then on a browser uses only TLS for this host
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response
