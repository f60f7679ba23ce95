"""docs/api.md says who may do what and which problems there are as the code does."""

from __future__ import annotations

from identity.api_keys import Role
from tests.docs.pages import page, rows, section
from webhooks.api.access import NEEDS, ROLES
from webhooks.problems import OF_API


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
    assert told == {kind.slug: kind.status for kind in OF_API}
