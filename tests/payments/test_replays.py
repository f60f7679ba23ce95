"""No replay, whatever is lost: the spend is in SQL, and Valkey has no part in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity.secret import Secret
from pipeline.states import JobState
from tests.payments.conftest import WORKFLOWS, furnished, served
from tests.payments.office import SMALL, Office
from tests.sandbox.driver import Sandbox
from tests.servers.valkey import Valkey
from tests.tasks.town import Town


@pytest.fixture
def with_valkey(_service: Sandbox, _books: Path, tmp_path: Path, own_valkey: Valkey) -> Iterator[Office]:
    authority: str = _service.world["invoices"]["authority"]
    url = furnished(_books, tmp_path)
    town = Town(_service, url, workflows=WORKFLOWS, base_url=authority, redis_url=Secret(own_valkey.url))
    with served(town.runtime, int(authority.rpartition(":")[2])):
        yield Office(town)
    town.close()
    _service.order("invoices", "forget")


def test_an_emptied_valkey_permits_no_replay(with_valkey: Office, own_valkey: Valkey) -> None:
    office = with_valkey
    office.ask()
    (job,) = office.town.settle()
    assert job.state == JobState.DONE
    own_valkey.flush()
    assert office.replay(office.stolen()).json() == {"error": "invalid_token", "reason": "closed"}
    own_valkey.kill()
    assert office.replay(office.stolen()).json() == {"error": "invalid_token", "reason": "closed"}
    assert [one["invoice"] for one in office.movements()] == [SMALL]
