"""A policy file is used as it is written, or refused with the place and the reason."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta

import pytest
from jsonschema import Draft202012Validator

from identity.errors import BadInput
from identity.model import Effect, PrincipalKind
from identity.money import Money
from identity.policy.file import read_policy, schema
from identity.policy.rules import TriggerKind
from tests.docs.pages import page

WHOLE = """
format = 1

[[rule]]
name = "no GitHub during the audit"
when = { action = ["github.*"], effect = ["write", "high_risk"], trigger = "background" }
deny = "the auditors are looking"

[[rule]]
name = "four eyes"
when = { provider = "billing" }
above = "5000 EUR"
require = ["user", "capability"]
max_amount = "50000.00 EUR"
approval = { quorum = 2, approvers = ["bob", "carol", "dave"], expires_in = "36h" }

[[allow]]
name = "invoices"
when = { action = "billing.PayInvoice" }
limit = "50000 EUR"
"""


def test_a_whole_file_becomes_its_rules() -> None:
    policy = read_policy(WHOLE, version=4)
    deny, eyes = policy.rules
    assert (policy.version, len(policy.digest)) == (4, 64)
    assert deny.when.action is not None
    assert "github.Comment" in deny.when.action
    assert (deny.when.effect, deny.when.trigger) == ({Effect.WRITE, Effect.HIGH_RISK}, TriggerKind.BACKGROUND)
    assert (eyes.kinds, eyes.capability) == ({PrincipalKind.USER}, True)
    assert (eyes.above, eyes.max_amount) == (Money.read("5000 EUR"), Money.read("50000.00 EUR"))
    assert eyes.approval is not None
    assert (eyes.approval.rule, eyes.approval.quorum, eyes.approval.expires_in) == ("four eyes", 2, timedelta(hours=36))
    assert policy.allowances[0].limit == Money.read("50000 EUR")


def test_the_schema_for_editors_is_the_formats() -> None:
    editor = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    shown = [*tomls_of("policy.md"), *tomls_of("approvals.md")]
    assert len(shown) >= 3
    for text in (WHOLE, *(text if text.startswith("format") else "format = 1\n" + text for text in shown)):
        read_policy(text)
        assert [error.message for error in editor.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "said",
    [
        'max_amount = { amount = "5", currency = "EUR" }',
        'max_amount = "5,000 EUR"',
        'max_amount = "-5 EUR"',
        "above = 5000",
        'approval = { approvers = ["bob"], expires_in = "PT24H" }',
        'approval = { approvers = ["bob"], expires_in = "1w" }',
        'require = "admin"',
        'when = { effect = "wirte" }',
        'when = { acton = "a" }',
        "when = { action = [] }",
    ],
)
def test_what_the_schema_for_editors_marks_is_no_policy(said: str) -> None:
    text = f'format = 1\n[[rule]]\nname = "x"\ndeny = "no"\n{said}\n'
    assert not Draft202012Validator(schema()).is_valid(tomllib.loads(text))
    with pytest.raises(BadInput):
        read_policy(text)


def test_the_schema_for_editors_says_what_stands_where_nothing_is_said() -> None:
    """In the words of the file, so that it can be copied into one."""
    told = schema()["$defs"]["ApprovalText"]["properties"]["expires_in"]["default"]
    stated = f'format = 1\n[[rule]]\nname = "x"\napproval = {{ approvers = ["bob"], expires_in = "{told}" }}\n'
    assert read_policy(stated).rules == read_policy(stated.replace(f', expires_in = "{told}"', "")).rules


def tomls_of(name: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page(name), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("format = 1\n[[rule]", "is not TOML"),
        ("", "format: Field required"),
        ("format = 2", "format: Input should be 1"),
        ("format = 1\nfoo = 1", "foo: Extra inputs are not permitted"),
        ('format = 1\n[[rule]]\nname = "x"', "a rule says deny, require, max_amount or approval"),
        ('format = 1\n[[rule]]\nname = "x"\nwhen = { acton = "a" }\ndeny = "d"', "rule 'x', when.acton: Extra inputs"),
        ('format = 1\n[[rule]]\nname = "x"\nmax_amount = 5000', "write an amount as text"),
        ('format = 1\n[[rule]]\nname = "x"\nmax_amount = "-5 EUR"', "is no amount of money"),
        ('format = 1\n[[rule]]\nname = "x"\nmax_amount = "NaN EUR"', "is no amount of money"),
        ('format = 1\n[[rule]]\nname = "x"\nrequire = "admin"', "rule 'x', require: Input should be"),
        ('format = 1\n[[rule]]\nname = "x"\napproval = { approvers = ["a"], quorum = 2 }', "needs as many approvers"),
        ('format = 1\n[[rule]]\nname = "x"\napproval = { approvers = ["a", "a"], quorum = 2 }', "needs as many"),
        ('format = 1\n[[rule]]\nname = "x"\napproval = { approvers = [] }', "approvers: List should have at least 1"),
        ('format = 1\n[[rule]]\nname = "x"\napproval = { approvers = ["a"], expires_in = "1w" }', "so many minutes"),
        (
            'format = 1\n[[rule]]\nname = "x"\napproval = { approvers = ["a"], expires_in = "99d" }',
            "less than or equal",
        ),
        ('format = 1\n[[rule]]\nname = "x"\ndeny = "d"\n[[rule]]\ndeny = "d"', "rule 2, name: Field required"),
        ('format = 1\n[[allow]]\nname = "x"\nwhen = { provider = "github" }', "names the actions it is about"),
        ('format = 1\n[[rule]]\nname = "x"\ndeny = "d"\n[[rule]]\nname = "x"\ndeny = "e"', "two entries are named x"),
        ("#" * 100_001, "more than 100000 characters"),
    ],
    ids=lambda value: value[-40:],
)
def test_a_file_that_cannot_be_used_says_where_and_why(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=re.escape(why)):
        read_policy(text)
