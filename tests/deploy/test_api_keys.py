"""Keys by the command line: shown once, listed without what recognises them, and ended."""

from __future__ import annotations

from deploy.installation import Installation
from identity.agents.api_keys import find_caller
from identity.secret import Secret
from tests.deploy.conftest import Cli


def test_a_key_is_shown_once_and_works_until_it_is_revoked(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    made = cli.json("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--tools", "github.*", "--days", "7")
    assert made["agent"] == "acme.bot"
    (listed,) = cli.json("api-keys", "list")
    assert (listed["id"], listed["tools"], listed["revoked_at"]) == (made["id"], ["github.*"], None)
    assert made["key"] not in str(listed)
    assert Secret(made["key"]).fingerprint() not in str(listed)
    with Installation.at(data_dir=cli.data_dir) as at:
        who = at.read(lambda c: find_caller(c, Secret(made["key"]), now=at.now()))
        assert (who.tenant, who.agent) == ("acme", "acme.bot")  # type: ignore[union-attr]
    cli.json("api-keys", "revoke", made["id"], "--yes")
    assert cli.json("api-keys", "revoke", made["id"], "--yes", code=1)["error"] == "BadInput"
    assert cli.json("audit", "search", "--kind", "api_key")[0]["kind"] == "api_key.revoked"


def test_a_key_may_be_of_some_users(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    add = ("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--users", "acme.ada,support-*")
    made = cli.json(*add)
    (listed,) = cli.json("api-keys", "list")
    assert (listed["id"], listed["users"]) == (made["id"], ["ada", "support-*"])
    (told,) = cli.json("audit", "search", "--kind", "api_key")
    assert told["detail"]["users"] == ["ada", "support-*"]
    for role in ("admin", "reader"):
        assert "all of its tenant's" in cli.json(*add, "--role", role, code=1)["message"]
    assert len(cli.json("api-keys", "list")) == 1


def test_a_key_may_say_which_user_holds_it(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    add = ("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--held-by")
    refused = cli.json(*add, "ada", code=1)
    assert refused["message"] == "acme has no user acme.ada, who could hold a key: `aswhom users list acme`"
    assert cli.json("api-keys", "list") == []
    cli.json("aliases", "add", "--tenant", "acme", "--user", "ada", "--provider", "console", "--external-id", "ada")
    made = cli.json(*add, "ada")
    (listed,) = cli.json("api-keys", "list")
    assert (listed["id"], listed["held_by"]) == (made["id"], "acme.ada")
    (told,) = cli.json("audit", "search", "--kind", "api_key")
    assert told["detail"]["held_by"] == "acme.ada"


def test_a_key_of_no_tenant_is_not_made(cli: Cli) -> None:
    assert cli.json("api-keys", "add", "--tenant", "nobody", "--agent", "bot", code=1)["error"] == "BadInput"
    assert cli.json("api-keys", "list") == []


def test_a_key_for_a_tool_that_there_is_not_is_not_made(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    said = cli.json("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--tools", "linear.*,githb.*", code=1)[
        "message"
    ]
    assert said.startswith("no tool is named githb.*: there are ")
    assert "github.Comment" in said
    assert cli.json("api-keys", "list") == []


def test_an_agents_tokens_are_trusted_in_place_of_a_key(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    whose = ("--issuer", "https://k8s.example", "--audience", "aswhom", "--subject", "system:serviceaccount:acme:bot")
    trust = (
        "api-keys",
        "trust",
        "--tenant",
        "acme",
        "--agent",
        "bot",
        *whose,
        "--jwks-url",
        "https://k8s.example/jwks",
    )
    made = cli.json(*trust)
    assert made["agent"] == "acme.bot"
    assert "key" not in made
    (listed,) = cli.json("api-keys", "list")
    assert (listed["id"], listed["subject"]) == (made["id"], "system:serviceaccount:acme:bot")
    (told,) = cli.json("audit", "search", "--kind", "workload")
    assert (told["tenant_id"], told["agent_id"], told["detail"]) == (
        "acme",
        "acme.bot",
        {
            "key": made["id"],
            "issuer": "https://k8s.example",
            "audience": "aswhom",
            "subject": "system:serviceaccount:acme:bot",
            "jwks_url": "https://k8s.example/jwks",
        },
    )
    assert cli.json(*trust, code=1)["error"] == "BadInput"
    assert len(cli.json("api-keys", "list")) == 1


def test_a_tool_that_cannot_be_printed_is_refused(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    named = ("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--tools")
    assert "cannot be printed" in cli(*named, "github.\udcff").output  # as the shell's $'github.\xff' arrives
    assert cli.json("api-keys", "list") == []


def test_the_agent_of_a_key_is_stopped_and_revoked_by_its_name_where_one_tenant_has_it(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    made = cli.json("api-keys", "add", "--tenant", "acme", "--agent", "support-bot")
    assert cli.json("agents", "stop", "support-bot", "--yes")["scope"]["key"] == "acme.support-bot"
    assert cli.json("agents", "open", "acme.support-bot")["changed"] is True
    assert cli.json("revoke", "agent", "support-bot", "--dry-run")["keys"] == [made["id"]]
    assert f"1 API key(s) would end: {made['id']}." in cli("revoke", "tenant", "acme", "--dry-run").output
    cli.json("tenants", "add", "other")
    cli.json("api-keys", "add", "--tenant", "other", "--agent", "support-bot")
    refused = cli.json("agents", "stop", "support-bot", "--yes", code=1)["message"]
    assert refused == "2 tenants have an agent support-bot: say which, of acme.support-bot, other.support-bot"
    named = ("revoke", "agent", "support-bot", "--tenant", "other")
    assert cli.json(*named, "--yes")["scope"]["key"] == "other.support-bot"
    assert cli.json(*named, "--dry-run")["keys"] == []
    assert (
        "there is no agent support-bot of third"
        in cli.json("revoke", "agent", "support-bot", "--tenant", "third", "--yes", code=1)["message"]
    )
