"""Metrics of the web processes. Labels come from closed sets: never a tenant, a connection or an id.

Registered transmitters are the exception: each should be visible beside a busy one, and they are few.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.exceptions import NotFound

from pipeline import metrics as of_pipeline
from pipeline.model import DeliveryOutcome
from webhooks import problems
from webhooks.security_event import Code, Unproven
from webhooks.sources import SOURCES

CHALLENGE = "challenge"  # answered, and nothing recorded
# A revocation that matches nobody: a security event's subject has no known form, or a delivery names a place that is
# listed for no tenant.
NOBODY = "nobody"
# The same for a place where nobody ever connected, or for people of a listed place without an account: other users of a
# public app uninstall it too.
STRANGER = "stranger"
DROPPED = "dropped"  # from an installation that no tenant has, and over the limit of those that are stored
ELSEWHERE = "unknown"  # the source label of a request to a path that names no known source
#: Outcomes of a request to the receiver; a refused one counts under its problem's slug.
OUTCOMES = frozenset({*DeliveryOutcome, CHALLENGE, DROPPED, NOBODY, STRANGER, *(kind.slug for kind in problems.KINDS)})

EVENT_OUTCOMES = frozenset(
    {
        DeliveryOutcome.SIGNAL,
        DeliveryOutcome.IGNORED,
        DeliveryOutcome.DUPLICATE,
        NOBODY,
        *Code,
        *Unproven,
        *(kind.slug for kind in problems.KINDS),
    }
)

WEBHOOKS = Counter(
    "aswhom_webhooks_total", "Requests to the webhook receiver by what became of them", ["source", "outcome"]
)
for _source in SOURCES:  # start at 0: Prometheus sees no increase when a series first appears at 1
    for _outcome in (
        DeliveryOutcome.UNRECOGNISED,
        NOBODY,
        DROPPED,
        problems.TOO_MANY.slug,
        problems.MALFORMED.slug,
        problems.SIGNATURE_REFUSED.slug,
    ):
        WEBHOOKS.labels(source=_source, outcome=_outcome)
MISREAD = Counter(
    "aswhom_deliveries_misread_total",
    "Deliveries that a workflow which is on for their tenant could not read",
    ["workflow"],
)
WITHHELD = Counter(
    "aswhom_webhooks_withheld_total", "Times that a sender said it left out events, which never come", ["source"]
)
WITHHELD.labels(source="slack")  # the only source that reports it
SECURITY_EVENTS = Counter(
    "aswhom_security_events_total", "Security Event Tokens by what became of them", ["outcome", "transmitter"]
)
REQUESTS = Counter(
    "aswhom_http_requests_total", "Requests by route and by the status of their answer", ["route", "method", "status"]
)
_DELIVERIES, _EVENTS = "/webhooks/<source>/<connection>", "/events/<transmitter>"
for _route in (_DELIVERIES, _EVENTS):  # start at 0: alerts watch these, however rare
    for _kind in (problems.UNAVAILABLE, problems.FAILED):
        REQUESTS.labels(route=_route, method="POST", status=str(_kind.status))
SECONDS = Histogram(
    "aswhom_http_request_seconds",
    "From the head of a request to the answer, built but not yet sent",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

# In multiprocess mode the client library omits its own `process_*`.
_NEWEST = Gauge(
    "process_start_time_seconds",
    "Start time of the newest of the processes since unix epoch in seconds.",
    registry=None,
    multiprocess_mode="livemax",
)
_NEWEST.set(REGISTRY.get_sample_value("process_start_time_seconds") or 0)

NO_ROUTE, OTHER = "none", "other"
_PROBES = ("/metrics", "/healthz", "/readyz")  # Aswhom's own probes: no alert counts them
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count(source: str, outcome: str) -> None:
    """Count one request to the receiver."""
    if outcome not in OUTCOMES:
        raise ValueError(f"{outcome!r} is not an outcome that is counted")
    WEBHOOKS.labels(source=source if source in SOURCES else ELSEWHERE, outcome=outcome).inc()


def count_event(outcome: str, transmitter: str) -> None:
    """Count one request to the receiver of Security Event Tokens; *transmitter* is empty if it is unknown."""
    if outcome not in EVENT_OUTCOMES:
        raise ValueError(f"{outcome!r} is not an outcome that is counted")
    SECURITY_EVENTS.labels(outcome=outcome, transmitter=transmitter).inc()


def count_effective() -> None:
    """Observe the time that the current request took to commit a revocation."""
    of_pipeline.REVOCATION_EFFECTIVE_SECONDS.observe(perf_counter() - g.started)


def count_unseen(begins: bytes, status: int) -> None:
    """Count a request starting with the bytes *begins* that the server itself answered with *status*."""
    method, _, path = begins.decode("latin-1").partition(" ")
    known = {"/webhooks/": _DELIVERIES, "/events/": _EVENTS} | {probe: probe for probe in _PROBES}
    route = next((route for prefix, route in known.items() if path.startswith(prefix)), NO_ROUTE)
    REQUESTS.labels(route=route, method=method if method in METHODS else OTHER, status=str(status)).inc()


def exposition(folder: Path | None) -> bytes:
    """Return the metrics of this process, or of all that write to *folder*, in Prometheus' text format."""
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def install(app: Flask) -> None:
    """Time and count every request of *app* by its route."""

    @app.before_request
    def start() -> None:
        g.started = perf_counter()

    @app.after_request
    def stop(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else NO_ROUTE
        SECONDS.labels(route=route).observe(perf_counter() - g.started)
        # Clients can send arbitrary methods.
        method = request.method if request.method in METHODS else OTHER
        REQUESTS.labels(route=route, method=method, status=str(response.status_code)).inc()
        return response


def keep_apart(app: Flask, port: int) -> None:
    """Serve `/metrics` only on *port*, and there nothing else except `/healthz`.

    The check uses the port the server listens on, not a client's header, so clients of the web port cannot reach it.
    """

    @app.before_request
    def where_it_belongs() -> None:
        is_here = request.environ.get("SERVER_PORT") == str(port)
        if request.endpoint != "health.alive" and is_here is not (request.endpoint == "metrics.metrics"):
            raise NotFound


def page(folder: Path | None) -> Blueprint:
    """Serve `/metrics`."""
    pages = Blueprint("metrics", __name__)

    @pages.get("/metrics")
    def metrics() -> Response:
        return Response(exposition(folder), content_type=CONTENT_TYPE_LATEST)

    return pages
