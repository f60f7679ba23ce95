"""What was measured: a sample a round, medians of interleaved rounds, and ratios to a peer of the same round."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Series:
    """One figure, measured once a round."""

    what: str
    unit: str
    peer: str | None  # the series whose sample of the same round each of these is divided by
    samples: list[float] = field(default_factory=list)


class Sheet:
    """The figures of one measurement, in the order in which they were first taken."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.notes: list[str] = []
        self._series: dict[tuple[str, str], Series] = {}

    def add(self, what: str, value: float, unit: str, *, peer: str | None = None) -> None:
        """Note a sample; *peer* is the name of the series of the same unit that it is compared with."""
        self._series.setdefault((what, unit), Series(what=what, unit=unit, peer=peer)).samples.append(value)
        _log.info("%s: %s %s", what, _short(value), unit)  # a run of an hour shows how far it is, and can be ended

    def rows(self) -> list[dict[str, Any]]:
        """A row a series: median, least and greatest, and the median of its ratios to its peer."""
        return [
            {
                "what": series.what,
                "unit": series.unit,
                "median": median(series.samples),
                "min": min(series.samples),
                "max": max(series.samples),
                "rounds": len(series.samples),
                "peer": series.peer,
                "ratio": self._ratio(series),
            }
            for series in self._series.values()
        ]

    def text(self) -> str:
        """The rows for the eye."""
        lines = [self.title, ""]
        rows = self.rows()
        width = max((len(row["what"]) for row in rows), default=0)
        for row in rows:
            spread = f"({_short(row['min'])} … {_short(row['max'])})"
            ratio = f"  {row['ratio']:.2f} × {row['peer']}" if row["ratio"] is not None else ""
            lines.append(f"  {row['what']:<{width}}  {_short(row['median']):>8} {row['unit']:<6} {spread:<22}{ratio}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)]).rstrip()

    def _ratio(self, series: Series) -> float | None:
        peer = self._series.get((series.peer, series.unit)) if series.peer else None
        if peer is None:
            return None
        ratios = [own / other for own, other in zip(series.samples, peer.samples, strict=False) if other]
        return median(ratios) if ratios else None


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* of them lie; 1 is the greatest."""
    if share > 1:
        raise ValueError(f"a share is at most 1, not {share}")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
