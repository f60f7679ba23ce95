"""The registry of webhook sources: one module each, listed here."""

from __future__ import annotations

from collections.abc import Mapping

from webhooks.sources import described, github, linear, slack, standard
from webhooks.sources.reading import Source

SOURCES: Mapping[str, Source] = {
    source.name: source for source in (described.SOURCE, github.SOURCE, linear.SOURCE, slack.SOURCE, standard.SOURCE)
}
