"""Log lines: one form for all libraries, the process in each, and nothing that holds a secret."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from deploy import logs
from identity.secret import Secret


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_ours_and_the_libraries_lines_have_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    """And those of a workflow that logs through structlog."""
    logs.configure("worker-1", format="json", level="INFO")
    with structlog.contextvars.bound_contextvars(job="job_1"):
        logging.getLogger("a").info("the %s's", "library", extra={"action": "a.b"})
        workflows = structlog.get_logger("b")
        workflows.warning("the %s's", "workflow", action="c.d")
        workflows.debug("unheard", action="e.f")
    theirs, workflow = _lines(capsys)
    assert (theirs["event"], workflow["event"]) == ("the library's", "the workflow's")
    assert (theirs["action"], workflow["action"]) == ("a.b", "c.d")
    assert (theirs["level"], workflow["level"]) == ("info", "warning")
    for line in (theirs, workflow):
        assert list(line)[:4] == ["timestamp", "level", "process", "event"]
        assert (line["process"], line["job"]) == ("worker-1", "job_1")
    assert theirs.keys() == workflow.keys()


def test_a_workflows_own_logger_is_heard_from_its_own_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker-1", format="json", level="INFO")
    logging.getLogger("verbose").setLevel("DEBUG")
    structlog.get_logger("verbose").debug("heard")
    (line,) = _lines(capsys)
    assert (line["event"], line["level"]) == ("heard", "debug")


def test_requests_and_messages_of_libraries_are_not_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("web", format="json", level="DEBUG")
    for name in ("httpx", "sqlalchemy.engine", "celery.app.trace", "kombu", "gunicorn.access", "alembic.runtime"):
        logging.getLogger(name).info("GET /callback?code=hunter2")
    logging.getLogger("gunicorn.error").debug("%s %s", "GET", "/console/link/hunter2")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Invalid request from ip=::1: Invalid HTTP request line: 'GET /a/hunter2 x'", "Invalid HTTP request line"),
        ("Invalid request from ip=10.0.0.1: Invalid HTTP Header: 'KEY\\nhunter2'", "Invalid HTTP Header"),
        ("Error handling request GET /approvals/hunter2", "Error handling request"),
    ],
)
def test_a_request_that_cannot_be_read_is_told_of_without_what_it_said(
    capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    logs.configure("web", format="json", level="INFO")
    logging.getLogger("gunicorn.error").warning(said)
    logging.getLogger("gunicorn.error").warning("Worker %s", "hunted")
    shortened, whole = _lines(capsys)
    assert str(shortened["event"]).endswith(told)
    assert whole["event"] == "Worker hunted"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], form: logs.Format) -> None:
    logs.configure("web", format=form, level="INFO")

    def fail(token: str, sealed: Secret) -> None:
        raise ValueError("no")

    try:
        fail("hunter2-in-a-variable", Secret("hunter2"))
    except ValueError:
        logging.getLogger("a").exception("it failed")
        structlog.get_logger("b").exception("it failed", secret=Secret("hunter2"))
    told = capsys.readouterr().err
    assert told.count("ValueError: no") == 2
    assert "hunter2" not in told.replace('"hunter2-in-a-variable", Secret("hunter2")', "").replace(
        r"\"hunter2-in-a-variable\", Secret(\"hunter2\")", ""
    )
