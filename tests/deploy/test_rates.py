"""Rates of one tenant, one agent or one key, on the command line."""

from __future__ import annotations

from tests.deploy.conftest import Cli


def test_a_rate_is_set_listed_and_taken_back_and_each_is_in_the_audit(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    key = cli.json("api-keys", "add", "--tenant", "acme", "--agent", "bot")["id"]
    for group, id, column in (
        ("tenants", "acme", "webhook_rate"),
        ("agents", "acme.bot", "api_rate"),
        ("api-keys", key, "api_rate"),
    ):
        for rate, said in ((6000, "6000"), (None, "--default")):
            assert cli.json(group, "limit", id, said) == {"id": id, column: rate}
            (listed,) = (row for row in cli.json(group, "list") if row["id"] == id)
            assert listed[column] == rate
            kind = {"tenants": "tenant", "agents": "agent", "api-keys": "api_key"}[group] + ".limited"
            told = cli.json("audit", "search", "--kind", kind)[0]
            assert (told["tenant_id"], told["detail"][column]) == ("acme", rate)


def test_a_rate_is_not_guessed(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    for said in ((), ("5", "--default"), ("0",)):
        assert cli("tenants", "limit", "acme", *said).exit_code == 2
    for group in ("tenants", "agents", "api-keys"):
        assert cli.json(group, "limit", "nobody", "5", code=1)["error"] == "BadInput"
