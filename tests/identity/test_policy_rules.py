"""Rules only take away, in whatever order they stand; and every question has one answer."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from identity.model import AccessPattern, Effect, PrincipalKind
from identity.money import Money
from identity.policy.decision import Constraints, Decision, Denied, decide
from identity.policy.rules import FACTS_ALONE, Allowance, ApprovalNeed, Names, Policy, Question, Rule, TriggerKind, When
from tests.identity.drawn_policies import asking, ordinary, permitting, policies, questions, rules

ROOT = Path(__file__).resolve().parents[2]
USER, SERVICE = PrincipalKind.USER, PrincipalKind.SERVICE


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


def test_what_is_permitted_is_held_to_all_that_is_about_it() -> None:
    """Every approval, the tightest limit and a capability, as said by whoever goes through rule by rule."""
    seen: Counter[str] = Counter()

    @given(ordinary, permitting)
    def holds(question: Question, policy: Policy) -> None:
        answer = decide(question, policy)
        if not isinstance(answer, Decision):
            seen["refused"] += 1
            return
        holding = [rule for rule in policy.rules if rule.when.fits(question) and is_above(question, rule.above)]
        wanted = [rule.approval for rule in holding if rule.approval is not None]
        limits = [rule.max_amount.amount for rule in holding if rule.max_amount is not None]
        limited = answer.constraints.max_amount
        assert list(answer.constraints.approvals) == wanted
        if question.effect is Effect.HIGH_RISK:
            covering = [one for one in policy.allowances if one.covers(question)]
            assert covering
            assert {one.name for one in covering} <= set(answer.rules)
            if all(one.limit is not None for one in covering):
                limits.append(max(one.limit.amount for one in covering if one.limit is not None))
        assert (None if limited is None else limited.amount) == min(limits, default=None)
        by_capability = question.capability or question.effect is Effect.HIGH_RISK or any(r.capability for r in holding)
        assert (answer.pattern is AccessPattern.CAPABILITY) == by_capability
        assert {rule.name for rule in holding} <= set(answer.rules)
        seen["several approvals"] += len(wanted) > 1
        seen["several limits"] += len(set(limits)) > 1
        seen["permitted"] += 1

    holds()
    assert seen["permitted"] > seen["refused"], "else little was shown"
    assert min(seen["several approvals"], seen["several limits"]) > 10, "else little was shown"


def is_above(question: Question, above: Money | None) -> bool:
    """As the documents say it: for more than that, and what is of another currency counts as more."""
    money = question.amount
    return above is None or money is None or money.currency != above.currency or money.amount > above.amount


def test_another_process_decides_alike() -> None:
    """Sets are in another order there, wherever an answer might go by it."""
    code = "from tests.identity.test_policy_rules import said_of_many; print(said_of_many())"

    def said(seed: str) -> str:
        run = [sys.executable, "-c", code]
        return subprocess.run(
            run, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout

    first, second = said("1"), said("2")
    assert len(first.splitlines()) > 100
    assert first == second


def said_of_many() -> str:
    """What is decided on many steps under one policy, a line each."""
    people = frozenset({"bob", "carol", "dave"})
    need = ApprovalNeed(rule="eyes", quorum=2, approvers=people, expires_in=timedelta(hours=1))
    rules = (
        Rule(name="eyes", when=When(action=Names.of(["billing.*"])), above=EUR_50, approval=need),
        Rule(name="ours", when=When(effect=frozenset({Effect.READ, Effect.WRITE})), kinds=frozenset(PrincipalKind)),
        Rule(name="as us", when=When(trigger=TriggerKind.BACKGROUND), kinds=frozenset({SERVICE})),
    )
    decided = policy(*rules, allow=(Allowance(name="pay", when=When(), limit=EUR_50),))
    every = itertools.product((None, "1 EUR", "51 EUR"), Effect, (None, *PrincipalKind), TriggerKind, (True, False))
    lines = []
    for amount, effect, named, trigger, has_user in every:
        answer = decide(replace(asked(amount, effect, named), trigger=trigger, has_user=has_user), decided)
        names = [(one.rule, sorted(one.approvers)) for one in getattr(answer, "constraints", Constraints()).approvals]
        lines.append(f"{answer.reason} {answer.rules} {getattr(answer, 'pattern', '')} {names}")
    return "\n".join(lines)


@given(questions | ordinary, policies | permitting)
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


@given(questions | ordinary, policies | permitting, rules | asking)
def test_a_further_rule_only_ever_restricts(question: Question, policy: Policy, rule: Rule) -> None:
    more = replace(policy, rules=(*policy.rules, rule))
    before, after = permitted(question, policy), permitted(question, more)
    assert after.keys() <= before.keys()
    for kind, decision in after.items():
        assert no_looser(decision, before[kind])
    picked = decide(replace(question, named=None), more)
    if isinstance(picked, Decision):
        assert no_looser(picked, before[picked.kind]), "whom policy picks is held to what whoever is named is held to"


@given(questions | ordinary, policies | permitting)
def test_no_policy_permits_what_the_facts_forbid(question: Question, policy: Policy) -> None:
    """But for a high-risk action, which the facts alone never permit: an allowance is held to its limit."""
    tame = replace(question, effect=Effect.WRITE if question.effect is Effect.HIGH_RISK else question.effect)
    assert permitted(question, policy).keys() <= permitted(tame, FACTS_ALONE).keys()
    if question.effect is Effect.HIGH_RISK:
        for decision in permitted(question, policy).values():
            assert decision.pattern is AccessPattern.CAPABILITY
            assert any(one.covers(question) for one in policy.allowances)


@given(questions | ordinary, policies | permitting, st.randoms(use_true_random=False))
def test_the_order_of_rules_says_nothing(question: Question, policy: Policy, shuffle: random.Random) -> None:
    """Nor that of allowances."""
    rules, allowances = list(policy.rules), list(policy.allowances)
    shuffle.shuffle(rules)
    shuffle.shuffle(allowances)
    shuffled = replace(policy, rules=tuple(rules), allowances=tuple(allowances))
    one, other = decide(question, policy), decide(question, shuffled)
    assert type(one) is type(other)
    assert set(one.rules) == set(other.rules)
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
        trigger=TriggerKind.PERSON,
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


def test_of_several_allowances_the_widest_counts_whatever_their_order() -> None:
    narrow, wide, dear = (
        Allowance(name=name, when=When(), limit=Money(amount=Decimal(limit), currency="EUR"))
        for name, limit in (("narrow", 50), ("wide", 1000), ("dear", 10))
    )
    for allow in itertools.permutations((narrow, wide, dear)):
        granted = decide(asked("20 EUR", Effect.HIGH_RISK), policy(allow=allow))
        assert isinstance(granted, Decision)
        assert (granted.constraints.max_amount, set(granted.rules)) == (wide.limit, {"narrow", "wide"})
    unlimited = decide(asked("20 EUR", Effect.HIGH_RISK), policy(allow=(narrow, replace(wide, limit=None))))
    assert isinstance(unlimited, Decision)
    assert unlimited.constraints.max_amount is None


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
