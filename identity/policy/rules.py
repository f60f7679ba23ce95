"""What a policy is made of: the question about one step, and the rules that may be about it.

Every rule that is about a step holds, whatever its place: rules only take away. So their order says nothing, and a rule
that is added can never permit what was refused.
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


class Trigger(StrEnum):
    """What started the job."""

    PERSON = "person"
    BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What policy is asked about one step. *amount* None: the action states none."""

    action: str
    provider: str
    effect: Effect
    attribution: bool  # must it be traceable to a person?
    workflow: str
    agent: str
    trigger: Trigger
    declared: frozenset[PrincipalKind]  # as whom the workflow says that it may run
    named: PrincipalKind | None  # whom the author named at this step; None: left to policy
    has_user: bool  # whom the workflow means by USER is a known principal
    amount: Money | None = None
    capability: bool = False  # the upstream takes capability tokens, and no others


@dataclass(frozen=True, kw_only=True)
class Names:
    """Some names, by patterns with `*` and `?`."""

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
    """Which steps a rule is about: all that is given must be so; None: whatever it is."""

    action: Names | None = None
    provider: Names | None = None
    workflow: Names | None = None
    agent: Names | None = None
    effect: frozenset[Effect] | None = None
    trigger: Trigger | None = None

    def fits(self, question: Question) -> bool:
        """Whether the step is one of these."""
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
    """So many of these people must say yes before it expires; a person's yes counts for every need that names them."""

    rule: str
    quorum: int
    approvers: frozenset[str]  # principals of the tenant, by id or name
    expires_in: timedelta
    held_keys_only: bool = False  # what an agent's key asked for is refused, unless somebody is said to hold that key


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What holds for the steps it is about. *above*: only for more than that; what states no amount counts as more."""

    name: str
    when: When
    above: Money | None = None
    deny: str | None = None  # why, for whoever is refused
    kinds: frozenset[PrincipalKind] | None = None  # as whom alone
    capability: bool = False  # only with a token for this one action
    max_amount: Money | None = None
    approval: ApprovalNeed | None = None

    def holds(self, question: Question) -> bool:
        """Whether the rule is about this step."""
        within = self.above is not None and question.amount is not None and not question.amount.exceeds(self.above)
        return not within and self.when.fits(question)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """High-risk actions that may be done at all, up to *limit*; without one that fits, none may."""

    name: str
    when: When
    limit: Money | None = None

    def covers(self, question: Question) -> bool:
        """Whether it permits this step."""
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
        """The rules that can be about an action of that name, as they are where it is known to fit.

        Remembered: actions are few, and asked about often.
        """
        known = self._of_action.get(action)
        if known is None:
            fitting = [one for one in self.rules if one.when.action is None or action in one.when.action]
            known = tuple(replace(one, when=replace(one.when, action=None)) for one in fitting)
            self._of_action[action] = known
        return known


#: Of a tenant without a policy of its own: what the actions' facts say is all.
FACTS_ALONE = Policy(version=0, digest="", rules=(), allowances=())
