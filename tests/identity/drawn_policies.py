"""Policies and the questions that they are asked, drawn by chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st

from identity.model import Effect, PrincipalKind
from identity.money import MOST, Money
from identity.policy.rules import Allowance, ApprovalNeed, Names, Policy, Question, Rule, TriggerKind, When

USER = PrincipalKind.USER
ACTIONS = ("github.Comment", "github.CreateIssue", "billing.Pay")
PATTERNS = ("github.*", "billing.Pay", "*", "nobody.*")

# Mostly near each other, so that they are compared one way and the other; and whatever there can be.
values = st.decimals("0", "1000", places=2) | st.integers(0, 6).flatmap(
    lambda places: st.decimals(0, MOST, places=places)
)
amounts = st.builds(Money, amount=values, currency=st.sampled_from(["EUR", "EUR", "EUR", "USD"]))


def named(*patterns: str) -> st.SearchStrategy[Names | None]:
    """Nothing, or one of these."""
    return st.none() | st.sampled_from(patterns).map(lambda one: Names.of([one]))


whens = st.builds(
    When,
    action=named(*PATTERNS),
    provider=named("github", "g*", "billing"),
    workflow=named("w", "*", "other"),
    agent=named("a", "?", "other"),
    effect=st.none() | st.frozensets(st.sampled_from(Effect), min_size=1),
    trigger=st.none() | st.sampled_from(TriggerKind),
)
needs = st.builds(
    ApprovalNeed,
    rule=st.just("r"),
    quorum=st.integers(1, 2),
    approvers=st.frozensets(st.sampled_from(["bob", "carol", "dave"]), min_size=2),
    expires_in=st.just(timedelta(hours=1)),
)
rules = st.builds(
    Rule,
    name=st.uuids().map(str),
    when=whens,
    above=st.none() | amounts,
    deny=st.none() | st.none() | st.just("not now"),
    kinds=st.none() | st.frozensets(st.sampled_from(PrincipalKind), min_size=1),
    capability=st.booleans(),
    max_amount=st.none() | amounts,
    approval=st.none() | needs,
)
allowances = st.builds(Allowance, name=st.uuids().map(str), when=whens, limit=st.none() | amounts)
policies = st.builds(
    Policy,
    version=st.integers(1, 9),
    digest=st.just("d"),
    rules=st.lists(rules, max_size=4).map(tuple),
    allowances=st.lists(allowances, max_size=2).map(tuple),
)
questions = st.builds(
    Question,
    action=st.sampled_from(ACTIONS),
    provider=st.just("github"),
    effect=st.sampled_from(Effect),
    attribution=st.booleans(),
    workflow=st.just("w"),
    agent=st.just("a"),
    trigger=st.sampled_from(TriggerKind),
    declared=st.frozensets(st.sampled_from(PrincipalKind)),
    named=st.none() | st.sampled_from(PrincipalKind),
    has_user=st.booleans(),
    amount=st.none() | amounts,
    capability=st.booleans(),
)


# Those that are mostly permitted, and about which mostly several rules and allowances are: of whatever is drawn above
# little is permitted, and hardly ever is anything held to two things.
wide = st.builds(Money, amount=st.decimals("500", "1000", places=2), currency=st.just("EUR"))
about = st.builds(When, action=named("billing.*", "*"), trigger=st.none())
asking = st.builds(
    Rule,
    name=st.uuids().map(str),
    when=about,
    above=st.none() | amounts,
    capability=st.booleans(),
    max_amount=st.none() | wide,
    approval=st.none() | needs.flatmap(lambda need: st.uuids().map(lambda name: replace(need, rule=str(name)))),
)
permitting = st.builds(
    Policy,
    version=st.integers(1, 9),
    digest=st.just("d"),
    rules=st.lists(asking, min_size=2, max_size=5).map(tuple),
    allowances=st.lists(
        st.builds(Allowance, name=st.uuids().map(str), when=about, limit=st.none() | wide), min_size=1, max_size=3
    ).map(tuple),
)
ordinary = st.builds(
    Question,
    action=st.just("billing.Pay"),
    provider=st.just("billing"),
    effect=st.sampled_from(Effect),
    attribution=st.booleans(),
    workflow=st.just("w"),
    agent=st.just("a"),
    trigger=st.sampled_from(TriggerKind),
    declared=st.just(frozenset(PrincipalKind)),
    named=st.just(USER),
    has_user=st.just(True),
    amount=st.builds(Money, amount=st.decimals("0", "600", places=2), currency=st.just("EUR")),
    capability=st.booleans(),
)
