"""The sums behind the printed figures."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bench.figures import Sheet, percentile
from tests.bench.ground import processor_time


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    sheet = Sheet("ratios")
    for own, other in ((10, 20), (30, 10), (8, 8)):  # a slow machine slows both in the same round
        sheet.add("peer", other, "/s")
        sheet.add("ours", own, "/s", peer="peer")
    peer, ours = sheet.rows()
    assert (ours["median"], ours["min"], ours["max"], ours["rounds"]) == (10, 8, 30, 3)
    assert (ours["ratio"], peer["ratio"]) == (1, None)


def test_a_peer_that_did_nothing_gives_no_ratio() -> None:
    sheet = Sheet("nothing")
    sheet.add("peer", 0, "/s")
    sheet.add("ours", 5, "/s", peer="peer")
    assert [row["ratio"] for row in sheet.rows()] == [None, None]


def test_what_is_named_alike_and_counted_in_another_unit_is_another_series() -> None:
    sheet = Sheet("units")
    sheet.add("step", 300, "/s")
    sheet.add("step", 3, "ms")
    assert [(row["unit"], row["median"]) for row in sheet.rows()] == [("/s", 300), ("ms", 3)]
    assert "300 /s" in sheet.text()


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [51, 100, 100]
    assert percentile([7], 0.99) == 7
    with pytest.raises(ValueError, match="a share is at most 1"):
        percentile(values, 50)


def test_a_servers_processor_time_is_also_that_of_children_that_have_ended() -> None:
    before = processor_time(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.1: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert processor_time(os.getpid()) - before >= 0.05
