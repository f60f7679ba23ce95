"""Whose work is done, and who their people are at providers, on the command line."""

from __future__ import annotations

from tests.deploy.conftest import Cli


def test_people_are_listed_by_what_providers_call_them(cli: Cli) -> None:
    assert "Nobody is linked yet" in cli("aliases", "list").output
    for tenant in ("acme", "globex"):
        cli.json("tenants", "add", tenant)
    assert "there is a tenant acme already" in cli.json("tenants", "add", "acme", "--name", "A", code=1)["message"]
    for tenant, user, id in (("acme", "ada", "7"), ("globex", "bob", "8")):
        cli.json("aliases", "add", "--tenant", tenant, "--user", user, "--provider", "github", "--external-id", id)
    (row,) = cli.json("aliases", "list", "--tenant", "acme")
    assert (row["principal_id"], row["external_id"]) == ("acme.ada", "7")
    assert row["made_by"].startswith("admin:cli:")
    told = cli("aliases", "list").output
    assert "acme.ada" in told
    assert "globex.bob" in told
    taken = ("aliases", "add", "--tenant", "acme", "--user", "eve", "--provider", "github", "--external-id", "7")
    assert "aswhom aliases list" in cli.json(*taken, code=1)["message"]
