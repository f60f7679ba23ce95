"""The few shapes of PromQL that panels use.

Every housekeeping process exports the ledger's gauges with the same values. In other processes they are NaN, which
`max` ignores, or absent. Queries therefore take the maximum, never the sum.
"""

from __future__ import annotations

_WINDOW = "[$__rate_interval]"


def gauge(name: str, *by: str, where: str = "") -> str:
    """Return the query of a ledger gauge."""
    return f"max{_by(by)} (aswhom_{name}{_where(where)})"


def rate(name: str, *by: str, where: str = "") -> str:
    """Return the query of a counter's increase per second."""
    return f"sum{_by(by)} (rate(aswhom_{name}_total{_where(where)}{_WINDOW}))"


def rate_or_none(name: str, *by: str, where: str = "") -> str:
    """Return the same query, yielding 0 while nothing was counted."""
    return f"{rate(name, *by, where=where)} or vector(0)"


def quantile(q: float, name: str, *by: str) -> str:
    """Return the query of a histogram's quantile."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate(aswhom_{name}_bucket{_WINDOW})))"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _where(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""
