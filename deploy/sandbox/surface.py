"""What every process has besides its service: the request log, the faults, and the routes to read and order them."""

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
FAULT_KEY = "sandbox.fault"  # in the WSGI environ: what the server does to the answer on the wire
PAUSE_KEY = "sandbox.pause"  # in the WSGI environ: wait so many seconds, less if the server stops or is told to go on
RELEASE_KEY = "sandbox.release"  # in the WSGI environ: let whatever waits go on
# How each calls the header that names a request.
_REQUEST_ID = {"github": "X-GitHub-Request-Id", "slack": "X-Slack-Req-Id", "stripe": "Request-Id"}

Names = Callable[[], set[str]]


def entry() -> Entry:
    """The log entry of the request being served."""
    current: Entry = g.entry
    return current


def touched(resource: str, *, effect: bool = True) -> None:
    """Say which resource this request is about, and whether it changed it."""
    entry().resource = resource
    entry().effect = entry().effect or effect


def json_body(*required: str) -> dict[str, Any]:
    """The JSON object of an order, or 400 if it is none or lacks a field."""
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
    """Log every request of *app* outside the control surface, and let it suffer the faults ordered.

    *names* adds names a fault's endpoint may match; *unprocessed* is told of requests a fault
    answered before the service saw them; *orders* are faults ordered from the start.
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
    """One process's log and faults: what a request meets on its way in and out, and the routes to both."""

    journal: Journal
    faults: Faults
    names: Names
    unprocessed: Callable[[], None]

    def arrive(self) -> Response | None:
        """Log the request and let it meet its fault. An answer is the fault's: the service never sees the request."""
        if request.path.startswith(CONTROL):
            return None
        g.entry = _logged(self.journal)
        g.fault = self._struck()
        return self._before(g.fault) if g.fault and g.fault.before else None

    def _struck(self) -> Fault | None:
        """The fault of this request, if one is ordered; its log entry and the server learn of it."""
        endpoint = request.endpoint or ""
        fault = self.faults.take(names={endpoint, endpoint.rpartition(".")[2], *self.names()}, path=request.path)
        if fault is not None:
            entry().fault = fault.mode
            request.environ[FAULT_KEY] = fault
        return fault

    def _before(self, fault: Fault) -> Response | None:
        """What *fault* does before the service has the request: hold it back for a while, or answer in its place."""
        if fault.mode is Mode.DELAY:
            request.environ[PAUSE_KEY](fault.seconds)
            return None
        self.unprocessed()
        return _answer(fault)

    def leave(self, response: Response) -> Response:
        """The answer as the fault leaves it, named and logged."""
        if not hasattr(g, "entry"):
            return response
        fault: Fault | None = g.get("fault")  # none where finding it failed
        if fault is not None:
            response = _after(fault, response)
        response.headers[_REQUEST_ID.get(entry().upstream, "X-Request-Id")] = f"{entry().upstream}-{entry().seq}"
        # What was dropped after its effect keeps the status it would have had.
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
    """a control request named something the world does not hold"""


def _bad_control(error: BadControl) -> tuple[Response, int]:
    return jsonify(error=str(error)), 404


def _release() -> Response:
    """Give the answers that are late, now; or the next one, if it is about to be late."""
    request.environ[RELEASE_KEY](patience=RELEASE_PATIENCE)
    return jsonify(ok=True)


def _logged(journal: Journal) -> Entry:
    """A new entry for the request that has arrived."""
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
        # Here rather than where it is judged: a request that a fault answers is one made with it, too.
        arrived.token_fingerprint = fingerprint(token.strip())
    return arrived


def _after(fault: Fault, response: Response) -> Response:
    """The service's answer, or what *fault* makes of it."""
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
