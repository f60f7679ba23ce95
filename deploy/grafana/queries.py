"""The few shapes of PromQL that panels are made of.

Gauges of the ledger come from every housekeeping process, with the same values. Everywhere else they have no number
(NaN, which the greatest passes over), or are not there: so the greatest is the one that counts, never the sum.
"""

from __future__ import annotations

_WINDOW = "[$__rate_interval]"


def gauge(name: str, *by: str, where: str = "") -> str:
    """A gauge of the ledger."""
    return f"max{_by(by)} (aswhom_{name}{_where(where)})"


def rate(name: str, *by: str, where: str = "") -> str:
    """A counter's increase a second."""
    return f"sum{_by(by)} (rate(aswhom_{name}_total{_where(where)}{_WINDOW}))"


def rate_or_none(name: str, *by: str, where: str = "") -> str:
    """The same, and 0 while nothing of the kind was ever counted."""
    return f"{rate(name, *by, where=where)} or vector(0)"


def quantile(q: float, name: str, *by: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate(aswhom_{name}_bucket{_WINDOW})))"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _where(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""
