"""docs/api.md says who may do what, which problems there are and which addresses, as the code does."""

from __future__ import annotations

import json
import re

from identity.agents.api_keys import Role
from tests.docs.pages import DOCS, page, rows, section
from tests.webhooks.whole_app import every_route
from webhooks import problems
from webhooks.api.access import NEEDS, ROLES
from webhooks.api.other_endpoints import written

OF_WEBHOOKS_ALONE = {
    problems.TOO_LARGE,
    problems.ENCODED,
    problems.UNKNOWN_CONNECTION,
    problems.UNKNOWN_TRANSMITTER,
    problems.SIGNATURE_REFUSED,
    problems.MALFORMED,
    problems.INCOMPLETE,
}


def test_the_table_of_roles_is_the_codes() -> None:
    told = {cells[0].strip("`"): cells[1:] for cells in rows(section(page("api.md"), "Keys and roles"))}
    assert told.keys() == NEEDS.keys()
    for name, cells in told.items():
        for role, cell in zip(Role, cells, strict=True):
            assert (cell != "no") is (NEEDS[name] in ROLES[role]), (name, role)


def test_the_table_of_problems_is_the_codes() -> None:
    told = {
        cells[0].strip("`"): int(cells[1]) for cells in rows(section(page("api.md"), "Problems, limits, request ids"))
    }
    kinds = {one for one in vars(problems).values() if isinstance(one, problems.Kind)}
    assert told == {kind.slug: kind.status for kind in kinds - OF_WEBHOOKS_ALONE}


def test_every_route_is_described_or_a_page_and_stands_in_the_table_of_addresses() -> None:
    described = set(json.loads((DOCS / "reference" / "openapi.json").read_text(encoding="utf-8"))["paths"])
    routes = {written(re.sub(r"<\w+:", "<", rule)) for rule in every_route()}
    told = [
        cell for cells in rows(section(page("api.md"), "Every address")) for cell in re.findall(r"`(/[^`]+)`", cells[0])
    ]
    prefixes = tuple(address.removesuffix("…") for address in told if address.endswith("…"))
    assert {route for route in routes if not route.startswith(prefixes)} == set(told) - {f"{one}…" for one in prefixes}
    assert {prefix for prefix in prefixes if not any(route.startswith(prefix) for route in routes)} == set()
    pages = ("/connect/", "/approvals/", "/console/", "/static/")
    assert described == {route for route in routes if not route.startswith(pages)}
