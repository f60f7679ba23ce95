"""What the shipped actions and workflows declare, and what registration refuses."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, ClassVar

import pytest
from jsonschema import Draft202012Validator

from identity.model import AccessPattern, Effect
from pipeline.action import Action, Call, Facts, Recovery, Request, Response, Result
from pipeline.authoring.action_checks import check_action
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import Who
from pipeline.workflow import SERVICE, USER, Daily, workflow
from tasks.actions import github, invoices, linear, salesforce, slack, stripe, zendesk
from tasks.events.slack import AppMentionEvent, app_mention

ACTIONS: list[type[Action[Any]]] = [
    github.GetPull,
    github.ListPulls,
    github.Comment,
    github.CreateIssue,
    github.UpdateIssue,
    github.AddLabels,
    linear.CreateIssue,
    linear.FindByAttachmentUrl,
    linear.AttachUrl,
    linear.Comment,
    linear.FindIssuesOfPull,
    linear.MoveIssue,
    linear.Notice,
    slack.PostMessage,
    slack.AskApproval,
    slack.EndQuestion,
    salesforce.GetOpportunity,
    salesforce.UpdateOpportunity,
    stripe.ListSubscriptions,
    stripe.AnnotateSubscription,
    zendesk.CreateTicket,
    invoices.GetInvoice,
    invoices.PayInvoice,
    invoices.RefundInvoice,
]

# What each upstream counts together, by its own documents; Slack and Stripe count by method.
CLASSES: dict[str, set[str]] = {
    "github": {"core", "search", "graphql"},
    "linear": {"graphql"},
    "slack": {"chat.postMessage", "chat.update"},
    "salesforce": {"api"},
    "stripe": {"subscriptions.list", "subscriptions.update"},
    "zendesk": {"account"},
}
UNLIMITED = {"invoices"}  # the demo's own: it publishes no limit

FACTS = Facts(
    provider="example",
    scopes=frozenset({"write"}),
    effect=Effect.WRITE,
    attribution=False,
    recovery=Recovery.ASK,
)


class Nothing(Result):
    pass


class Unasked(Action[Nothing]):
    """It says nothing that could be sent."""

    facts: ClassVar[Facts] = FACTS

    def read(self, response: Response) -> Nothing:
        return Nothing()


class Unread(Action[Nothing]):
    """Its answer cannot be read."""

    facts: ClassVar[Facts] = FACTS

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/")


class Silent(Unread):
    """It cannot be looked up."""

    def read(self, response: Response) -> Nothing:
        return Nothing()


class Searchable(Silent):
    """It can be looked up."""

    facts = replace(FACTS, recovery=Recovery.PROBE)

    def probe(self, call: Call) -> Request:
        return Request(method="GET", path="/")

    def found(self, response: Response, call: Call) -> Nothing | None:
        return None


class WithoutProbe(Silent):
    facts = replace(FACTS, recovery=Recovery.PROBE)


class WithoutFound(Silent):
    facts = replace(FACTS, recovery=Recovery.CLIENT_ID)

    def probe(self, call: Call) -> Request:
        return Request(method="GET", path="/")


class NeedlessProbe(Searchable):
    facts = replace(FACTS, recovery=Recovery.IDEMPOTENT)


def _act(run: Any, event: Any) -> None:
    """What it would do does not matter here."""


@pytest.mark.parametrize("action", [*ACTIONS, Silent, Searchable], ids=lambda action: action.action_name())
def test_a_sound_declaration_is_taken(action: type[Action[Any]]) -> None:
    check_action(action)


@pytest.mark.parametrize(
    ("action", "rule"),
    [
        (Unasked, "must define request"),
        (Unread, "must define read"),
        (WithoutProbe, "must define probe"),
        (WithoutFound, "must define found"),
        (NeedlessProbe, "must not define probe"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_declaration_that_recovery_could_not_carry_out_is_refused(action: type[Action[Any]], rule: str) -> None:
    with pytest.raises(TypeError, match=rule):
        check_action(action)
    with pytest.raises(TypeError, match=rule):
        workflow(agent="a", uses={action: SERVICE})(_act)


def test_user_needs_a_word_about_who_that_is() -> None:
    with pytest.raises(TypeError, match="does not say who that is"):
        workflow(agent="a", uses={Silent: USER}, event=AppMentionEvent, on=app_mention())(_act)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.action_name())
def test_every_action_has_a_result_and_can_be_recovered_without_repeating_a_write(action: type[Action[Any]]) -> None:
    assert issubclass(action.result, Result)
    assert action.facts.scopes
    assert action.__doc__
    if action.facts.effect is Effect.READ:
        assert action.facts.recovery is Recovery.IDEMPOTENT
    elif action.facts.recovery is Recovery.IDEMPOTENT:
        # Twice is once: by name, by URL, by the column, by the value, by the words.
        once = (github.AddLabels, github.UpdateIssue, linear.AttachUrl, linear.MoveIssue, salesforce.UpdateOpportunity)
        assert action in (*once, slack.EndQuestion)
    else:
        assert action.facts.recovery.searches or action.facts.recovery in (Recovery.KEYED, Recovery.ASK)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.action_name())
def test_the_catalogue_can_be_derived_from_every_action(action: type[Action[Any]]) -> None:
    schema = action.model_json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["description"] == inspect.getdoc(action)
    if "repo" in schema["properties"]:
        assert schema["properties"]["repo"]["pattern"]


def test_a_comment_must_be_traceable_to_a_person() -> None:
    assert [action.action_name() for action in ACTIONS if action.facts.attribution] == [
        "github.Comment",
        "linear.Comment",
        "salesforce.UpdateOpportunity",
        "invoices.PayInvoice",
        "invoices.RefundInvoice",
    ]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.action_name())
def test_what_names_its_repository_and_may_run_as_the_service_is_confined_to_it(action: type[Action[Any]]) -> None:
    named = action.facts.provider == "github" and "repo" in action.model_fields
    if named and not action.facts.attribution:
        assert action.model_construct(repo="acme/shop").confined_to() == "acme/shop"


SHIPPED = Registry.load(sorted(point.module for point in entry_points(group="aswhom.workflows")))


TOOLS = Registry.load(sorted(point.module for point in entry_points(group="aswhom.tools")))


def test_every_action_that_is_shipped_is_looked_at_here() -> None:
    shipped = {*SHIPPED.actions.values(), *TOOLS.actions.values()}
    assert {one.action_name() for one in shipped} <= {one.action_name() for one in ACTIONS}


def test_what_speaks_in_the_platforms_own_name_is_no_tool() -> None:
    spoken = {slack.AskApproval, slack.EndQuestion, linear.Notice}
    assert {one for one in ACTIONS if not one.facts.tool} == spoken
    assert spoken.isdisjoint([*SHIPPED.tools.values(), *TOOLS.tools.values()])
    assert SHIPPED.find("tool:slack.EndQuestion:service") is None


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.action_name())
def test_every_action_of_an_upstream_that_limits_requests_says_what_it_is_counted_with(
    action: type[Action[Any]],
) -> None:
    facts = action.facts
    assert (facts.endpoints is None) == (facts.provider in UNLIMITED)
    if facts.endpoints is not None:
        assert facts.endpoints.name in CLASSES[facts.provider]


def test_no_action_that_needs_a_person_is_declared_to_run_as_the_service() -> None:
    for declared in SHIPPED:
        for action, who in declared.uses.items():
            assert not (action.facts.attribution and who & SERVICE), f"{declared.name}: {action.action_name()}"


def test_the_shipped_workflows_are_found_and_tagged() -> None:
    assert {declared.name: (declared.agent, declared.pattern) for declared in SHIPPED} == {
        "link_pull_request": ("devops-assistant", AccessPattern.HYBRID),
        "link_on_command": ("devops-assistant", AccessPattern.HYBRID),
        "close_issues": ("devops-assistant", AccessPattern.HYBRID),
        "announce_review": ("devops-assistant", AccessPattern.SERVICE),
        "file_from_slack": ("devops-assistant", AccessPattern.HYBRID),
        "answer_mention": ("devops-assistant", AccessPattern.SERVICE),
        "daily_digest": ("digest", AccessPattern.SERVICE),
        "billing_reconciliation": ("billing", AccessPattern.SERVICE),
        "update_opportunity": ("sales-assistant", AccessPattern.DELEGATED),
        "open_ticket": ("support", AccessPattern.SERVICE),
        "ask_in_slack": ("approvals", AccessPattern.SERVICE),
        "pay_invoice": ("accounts-payable", AccessPattern.CAPABILITY),
        "refund_invoice": ("accounts-payable", AccessPattern.CAPABILITY),
    }
    assert SHIPPED.get("daily_digest").schedule == Daily(cron="0 9 * * *")
    assert SHIPPED.get("billing_reconciliation").schedule == Daily(cron="30 2 * * *")
    assert SHIPPED.get("link_pull_request").providers == {"github": Who(3), "linear": Who(3), "slack": SERVICE}
