"""Transmitters of security events by the command line: whose subjects they may name, and where they push to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from deploy.installation import Installation
from deploy.settings import load
from identity.transmitters import note_stream
from tests.deploy.conftest import Cli

OKTA = ("--issuer", "https://acme.okta.example", "--audience", "https://aswhom.example", "--jwks-url")
KEYS = "https://acme.okta.example/keys"


def test_a_tenants_identity_provider_is_added_once_and_listed(cli: Cli) -> None:
    assert "aswhom transmitters add --help" in cli("transmitters", "list").output
    cli.json("tenants", "add", "acme")
    add = ("transmitters", "add", "okta", *OKTA, KEYS, "--tenant", "acme")
    made = cli.json(*add)
    assert made["id"] == "okta"
    assert made["url"].endswith("/events/okta")
    assert "there is a transmitter okta already" in cli.json(*add, code=1)["message"]
    (row,) = cli.json("transmitters", "list")
    assert {name: row[name] for name in ("id", "issuer", "audience", "jwks_url", "tenant_id", "connection_id")} == {
        "id": "okta",
        "issuer": "https://acme.okta.example",
        "audience": "https://aswhom.example",
        "jwks_url": KEYS,
        "tenant_id": "acme",
        "connection_id": None,
    }
    assert "https://acme.okta.example" in cli("transmitters", "list").output


def test_one_may_call_us_by_several_names_tell_of_anothers_people_and_leave_the_typ_out(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    more = ("--audience", "web", "--audience", "mobile", "--subject-issuer", "https://people.example", "--plain-jwt")
    cli.json("transmitters", "add", "hub", *OKTA, KEYS, "--tenant", "acme", *more)
    (row,) = cli.json("transmitters", "list")
    assert (row["audience"], row["other_audiences"]) == ("https://aswhom.example", ["web", "mobile"])
    assert (row["subject_issuer"], row["plain_jwt"]) == ("https://people.example", True)
    (said,) = cli.json("audit", "search", "--kind", "transmitter.added")
    assert said["detail"]["audiences"] == ["https://aswhom.example", "mobile", "web"]
    assert (said["detail"]["subject_issuer"], said["detail"]["plain_jwt"]) == ("https://people.example", True)


def test_doctor_names_a_transmitter_whose_stream_is_disabled(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    cli.json("transmitters", "add", "okta", *OKTA, KEYS, "--tenant", "acme")
    said = partial(note_stream, transmitter="okta", status="disabled", told_at=datetime.now(UTC))

    def streams() -> list[dict[str, str]]:
        return [one for one in cli.json("doctor", "--offline", code=1)["findings"] if one["what"] == "streams"]

    assert streams() == []
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(said)
    (found,) = streams()
    assert (found["state"], "okta said at" in found["says"], "disabled" in found["says"]) == ("wrong", True, True)
    assert "`aswhom transmitters running okta`" in found["says"]
    (row,) = cli.json("transmitters", "list")
    assert row["stream_status"] == "disabled"
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(partial(said, told_at=datetime.now(UTC) + timedelta(seconds=60)))  # by a clock that is ahead
    assert cli.json("transmitters", "running", "okta")["stream_status"] == "enabled"
    assert streams() == []
    cli.json("transmitters", "running", "hub", code=1)
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(partial(said, told_at=datetime.now(UTC) + timedelta(seconds=90)))
    assert streams() != []
    cli.json("transmitters", "remove", "okta", "--yes")
    assert streams() == []


def test_what_its_tokens_look_like_is_corrected_where_it_is(cli: Cli) -> None:
    """Under another id its people would be linked to nobody."""
    cli.json("tenants", "add", "acme")
    cli.json("transmitters", "add", "hub", *OKTA, KEYS, "--tenant", "acme")
    change = ("transmitters", "set", "hub")
    assert "say what to change" in cli.json(*change, code=1)["message"]
    more = ("--audience", "web", "--audience", "mobile", "--subject-issuer", "https://people.example", "--plain-jwt")
    assert cli.json(*change, *more) == {
        "id": "hub", "audiences": ["web", "mobile"], "subject_issuer": "https://people.example", "plain_jwt": True,
    }  # fmt: skip
    (row,) = cli.json("transmitters", "list")
    assert (row["audience"], row["other_audiences"], row["tenant_id"]) == ("web", ["mobile"], "acme")
    told = cli.json(*change, "--secevent-jwt", "--subject-issuer", "")
    assert (told["audiences"], told["subject_issuer"]) == (["web", "mobile"], "https://acme.okta.example")
    cli.json(*change, "--secevent-jwt")  # it is so: nothing is changed
    said = cli.json("audit", "search", "--kind", "transmitter.changed")
    assert len(said) == 2
    assert sorted(one["detail"]["after"]["plain_jwt"] for one in said) == [False, True]
    cli.json("transmitters", "remove", "hub", "--yes")
    assert "no transmitter hub" in cli.json(*change, *more, code=1)["message"]


def test_a_transmitter_that_could_mean_nobody_is_not_added(cli: Cli) -> None:
    add = ("transmitters", "add", "okta", *OKTA, KEYS)
    for whose, says in (
        ((), "it could mean nobody"),
        (("--tenant", "acme"), "aswhom tenants list"),
        (("--connection", "google"), "aswhom connections list"),
    ):
        refused = cli.json(*add, *whose, code=1)
        assert refused["error"] == "BadInput"
        assert says in refused["message"]
    assert cli("transmitters", "add", "okta").exit_code == 2
    assert cli.json("transmitters", "list") == []


def test_one_that_was_removed_is_listed_as_that_and_its_id_stays_taken(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    add = ("transmitters", "add", "okta", *OKTA, KEYS, "--tenant", "acme")
    remove = ("transmitters", "remove", "okta")
    assert "aswhom transmitters list" in cli.json(*remove, "--yes", code=1)["message"]
    cli.json(*add)
    asked = cli(*remove)
    assert (asked.exit_code, "Take no more events of transmitter okta?" in asked.output) == (2, True)
    assert cli(*remove, "--yes").output == (
        "transmitter okta is unknown from now on; what it has signalled stays, and so do links of its people\n"
    )
    (row,) = cli.json("transmitters", "list")
    assert row["removed_at"] is not None
    (said,) = cli.json("audit", "search", "--kind", "transmitter.removed")
    assert (said["tenant_id"], said["detail"]["transmitter"]) == ("acme", "okta")
    assert "okta was removed already" in cli.json(*remove, "--yes", code=1)["message"]
    assert "there was a transmitter okta, whose events are kept" in cli.json(*add, code=1)["message"]
