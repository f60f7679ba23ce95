"""Rules only take away, in whatever order they stand; and every question has one answer."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from identity.model import AccessPattern, Effect, PrincipalKind
from identity.money import Money
from identity.policy.decision import Decision, Denied, decide
from identity.policy.rules import FACTS_ALONE, Allowance, ApprovalNeed, Names, Policy, Question, Rule, Trigger, When

USER, SERVICE = PrincipalKind.USER, PrincipalKind.SERVICE
ACTIONS = ("github.Comment", "github.CreateIssue", "billing.Pay")
PATTERNS = ("github.*", "billing.Pay", "*", "nobody.*")

amounts = st.builds(Money, amount=st.decimals("0", "1000", places=2), currency=st.sampled_from(["EUR", "USD"]))


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
    trigger=st.none() | st.sampled_from(Trigger),
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
    trigger=st.sampled_from(Trigger),
    declared=st.frozensets(st.sampled_from(PrincipalKind)),
    named=st.none() | st.sampled_from(PrincipalKind),
    has_user=st.booleans(),
    amount=st.none() | amounts,
    capability=st.booleans(),
)


def permitted(question: Question, policy: Policy) -> dict[PrincipalKind, Decision]:
    """As whom the step may run if that is named, and held to what."""
    asked = {kind: decide(replace(question, named=kind), policy) for kind in PrincipalKind}
    return {kind: decision for kind, decision in asked.items() if isinstance(decision, Decision)}


def no_looser(now: Decision, before: Decision) -> bool:
    """Whether *now* is held to all that *before* was held to."""
    old, new = before.constraints, now.constraints
    limit = old.max_amount is None or (new.max_amount is not None and not new.max_amount.exceeds(old.max_amount))
    kept = before.pattern is not AccessPattern.CAPABILITY or now.pattern is AccessPattern.CAPABILITY
    return limit and kept and set(old.approvals) <= set(new.approvals)


@given(questions, policies)
def test_every_question_has_one_answer_with_a_reason_and_the_version(question: Question, policy: Policy) -> None:
    answer = decide(question, policy)
    assert answer == decide(question, policy)
    assert answer.reason
    assert answer.policy == policy.version
    if isinstance(answer, Decision):
        assert question.named in (None, answer.kind)
        assert answer.kind in question.declared
        assert answer.kind is USER or not question.attribution
        assert answer.kind is SERVICE or question.has_user
        assert not question.capability or answer.pattern is AccessPattern.CAPABILITY


@given(questions, policies, rules)
def test_a_further_rule_only_ever_restricts(question: Question, policy: Policy, rule: Rule) -> None:
    more = replace(policy, rules=(*policy.rules, rule))
    before, after = permitted(question, policy), permitted(question, more)
    assert after.keys() <= before.keys()
    for kind, decision in after.items():
        assert no_looser(decision, before[kind])
    picked = decide(replace(question, named=None), more)
    if isinstance(picked, Decision):
        assert no_looser(picked, before[picked.kind]), "whom policy picks is held to what whoever is named is held to"


@given(questions, policies)
def test_no_policy_permits_what_the_facts_forbid(question: Question, policy: Policy) -> None:
    """But for a high-risk action, which the facts alone never permit: an allowance is held to its limit."""
    tame = replace(question, effect=Effect.WRITE if question.effect is Effect.HIGH_RISK else question.effect)
    assert permitted(question, policy).keys() <= permitted(tame, FACTS_ALONE).keys()
    if question.effect is Effect.HIGH_RISK:
        for decision in permitted(question, policy).values():
            assert decision.pattern is AccessPattern.CAPABILITY
            assert any(one.covers(question) for one in policy.allowances)


@given(questions, policies, st.randoms(use_true_random=False))
def test_the_order_of_rules_says_nothing(question: Question, policy: Policy, shuffle: random.Random) -> None:
    rules = list(policy.rules)
    shuffle.shuffle(rules)
    one, other = decide(question, policy), decide(question, replace(policy, rules=tuple(rules)))
    assert type(one) is type(other)
    if isinstance(one, Decision) and isinstance(other, Decision):
        assert (one.kind, one.pattern) == (other.kind, other.pattern)
        assert set(one.constraints.approvals) == set(other.constraints.approvals)
        assert one.constraints.max_amount == other.constraints.max_amount


def asked(amount: str | None = None, effect: Effect = Effect.WRITE, named: PrincipalKind | None = None) -> Question:
    return Question(
        action="billing.Pay",
        provider="billing",
        effect=effect,
        attribution=False,
        workflow="w",
        agent="a",
        trigger=Trigger.PERSON,
        declared=frozenset(PrincipalKind),
        named=named,
        has_user=True,
        amount=None if amount is None else Money.read(amount),
    )


def policy(*rules: Rule, allow: tuple[Allowance, ...] = ()) -> Policy:
    return Policy(version=3, digest="d", rules=rules, allowances=allow)


EUR_50 = Money(amount=Decimal(50), currency="EUR")


def test_a_rule_that_requires_another_picks_them_where_nobody_was_named_and_refuses_whom_the_author_named() -> None:
    service = Rule(name="as us", when=When(), kinds=frozenset({SERVICE}))
    picked = decide(asked(), policy(service))
    assert isinstance(picked, Decision)
    assert (picked.kind, picked.policy, picked.rules) == (SERVICE, 3, ("as us",))
    named = decide(asked(named=USER), policy(service))
    assert isinstance(named, Denied)
    assert "'as us' lets billing.Pay run as service alone" in named.reason


def test_what_states_no_amount_or_one_of_another_currency_counts_as_more() -> None:
    limited = policy(Rule(name="limit", when=When(), max_amount=EUR_50))
    assert isinstance(decide(asked("50.00 EUR"), limited), Decision)
    for amount in ("50.01 EUR", "1 USD", None):
        assert isinstance(decide(asked(amount), limited), Denied), amount
    need = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"b", "c"}), expires_in=timedelta(hours=1))
    above = policy(Rule(name="two", when=When(), above=EUR_50, approval=need))
    for amount, approvals in (("50 EUR", ()), ("51 EUR", (need,)), ("1 USD", (need,)), (None, (need,))):
        answer = decide(asked(amount), above)
        assert isinstance(answer, Decision)
        assert answer.constraints.approvals == approvals, amount


def test_a_high_risk_action_runs_only_within_an_allowance() -> None:
    allowed = policy(allow=(Allowance(name="pay", when=When(action=Names.of(["billing.*"])), limit=EUR_50),))
    granted = decide(asked("20 EUR", Effect.HIGH_RISK), allowed)
    assert isinstance(granted, Decision)
    assert (granted.pattern, granted.constraints.max_amount) == (AccessPattern.CAPABILITY, EUR_50)
    over = decide(asked("51 EUR", Effect.HIGH_RISK), allowed)
    assert isinstance(over, Denied)
    assert "allowed up to 50 EUR, and this one is for 51 EUR" in over.reason
    assert isinstance(decide(asked("1 EUR", Effect.HIGH_RISK), FACTS_ALONE), Denied)


def test_a_pattern_means_whole_names_and_nothing_of_a_regular_expression() -> None:
    names = Names.of(["github.*", "a+"])
    assert "github.Comment" in names
    assert "a+" in names
    for other in ("xgithub.Comment", "aa", "github", "github.Comment\n"):
        assert (other in names) is other.startswith("github."), other


def test_a_high_risk_action_without_an_amount_is_over_every_limit() -> None:
    limited = policy(allow=(Allowance(name="pay", when=When(), limit=EUR_50),))
    assert isinstance(decide(asked(None, Effect.HIGH_RISK), limited), Denied)
    unlimited = policy(allow=(Allowance(name="pay", when=When()),))
    assert isinstance(decide(asked(None, Effect.HIGH_RISK), unlimited), Decision)
