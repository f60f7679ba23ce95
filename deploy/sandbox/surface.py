"""What every process has besides its service: the request log, the faults, and the routes to read and order them."""

import json
from collections.abc import Callable, Iterable
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
    faults = Faults(orders)

    def arrive() -> Response | None:
        if request.path.startswith(CONTROL):
            return None
        g.entry = journal.arrive(
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
            entry().token_fingerprint = fingerprint(token.strip())
        endpoint = request.endpoint or ""
        fault = faults.take(names={endpoint, endpoint.rpartition(".")[2], *names()}, path=request.path)
        if fault is None:
            return None
        entry().fault = fault.mode
        g.fault = fault
        request.environ[FAULT_KEY] = fault
        if not fault.before:
            return None
        if fault.mode is Mode.DELAY:
            request.environ[PAUSE_KEY](fault.seconds)
            return None
        unprocessed()
        return _answer(fault)

    def leave(response: Response) -> Response:
        if not hasattr(g, "entry"):
            return response
        fault: Fault | None = g.get("fault")
        if fault and not fault.before and fault.mode in (Mode.STATUS, Mode.BODY):
            response = _answer(fault)
        if fault and fault.mode is Mode.FIELDS:
            response = _altered(response, fault)
        dropped = fault is not None and fault.mode in (Mode.DROP_REQUEST, Mode.DROP_RESPONSE)
        response.headers[_REQUEST_ID.get(entry().upstream, "X-Request-Id")] = f"{entry().upstream}-{entry().seq}"
        # What was dropped after its effect keeps the status it would have had.
        unanswered = dropped and fault is not None and fault.before
        journal.complete(entry(), status=None if unanswered else response.status_code)
        return response

    app.before_request(arrive)
    app.after_request(leave)

    @app.get("/_sandbox/log")
    def read_log() -> Response:
        return jsonify(journal.since(request.args.get("since", 0, type=int)))

    @app.post("/_sandbox/faults")
    def order_fault() -> tuple[Response, int]:
        try:
            faults.order(Fault.parse(json_body()))
        except BadFault as refusal:
            return jsonify(error=str(refusal)), 400
        return jsonify(ok=True), 201

    @app.delete("/_sandbox/faults")
    def clear_faults() -> Response:
        faults.clear()
        return jsonify(ok=True)

    @app.post("/_sandbox/release")
    def release() -> Response:
        """Give the answers that are late, now; or the next one, if it is about to be late."""
        request.environ[RELEASE_KEY](patience=RELEASE_PATIENCE)
        return jsonify(ok=True)

    @app.errorhandler(BadControl)
    def bad_control(error: BadControl) -> tuple[Response, int]:
        return jsonify(error=str(error)), 404


class BadControl(LookupError):
    """a control request named something the world does not hold"""


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
