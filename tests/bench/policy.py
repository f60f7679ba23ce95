"""policy: one decision, by facts alone and under a policy of fifty rules, a tenth of which are about the step."""

from __future__ import annotations

import time
from dataclasses import replace

from identity.model import Effect, PrincipalKind
from identity.money import Money
from identity.policy.decision import Decision, decide
from identity.policy.file import read_policy
from identity.policy.rules import FACTS_ALONE, Policy, Question, TriggerKind
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import Ground

ROUNDS = 5_000
QUESTION = Question(
    action="invoices.PayInvoice",
    provider="invoices",
    effect=Effect.WRITE,
    attribution=True,
    workflow="pay_invoice",
    agent="accounts-payable",
    trigger=TriggerKind.PERSON,
    declared=frozenset(PrincipalKind),
    named=PrincipalKind.USER,
    has_user=True,
    amount=Money.read("12500.00 EUR"),
)


def fifty_rules() -> Policy:
    """Of every ten, one is about the step and wants approvers, and the others are about other actions.

    An allowance permits the step if it is of high risk.
    """
    rules = ['[[allow]]\nname = "invoices"\nwhen = { action = "invoices.*" }\nlimit = "50000 EUR"\n']
    for number in range(50):
        mine = number % 10 == 0
        action = "invoices.*" if mine else f"github.Action{number}"
        then = 'approval = { approvers = ["bob", "carol"] }' if mine else 'deny = "not now"'
        rules.append(f'[[rule]]\nname = "rule {number}"\nwhen = {{ action = "{action}" }}\nabove = "1 EUR"\n{then}\n')
    return read_policy("format = 1\n" + "".join(rules), version=1)


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("policy: one decision")
    cases = {
        "by facts alone": (QUESTION, FACTS_ALONE),
        "under fifty rules": (QUESTION, fifty_rules()),
        "under fifty rules, high risk": (replace(QUESTION, effect=Effect.HIGH_RISK), fifty_rules()),
    }
    for _ in range(rounds):
        for name, (question, policy) in cases.items():
            assert isinstance(decide(question, policy), Decision), "a refusal is not what is measured"
            took = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                decide(question, policy)
                took.append(time.perf_counter() - began)
            sheet.add(f"{name}, p50", percentile(took, 0.5) * 1_000_000, "µs")
            sheet.add(f"{name}, p99", percentile(took, 0.99) * 1_000_000, "µs")
    return sheet
