"""What every page for people says of the same failures: one status, one rule of Retry-After, nothing the error held."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Blueprint, Flask, Response, abort

from identity.errors import KeysAway, Unavailable, Unconfirmed
from identity.sql.store import CommitUnknown
from webhooks.pages import failures
from webhooks.pages.failures import Failure, What


@pytest.mark.parametrize(
    ("error", "failure", "wait"),
    [
        (Unavailable("canary", retry_after=timedelta(seconds=2.1)), Failure(what=What.LATER, status=503), "3"),
        (KeysAway("canary", retry_after=timedelta()), Failure(what=What.LATER, status=503), "1"),
        (Unconfirmed("canary", retry_after=timedelta(seconds=5)), Failure(what=What.UNCERTAIN, status=503), "5"),
        (CommitUnknown("canary"), Failure(what=What.UNCERTAIN, status=503), "1"),
        (
            413,
            Failure(what=What.REFUSED, status=413, reason="The data value transmitted exceeds the capacity limit."),
            None,
        ),
        (RuntimeError("canary"), Failure(what=What.FAULT, status=500), None),
    ],
    ids=["unavailable", "at once", "unconfirmed", "commit unknown", "refused", "fault"],
)
def test_a_page_that_failed_says_which_kind_it_is(error: Exception | int, failure: Failure, wait: str | None) -> None:
    app, pages, told = Flask(__name__), Blueprint("pages", __name__), list[Failure]()

    @pages.get("/")
    def show() -> str:
        if isinstance(error, int):
            abort(error)
        raise error

    def tell(met: Failure) -> Response:
        told.append(met)
        return Response(status=met.status)

    failures.install(pages, tell)
    app.register_blueprint(pages)
    answer = app.test_client().get("/")
    assert (told, answer.status_code, answer.headers.get("Retry-After")) == ([failure], failure.status, wait)
