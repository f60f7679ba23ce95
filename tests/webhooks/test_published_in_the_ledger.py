"""Every published payload through the receiver into each ledger, beside all shipped workflows, and read back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points

import pytest
from sqlalchemy import Connection, select

from identity.connections.installations import add_installation
from identity.connections.registry import add_connection, get_connection
from identity.connections.secrets import WEBHOOK_SECRET, add_secret, seal_secret
from identity.secret import Secret
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.deliveries.intake import Intake
from pipeline.deliveries.weighing import weigh
from pipeline.model import DeliveryOutcome
from pipeline.tables import deliveries, workflow_settings
from pipeline.views import operator_queries
from tests.ledger.house import House
from tests.servers import shared_data
from tests.webhooks import published
from tests.webhooks.parts import NOW, SECRET, MemoryRing
from webhooks.app import create_app
from webhooks.settings import WebSettings
from webhooks.sources.reading import Received
from webhooks.stored_deliveries import reconsider

SENDERS = ("github", "slack", "linear")  # each by a connection of its name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workflows() -> Registry:
    return Registry.load(sorted(point.module for point in entry_points(group="aswhom.workflows")))


@pytest.fixture
def house(database: Database, workflows: Registry) -> House:
    """One connection a sender, and every installation that the payloads name is acme's, who has all switched on."""
    built = House(database)
    built.build()
    named = {(one.source, one.reading.installation) for one in published.sent() if isinstance(one.reading, Received)}

    def furnish(c: Connection) -> None:
        gh = get_connection(c, "gh")
        for source in SENDERS:
            owner = replace(gh, id=source, provider=source)
            add_connection(c, owner, now=NOW)
            seal = seal_secret(built.vault, owner, id=source, name=WEBHOOK_SECRET, secret=Secret(SECRET), now=NOW)
            add_secret(c, seal)
        for source, installation in named:
            if installation is not None:
                add_installation(c, owner=source, external_id=installation, tenant="acme", now=NOW)

        for declared in workflows:
            on = {"tenant_id": "acme", "workflow": declared.name, "enabled": True, "config": {}}
            c.execute(workflow_settings.insert().values(on))

    database.write(furnish)
    return built


def test_every_published_payload_is_answered_stored_whole_and_explained(house: House, workflows: Registry) -> None:
    shared_data.folder()  # or much is missing
    now = NOW
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: now)
    settings = WebSettings(base_url="https://aswhom.example")
    client = create_app(settings, intake, workflows, MemoryRing(), clock=lambda: now).test_client()
    sent = list(published.sent())
    for one in sent:
        now = one.at
        answer = client.post(
            f"/webhooks/{one.source}/{one.source}", data=one.body, headers=one.headers, content_type=one.content_type
        )
        assert answer.status_code in (200, 202), (one, answer.text)
    first: dict[tuple[str, str], bytes] = {}  # some examples share the id of a delivery: the others are repeats of it
    for one in sent:
        if isinstance(one.reading, Received):
            first.setdefault((one.source, one.reading.delivery_id), one.body)
    rows = [house.database.read(partial(operator_queries.any_delivery, id=id)) for id in house.database.read(_stored)]
    assert {(row["source"], row["delivery_id"]): row["body"] for row in rows} == first
    outcomes = {row["outcome"] for row in rows}
    assert outcomes == {DeliveryOutcome.ACCEPTED, DeliveryOutcome.IGNORED, DeliveryOutcome.SIGNAL}
    owners = {source: house.database.read(partial(get_connection, owner=source)) for source in SENDERS}
    for row in rows:
        stored, considered = reconsider(row, owners[row["source"]], workflows)
        look = partial(weigh, delivery=stored, considered=considered, installed=workflows)
        fates = house.database.read(look).fates
        assert (stored.event, stored.delivery_id) == (row["event"], row["delivery_id"])
        assert [fate.workflow for fate in fates] == [one.workflow.name for one in considered]


def _stored(connection: Connection) -> list[str]:
    return list(connection.execute(select(deliveries.c.id)).scalars())
