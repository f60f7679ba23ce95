"""Domain types of a policy: the question about one step, and the rules and allowances that may apply.

All rules that apply to a step are enforced, and rules can only restrict. Their order does not matter, and adding a rule
never permits what was refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from fnmatch import translate

from identity.model import Effect, PrincipalKind
from identity.money import Money


class TriggerKind(StrEnum):
    """The trigger of the job."""

    PERSON = "person"
    BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The facts about one step on which policy decides. *amount* is None if the action states none."""

    action: str
    provider: str
    effect: Effect
    attribution: bool  # it must be attributable to a person
    workflow: str
    agent: str
    trigger: TriggerKind
    declared: frozenset[PrincipalKind]  # kinds that the workflow declares for it
    named: PrincipalKind | None  # the kind that the author named at this step; None: left to policy
    has_user: bool  # the workflow's USER is a known principal
    amount: Money | None = None
    capability: bool = False  # the upstream accepts only capability tokens
    is_requested: bool = False  # an agent asked for this one tool, and named its principal


@dataclass(frozen=True, kw_only=True)
class Names:
    """A set of names, given by patterns with `*` and `?`."""

    patterns: tuple[str, ...]
    matcher: re.Pattern[str]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        given = tuple(patterns)
        return cls(patterns=given, matcher=re.compile("|".join(translate(one) for one in given)))

    def __contains__(self, name: str) -> bool:
        return self.matcher.match(name) is not None


@dataclass(frozen=True, kw_only=True)
class When:
    """The steps to which a rule applies: all given conditions must hold. None matches anything."""

    action: Names | None = None
    provider: Names | None = None
    workflow: Names | None = None
    agent: Names | None = None
    effect: frozenset[Effect] | None = None
    trigger: TriggerKind | None = None

    def fits(self, question: Question) -> bool:
        """True if the step matches."""
        return (
            (self.action is None or question.action in self.action)
            and (self.effect is None or question.effect in self.effect)
            and (self.trigger is None or question.trigger is self.trigger)
            and (self.provider is None or question.provider in self.provider)
            and (self.workflow is None or question.workflow in self.workflow)
            and (self.agent is None or question.agent in self.agent)
        )


@dataclass(frozen=True, kw_only=True)
class ApprovalNeed:
    """A quorum of approvers who must say yes in time. One yes counts for every need that names the person."""

    rule: str
    quorum: int
    approvers: frozenset[str]  # principals of the tenant, by id or name
    expires_in: timedelta
    held_keys_only: bool = False  # refuse requests by an agent's key unless its holder is recorded


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A restriction on matching steps. *above* exempts amounts up to it; a step without an amount is not exempt."""

    name: str
    when: When
    above: Money | None = None
    deny: str | None = None  # the reason told to the refused caller
    kinds: frozenset[PrincipalKind] | None = None  # the only kinds allowed
    capability: bool = False  # requires a capability token
    max_amount: Money | None = None
    approval: ApprovalNeed | None = None

    def holds(self, question: Question) -> bool:
        """True if the rule applies to this step."""
        within = self.above is not None and question.amount is not None and not question.amount.exceeds(self.above)
        return not within and self.when.fits(question)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A permission for high-risk actions up to *limit*. Without a matching one, they are refused."""

    name: str
    when: When
    limit: Money | None = None

    def covers(self, question: Question) -> bool:
        """True if it permits this step."""
        if self.limit is not None and (question.amount is None or question.amount.exceeds(self.limit)):
            return False
        return self.when.fits(question)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One version of a tenant's policy."""

    version: int
    digest: str
    rules: tuple[Rule, ...]
    allowances: tuple[Allowance, ...]
    _of_action: dict[str, tuple[Rule, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def about(self, action: str) -> tuple[Rule, ...]:
        """Return the rules that can apply to an action of that name, without their action condition.

        Cached: actions are few and looked up often.
        """
        known = self._of_action.get(action)
        if known is None:
            fitting = [one for one in self.rules if one.when.action is None or action in one.when.action]
            known = tuple(replace(one, when=replace(one.when, action=None)) for one in fitting)
            self._of_action[action] = known
        return known


#: The policy of a tenant without one of its own: only the actions' facts decide.
FACTS_ALONE = Policy(version=0, digest="", rules=(), allowances=())
