"""Logging: one line per event, as JSON or for people, with the process's name.

It covers our loggers and libraries' alike. Secrets stay out because they are never passed in: tokens have a type that
masks itself, errors name ids, and tracebacks show source lines without the values of variables. Libraries that log URLs
with query strings, or a line per message, log from WARNING on.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import warnings
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: Log every request, message or statement. Our own lines cover these, with their purpose.
_TALKATIVE = (
    "alembic",
    "amqp",
    "celery.app.trace",
    "celery.worker.strategy",
    "httpcore",
    "httpx",
    "kombu",
    "sqlalchemy",
)

#: Gunicorn's messages about unreadable or failed requests, which go on to quote the request.
_QUOTING = re.compile(r"(Invalid request from ip=\S*: [^:]*|Error handling request)\b.*", re.DOTALL)

Format = Literal["json", "console"]


class Unquoted(logging.Filter):
    """Filter that removes quoted requests from error messages, since they can contain links or keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut off the quoted request."""
        if quoting := _QUOTING.fullmatch(record.getMessage()):
            record.msg, record.args = quoting[1], ()
        return True


def configure(process: str, *, format: Format, level: str) -> None:
    """Send this process's logs to standard error."""
    logging.config.dictConfig(configuration(process, format=format, level=level))
    # We log through the standard library. A workflow's own package may use structlog, whose defaults write to standard
    # output at every level, and show the values of variables if Rich is installed.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_processors(process),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.captureWarnings(capture=True)
    # Newcomers often start as root on their own machine. Celery warns because of pickled messages, which we refuse.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")


def configuration(process: str, *, format: Format, level: str) -> dict[str, Any]:
    """Return the same configuration as a dictionary of the standard library, for Gunicorn."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                # For records from the standard library's logging, which are foreign to structlog.
                "foreign_pre_chain": _processors(process),
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(format)],
            }
        },
        "filters": {"unquoted": {"()": Unquoted}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": "WARNING"} for name in _TALKATIVE},
            # At DEBUG it logs request paths, some of which are links that sign in, connect or approve.
            "gunicorn.error": {
                "level": "INFO" if level == "DEBUG" else level,
                "filters": ["unquoted"],
                "handlers": [],
                "propagate": True,
            },
            # URLs can contain an OAuth code or state, and deliveries are in the ledger anyway.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "werkzeug": {"level": "WARNING"},
        },
    }


def _processors(process: str) -> list[Processor]:
    """Return the processors that add context, level, time, process name and extras to every line."""

    def name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name,
        structlog.stdlib.ExtraAdder(),
    ]


def _renderer(format: Format) -> Processor:
    if format == "json":
        return _json
    # The default shows the values of variables if Rich is installed.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str | bytes:
    event = structlog.processors.format_exc_info(logger, method, event)
    ordered = {name: event.pop(name) for name in ("timestamp", "level", "process", "event") if name in event}
    return structlog.processors.JSONRenderer()(logger, method, {**ordered, **event})
