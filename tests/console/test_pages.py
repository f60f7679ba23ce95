"""Every page of the console, for whoever may see everything."""

from __future__ import annotations

from identity.console_roles import Role
from tests.console.town import Town


def test_every_page_is_there_when_there_is_nothing_to_show(sqlite_town: Town) -> None:
    owner = sqlite_town.at(Role.OWNER)
    for path in (
        "",
        "jobs",
        "dead",
        "queues",
        "deliveries",
        "accounts",
        "connections",
        "revocations",
        "schedules",
        "audit",
    ):
        assert "<h1>" in owner.sees(f"/console/{path}")


def test_every_page_is_there_when_there_is_something_of_everything(town: Town) -> None:
    ids, owner = town.fill(), town.at(Role.OWNER)
    assert "<strong>dead job</strong>" in owner.sees("/console/")
    for path, says in (
        (f"jobs/{ids['job']}", "req-2"),
        (f"jobs/{ids['waiting']}", "somebody’s consent"),
        ("dead", "The provider answers 500."),
        ("queues", "delegated"),
        (f"deliveries/{ids['delivery']}", "held"),
        (f"accounts/{ids['account']}", "Make a link"),
        ("connections/gh", "every tenant’s"),
        (f"revocations/{ids['revocation']}", "The signature holds"),
        ("schedules", "acme:morning"),
        ("audit", "revocation.effective"),
    ):
        assert says in owner.sees(f"/console/{path}"), path
