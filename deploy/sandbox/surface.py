"""The control surface of every process: request log, fault injection, and their endpoints."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, abort, g, jsonify, request

from deploy.sandbox.faults import BadFault, Fault, Faults, Mode
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Entry, Journal

RELEASE_PATIENCE = 5.0  # seconds
CONTROL = "/_sandbox/"
FAULT_KEY = "sandbox.fault"  # in the WSGI environ: the fault the server applies on the wire
PAUSE_KEY = "sandbox.pause"  # in the WSGI environ: wait this many seconds, or until the server stops or is released
RELEASE_KEY = "sandbox.release"  # in the WSGI environ: release everything that waits
# Each upstream's name of the request id header.
_REQUEST_ID = {"github": "X-GitHub-Request-Id", "slack": "X-Slack-Req-Id", "stripe": "Request-Id"}

Names = Callable[[], set[str]]


def entry() -> Entry:
    """Return the log entry of the current request."""
    current: Entry = g.entry
    return current


def touched(resource: str, *, effect: bool = True) -> None:
    """Record the resource of the current request, and whether the request changed it."""
    entry().resource = resource
    entry().effect = entry().effect or effect


def json_body(*required: str) -> dict[str, Any]:
    """Return the JSON object of a control request. Abort with 400 if it is none or lacks a field."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not body.keys() >= set(required):
        wanted = f"a JSON object with {', '.join(required)}" if required else "a JSON object"
        abort(Response(json.dumps({"error": f"the body must be {wanted}"}), 400, content_type="application/json"))
    return body


def equip(
    app: Flask,
    *,
    journal: Journal,
    names: Names = set,
    unprocessed: Callable[[], None] = lambda: None,
    orders: Iterable[Fault] = (),
) -> None:
    """Log every request of *app* outside the control surface, and apply ordered faults.

    *names* returns further names that a fault's endpoint may match. *unprocessed* is called for requests that a fault
    answered before the service saw them. *orders* are faults ordered from the start.
    """
    surface = _Surface(journal=journal, faults=Faults(orders), names=names, unprocessed=unprocessed)
    app.before_request(surface.arrive)
    app.after_request(surface.leave)
    app.get("/_sandbox/log")(surface.read_log)
    app.post("/_sandbox/faults")(surface.order_fault)
    app.delete("/_sandbox/faults")(surface.clear_faults)
    app.post("/_sandbox/release")(_release)
    app.register_error_handler(BadControl, _bad_control)


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """One process's log and faults, applied to requests on their way in and out, and the endpoints for both."""

    journal: Journal
    faults: Faults
    names: Names
    unprocessed: Callable[[], None]

    def arrive(self) -> Response | None:
        """Log the request and apply its fault. If this returns an answer, the service never sees the request."""
        if request.path.startswith(CONTROL):
            return None
        g.entry = _logged(self.journal)
        g.fault = self._struck()
        return self._before(g.fault) if g.fault and g.fault.before else None

    def _struck(self) -> Fault | None:
        """Take this request's fault, if one is ordered, and record it in the log entry and for the server."""
        endpoint = request.endpoint or ""
        fault = self.faults.take(names={endpoint, endpoint.rpartition(".")[2], *self.names()}, path=request.path)
        if fault is not None:
            entry().fault = fault.mode
            request.environ[FAULT_KEY] = fault
        return fault

    def _before(self, fault: Fault) -> Response | None:
        """Apply *fault* before the service sees the request: delay it, or answer in the service's place."""
        if fault.mode is Mode.DELAY:
            request.environ[PAUSE_KEY](fault.seconds)
            return None
        self.unprocessed()
        return _answer(fault)

    def leave(self, response: Response) -> Response:
        """Apply the fault to the answer, add its request id, and log it."""
        if not hasattr(g, "entry"):
            return response
        fault: Fault | None = g.get("fault")  # missing if looking it up failed
        if fault is not None:
            response = _after(fault, response)
        response.headers[_REQUEST_ID.get(entry().upstream, "X-Request-Id")] = f"{entry().upstream}-{entry().seq}"
        # An answer dropped after its effect is logged with the status it would have had.
        unanswered = fault is not None and fault.before and fault.mode in (Mode.DROP_REQUEST, Mode.DROP_RESPONSE)
        self.journal.complete(entry(), status=None if unanswered else response.status_code)
        return response

    def read_log(self) -> Response:
        return jsonify(self.journal.since(request.args.get("since", 0, type=int)))

    def order_fault(self) -> tuple[Response, int]:
        try:
            self.faults.order(Fault.parse(json_body()))
        except BadFault as refusal:
            return jsonify(error=str(refusal)), 400
        return jsonify(ok=True), 201

    def clear_faults(self) -> Response:
        self.faults.clear()
        return jsonify(ok=True)


class BadControl(LookupError):
    """A control request for something the world does not contain."""


def _bad_control(error: BadControl) -> tuple[Response, int]:
    return jsonify(error=str(error)), 404


def _release() -> Response:
    """Send delayed answers now, or the next one that is about to be delayed."""
    request.environ[RELEASE_KEY](patience=RELEASE_PATIENCE)
    return jsonify(ok=True)


def _logged(journal: Journal) -> Entry:
    """Return a new log entry for the current request."""
    arrived = journal.arrive(
        method=request.method,
        path=request.path,
        attempt=request.headers.get("X-Aswhom-Attempt"),
        refresh=request.headers.get("X-Aswhom-Refresh"),
        connect=request.headers.get("X-Aswhom-Connect"),
        revocation=request.headers.get("X-Aswhom-Revocation"),
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and token:
        # Recorded here rather than during authentication, so that requests answered by a fault have it as well.
        arrived.token_fingerprint = fingerprint(token.strip())
    return arrived


def _after(fault: Fault, response: Response) -> Response:
    """Return the service's answer, as changed by *fault*."""
    if fault.mode is Mode.FIELDS:
        return _altered(response, fault)
    if not fault.before and fault.mode in (Mode.STATUS, Mode.BODY):
        return _answer(fault)
    return response


def _altered(response: Response, fault: Fault) -> Response:
    document = response.get_json(silent=True)
    if isinstance(document, dict):
        kept = {name: value for name, value in document.items() if name not in fault.drop}
        response.set_data(json.dumps(kept | fault.fields))
    return response


def _answer(fault: Fault) -> Response:
    body = fault.body
    if body is None:
        body = {"error": f"the sandbox was told to answer {fault.status}"}
    text = body if isinstance(body, str) else json.dumps(body)
    response = Response(text, fault.status, content_type="application/json")
    response.headers.update(fault.headers)
    return response
