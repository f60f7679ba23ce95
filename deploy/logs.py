"""Logs: a line an event, JSON or for the eye, ours and the libraries' alike, with the name of the process in it.

No secret gets here because none is ever handed over: tokens are a type that masks itself, errors name ids, and a
traceback shows source lines and never the values of variables. Libraries that log addresses with their queries, or a
line for every message, are heard from WARNING on.
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

#: They tell of every request, message or statement; our own lines say what it was for.
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

#: What Gunicorn says of a request that it cannot read, or whose answer fails; behind it stands what was sent.
_QUOTING = re.compile(r"(Invalid request from ip=\S*: [^:]*|Error handling request)\b.*", re.DOTALL)

Format = Literal["json", "console"]


class Unquoted(logging.Filter):
    """What is wrong with a request is told without it: its line or a header can hold a link or a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten what quotes a request."""
        if quoting := _QUOTING.fullmatch(record.getMessage()):
            record.msg, record.args = quoting[1], ()
        return True


def configure(process: str, *, format: Format, level: str) -> None:
    """Send everything this process logs to its standard error."""
    logging.config.dictConfig(configuration(process, format=format, level=level))
    # Ours is logged through the standard library. A workflow's own package may use structlog, whose defaults write to
    # standard output whatever the level, and with the values of variables where Rich is installed.
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
    # As root on a machine of one's own is how newcomers start. What Celery fears of it, pickled messages, is refused.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")


def configuration(process: str, *, format: Format, level: str) -> dict[str, Any]:
    """The same for whoever wants a dictionary of the standard library's: Gunicorn."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                # Foreign to structlog: what comes by the standard library's logging.
                "foreign_pre_chain": _processors(process),
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(format)],
            }
        },
        "filters": {"unquoted": {"()": Unquoted}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": "WARNING"} for name in _TALKATIVE},
            # On DEBUG it tells each request's path, and some paths are links that sign in, connect or approve.
            "gunicorn.error": {
                "level": "INFO" if level == "DEBUG" else level,
                "filters": ["unquoted"],
                "handlers": [],
                "propagate": True,
            },
            # An address can hold a code or a state, and a delivery is in the ledger.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "werkzeug": {"level": "WARNING"},
        },
    }


def _processors(process: str) -> list[Processor]:
    """What every line tells beside its words: what is bound where it was logged, its level and time, its extras."""

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
    # The default shows the values of variables where Rich is installed.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str | bytes:
    event = structlog.processors.format_exc_info(logger, method, event)
    ordered = {name: event.pop(name) for name in ("timestamp", "level", "process", "event") if name in event}
    return structlog.processors.JSONRenderer()(logger, method, {**ordered, **event})
