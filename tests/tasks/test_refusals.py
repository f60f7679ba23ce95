"""Refusals that a workflow goes on past, and what its job is told of them."""

from __future__ import annotations

import pytest

from pipeline.run import ActionFailed, UpstreamGone
from tasks.refusals import Postponed


def test_an_upstream_that_is_gone_after_a_refusal_tells_of_both() -> None:
    """Its job's reason would otherwise be the outage alone, and nobody would mend what was refused."""
    refusals, first = Postponed(), ActionFailed("linear.CreateIssue failed: forbidden")
    with refusals:
        raise first
    with pytest.raises(UpstreamGone) as gone, refusals:
        raise UpstreamGone("slack.PostMessage failed: it did not come back in time")
    assert str(gone.value) == (
        "slack.PostMessage failed: it did not come back in time; "
        "refused before that: linear.CreateIssue failed: forbidden"
    )
    assert gone.value.__cause__ is first
    with pytest.raises(UpstreamGone) as again, refusals, refusals:
        raise UpstreamGone("away")
    assert str(again.value).count("refused before that") == 1
