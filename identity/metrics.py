"""The metrics of identity. Labels come from closed sets: providers and outcomes, never a tenant, user or account."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from identity.measuring import show_no_number
from identity.providers import PROFILES

# outcome: success, transient, rate_limited, client_refused, secret_refused, assertion_refused, account_refused,
# needs_person, dead, unknown, moved, served
REFRESHES = Counter("aswhom_refreshes", "Refreshes and mintings of access tokens.", ["provider", "outcome"])
for _provider in PROFILES:  # start at 0: Prometheus sees no increase when a series first appears at 1
    for _outcome in ("dead", "unknown", "needs_person", "client_refused", "assertion_refused", "account_refused"):
        REFRESHES.labels(_provider, _outcome)

UNRECOGNISED = Counter(
    "aswhom_token_errors_unrecognised",
    "Token endpoint refusals with an error code that nobody here knows.",
    ["provider"],
)
for _provider in PROFILES:
    UNRECOGNISED.labels(_provider)

LOCK_WAIT = Histogram(
    "aswhom_refresh_lock_wait_seconds",
    "How long a caller waited for its turn to refresh, for another's refresh, or until it gave up.",
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30),
)

# outcome: leased, needs_refresh, needs_consent, ruled_out
LEASES = Counter("aswhom_leases", "What examining a lease came to.", ["outcome"])

# outcome: refreshed, served, unavailable, needs_reconnect, revoked, failed
KEEPALIVE = Counter("aswhom_keepalive", "Grants that housekeeping tried to keep alive.", ["provider", "outcome"])

# mostrecent: web processes share a directory, and these gauges must not be summed over processes.
KEEPALIVE_DUE = Gauge(
    "aswhom_keepalive_due", "Grants whose look is due and was not taken yet.", multiprocess_mode="mostrecent"
)
KEEPALIVE_LAG = Gauge(
    "aswhom_keepalive_lag_seconds", "How long the oldest of them has been due.", multiprocess_mode="mostrecent"
)
show_no_number(KEEPALIVE_DUE, KEEPALIVE_LAG)

# outcome: passes, waits
TOKEN_REQUESTS = Counter(
    "aswhom_token_requests", "Requests at the gate of a token endpoint, by what it said.", ["outcome"]
)
TOKEN_LINE = Gauge(
    "aswhom_token_line",
    "Accounts and people in line for their turn at a provider's token endpoints.",
    ["provider"],
    multiprocess_mode="mostrecent",
)
TOKEN_LINE_SECONDS = Gauge(
    "aswhom_token_line_seconds",
    "How long whoever came to the longest of these lines now would wait.",
    ["provider"],
    multiprocess_mode="mostrecent",
)
REDIS_FAILURES = Counter(
    "aswhom_redis_failures",
    "Failures of the shared Redis, after each of which a process works without it for some seconds.",
)
WITHDRAWALS_ASKED = Counter(
    "aswhom_withdrawals_asked", "Requests to end a revoked credential, by what became of them", ["outcome"]
)

# outcome: first, again, refused, unverified
CAPABILITY_SPENDS = Counter("aswhom_capability_spends", "Introspections of capabilities; each is a spend.", ["outcome"])

# how: step, exchange
CAPABILITIES_ISSUED = Counter("aswhom_capabilities_issued", "Capability tokens that were signed.", ["how"])
