"""`aswhom capability`: a service is registered by a secret that is shown once, and keys rotate and are withdrawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, update

from deploy.cli.capability import renew
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.settings import load
from identity.capability.audiences import authenticate
from identity.capability.model import Audience
from identity.errors import Unavailable
from identity.secret import Secret
from identity.sql.store import CommitUnknown
from identity.tables import tenants
from tests.capability.capability_ledger import CapabilityLedger
from tests.deploy.conftest import Cli

T = TypeVar("T")
INVOICES = ("--uri", "https://invoices.example", "--provider", "invoices", "--api-url", "https://invoices.example")


def who(cli: Cli, id: str, secret: str) -> Audience | None:
    with Installation.at(data_dir=cli.data_dir) as at:
        return at.read(lambda c: authenticate(c, id, Secret(secret), now=at.now()))


def test_a_service_is_added_once_with_a_secret_that_is_shown_once(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    made = cli.json("capability", "audiences", "add", "invoices", *INVOICES, "--tenant", "acme")
    found = who(cli, "invoices", made["secret"])
    assert found is not None
    assert (found.connection, found.tenant) == ("invoices", "acme")
    (listed,) = cli.json("capability", "audiences", "list")
    assert made["secret"] not in str(listed)
    assert Secret(made["secret"]).fingerprint() not in str(listed)
    assert cli.json("connections", "list")[0]["provider"] == "invoices"
    (row,) = cli.json("audit", "search", "--kind", "connection.added")
    assert (row["tenant_id"], row["detail"]["connection"]) == ("acme", "invoices")
    (key,) = cli.json("capability", "keys", "list")
    assert (key["algorithm"], key["state"]) == ("Ed25519", "signing")
    again = cli.json("capability", "audiences", "add", "invoices", *INVOICES, "--tenant", "acme", code=1)
    assert again["error"] == "BadInput"
    assert cli("capability", "audiences", "add", "x", "--uri", "https://x.example", "--provider", "x").exit_code == 2
    with Installation.at(data_dir=cli.data_dir) as at:
        at.write(lambda c: c.execute(update(tenants).values(deleted_at=at.now())))
    refused = cli.json("capability", "audiences", "add", "x", "--uri", "https://x.example", "--tenant", "acme", code=1)
    assert "acme was deleted" in refused["message"]


def test_a_secret_is_renewed_and_a_service_removed(cli: Cli) -> None:
    made = cli.json("capability", "audiences", "add", "bank", "--uri", "https://bank.example")
    assert cli("capability", "audiences", "renew", "bank").exit_code == 2  # it asks first
    renewed = cli.json("capability", "audiences", "renew", "bank", "--yes")
    assert who(cli, "bank", made["secret"]) == who(cli, "bank", renewed["secret"])
    cli.json("capability", "audiences", "remove", "bank", "--yes")
    assert who(cli, "bank", renewed["secret"]) is None
    assert cli.json("capability", "audiences", "remove", "bank", "--yes", code=1)["error"] == "BadInput"


@pytest.mark.parametrize(
    ("lost", "certain"),
    [((True,), True), ((True, True), False), ((True, Unavailable), False), ((KeyboardInterrupt,), False)],
)
def test_a_secret_that_may_be_in_force_is_told(
    cli: Cli, capsys: pytest.CaptureFixture[str], lost: tuple[Any, ...], certain: bool
) -> None:
    former = cli.json("capability", "audiences", "add", "bank", "--uri", "https://bank.example")["secret"]
    faults = list(lost)

    class Losing(Installation):
        """It commits, and does not hear of it."""

        def write(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
            fault = faults.pop(0) if faults else None
            if fault is Unavailable:
                raise Unavailable("it is away")
            outcome = super().write(fn)
            if fault is not None:
                raise CommitUnknown("the connection broke") if fault is True else fault
            return outcome

    with Losing(load(data_dir=cli.data_dir)) as at:
        code = vars(renew.callback)["__wrapped__"](at, Output(as_json=True), id="bank", yes=True)
    told = json.loads(capsys.readouterr().out)
    assert (code is None, told.get("certain", True)) == (certain, certain)
    assert who(cli, "bank", told["secret"]) == who(cli, "bank", former) is not None


def test_keys_rotate_and_are_withdrawn(cli: Cli) -> None:
    first = cli.json("capability", "keys", "rotate", "--algorithm", "ES256")
    cli.json("capability", "keys", "rotate", "--algorithm", "ES256")
    states = {key["kid"]: key["state"] for key in cli.json("capability", "keys", "list")}
    assert sorted(states.values()) == ["next", "signing"]
    assert states[first["kid"]] == "signing"
    assert cli.json("capability", "keys", "rotate", "--algorithm", "ES256", code=1)["error"] == "BadInput"
    withdrawn = cli.json("capability", "keys", "withdraw", first["kid"], "--yes")
    states = {key["kid"]: key["state"] for key in cli.json("capability", "keys", "list")}
    assert states[first["kid"]] == "withdrawn"
    assert states[withdrawn["successor"]] == "signing"
    assert cli.json("capability", "keys", "withdraw", "nobody", "--yes", code=1)["error"] == "BadInput"
    assert cli.json("capability", "list") == []


def test_what_was_issued_is_listed_without_a_token(cli: Cli) -> None:
    with Installation.at(data_dir=cli.data_dir) as at:
        ledger = CapabilityLedger(at.ledger).build()
        first, second = ledger.issue(job="job_1"), ledger.issue(job="job_2")
        token = ledger.token(second).reveal()
    newest, oldest = cli.json("capability", "list", "--tenant", "acme")
    assert {newest["jti"], oldest["jti"]} == {first.id, second.id}
    (row,) = cli.json("capability", "list", "--job", "job_2")
    assert (row["jti"], row["action"], row["limit_amount"]) == (second.id, "invoices.PayInvoice", "1500.00")
    assert (row["spent_at"], row["outcome"]) == (None, None)
    told = cli("capability", "list", "--limit", "1").output
    assert "acme.ada" in told
    assert "invoices/inv_7" in told
    assert token not in told + str(row)
    assert "Nothing was issued yet" in cli("capability", "list", "--tenant", "globex").output
