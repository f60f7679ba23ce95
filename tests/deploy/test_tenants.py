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
    assert "is linked to acme.ada" in cli.json(*taken, code=1)["message"]


def test_a_link_to_the_wrong_person_is_taken_back_and_made_anew(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    whose = ("--tenant", "acme", "--provider", "github", "--external-id", "7")
    cli.json("aliases", "add", *whose, "--user", "bob")
    told = cli.json("aliases", "add", *whose, "--user", "ada", code=1)["message"]
    assert "is linked to acme.bob" in told
    assert "aswhom aliases remove --tenant acme --provider github --external-id 7" in told
    asked = cli("aliases", "remove", *whose)
    assert (asked.exit_code, "acme.bob" in asked.output, "--yes" in asked.output) == (2, True, True)
    assert cli.json("aliases", "remove", *whose, "--yes")["principal"] == "acme.bob"
    cli.json("aliases", "add", *whose, "--user", "ada")
    (row,) = cli.json("aliases", "list")
    assert row["principal_id"] == "acme.ada"
    missing = ("--tenant", "acme", "--provider", "github", "--external-id", "8")
    assert "aswhom aliases list" in cli.json("aliases", "remove", *missing, "--yes", code=1)["message"]


def test_an_alias_of_fifteen_characters_is_kept_as_salesforce_itself_names_people(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    add = ("aliases", "add", "--tenant", "acme", "--user", "ada", "--provider")
    for provider in ("salesforce", "standard"):
        cli.json(*add, provider, "--external-id", "0010i0000046cD3/a0D30000001n7Pi")
    named = {row["provider"]: row["external_id"] for row in cli.json("aliases", "list")}
    assert named == {
        "salesforce": "0010i0000046cD3AAI/a0D30000001n7PiEAI",
        "standard": "0010i0000046cD3/a0D30000001n7Pi",
    }
    remove = ("aliases", "remove", "--tenant", "acme", "--provider", "salesforce", "--yes")
    removed = cli.json(*remove, "--external-id", "0010i0000046cD3/a0D30000001n7Pi")
    assert removed["external_id"] == named["salesforce"]


def test_a_name_under_which_nobody_is_known_is_refused_with_those_there_are(cli: Cli) -> None:
    for tenant in ("acme", "globex"):
        cli.json("tenants", "add", tenant)
    okta = ("--issuer", "https://i.example", "--audience", "a", "--jwks-url", "https://i.example/keys")
    cli.json("transmitters", "add", "okta-acme", *okta, "--tenant", "acme")
    given = ("--client-id", "c", "--client-secret-file", "-", "--token-url", "https://ghe.example/token")
    cli.json("connections", "add", "github", "--id", "ghe", *given, "--config", "people=ghe", input="hunter2")
    sender = ("--tenant", "acme", "--webhook-secret-file", "-", "--config", "sender=shop")
    cli.json("connections", "add-sender", "standard", "--id", "shop-1", *sender, input="whsec_" + "a2tr" * 8)

    def add(tenant: str, provider: str, code: int = 0) -> dict[str, str]:
        whose = ("--tenant", tenant, "--user", "ada", "--provider", provider, "--external-id", "7")
        return dict(cli.json("aliases", "add", *whose, code=code))

    said = add("acme", "oktta-acme", code=1)["message"]
    assert "no people are known as those of oktta-acme" in said
    for name in ("okta-acme", "ghe", "shop", "slack", "console", "hmac"):
        assert name in said
        assert add("acme", name)["principal"] == "acme.ada"
    for theirs in ("okta-acme", "shop"):
        assert theirs not in add("globex", theirs, code=1)["message"].partition("There are ")[2]
    assert len(cli.json("aliases", "list", "--tenant", "globex")) == 0
