"""Commands that may take long: they tell how far they are on a terminal, and their answer alone to a program."""

from __future__ import annotations

from datetime import UTC, datetime

from deploy.installation import Installation
from deploy.settings import load
from tests.deploy.conftest import Cli
from tests.ledger.house import House


def test_what_is_old_enough_is_forgotten_now(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        house.accept(house.delivery("old"), now=datetime(2020, 1, 1, tzinfo=UTC))
        house.accept(house.delivery("new", text="new"))
    assert cli("db", "prune").exit_code == 2  # it asks first
    assert cli.json("db", "prune", "--yes")["bodies"] == 1
    assert sorted(row["delivery_id"] for row in cli.json("deliveries", "list")) == ["new", "old"]
    assert cli("db", "prune", "--yes").output == "forgotten: nothing was old enough\n"
