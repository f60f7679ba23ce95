"""A finding of one check: its subject, its state, and a sentence with cause and next command."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    OK = "ok"
    WRONG = "wrong"  # something does not work, or soon will not work
    UNKNOWN = "unknown"  # not a fault of the installation, but worth a look


class Subject(StrEnum):
    """The part of the installation that a finding is about."""

    SETTINGS = "settings"
    VERSIONS = "versions"
    KEYS = "keys"
    WORKFLOWS = "workflows"
    DISK = "disk"
    LEDGER = "ledger"
    DURABILITY = "durability"
    BROKER = "broker"
    LOCKS = "locks"
    WEB = "web"
    TLS = "tls"
    HELD = "held"
    SEALED = "sealed"
    SIGNING_KEY = "signing key"
    CLOCK = "clock"
    HOUSEKEEPING = "housekeeping"
    SCHEDULES = "schedules"
    JOBS = "jobs"
    AUDIT = "audit"
    CONFIGURATIONS = "configurations"
    CONNECTIONS = "connections"
    EGRESS = "egress"
    ADDRESSES = "addresses"
    WEBHOOK_SECRETS = "webhook secrets"
    STOPPED = "stopped"
    ACCOUNTS = "accounts"
    SCOPES = "scopes"
    REVOCATIONS = "revocations"
    STREAMS = "streams"
    REACHABILITY = "reachability"
    SIGN_IN = "sign-in"


class Finding(NamedTuple):
    """A row of the report."""

    what: Subject
    state: State
    says: str


def ok(what: Subject, says: str) -> Finding:
    return Finding(what, State.OK, says)


def wrong(what: Subject, says: str) -> Finding:
    return Finding(what, State.WRONG, says)


def unknown(what: Subject, says: str) -> Finding:
    return Finding(what, State.UNKNOWN, says)
