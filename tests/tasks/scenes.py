"""Every shipped workflow but the payments at its ordinary work: what starts it, its steps, and each write's author."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from deploy.demo.provision import GITHUB, SALESFORCE, SLACK, linear_of
from identity.model import AccountKey
from identity.principals import link_alias
from pipeline.approvals.news import ApprovalNews
from pipeline.approvals.shown import Shown
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.states import ApprovalState
from tests.ledger.approval_case import SHOWN
from tests.tasks.hands import Hands

TENANT = "acme"
REPO = "acme/shop"
ADA_IN_SLACK = "U0ADA"
CONNECTIONS = {
    "github": GITHUB,
    "linear": linear_of(TENANT),
    "slack": SLACK,
    "salesforce": SALESFORCE,
    "stripe": f"stripe-{TENANT}",
    "zendesk": f"zendesk-{TENANT}",
}
# How each upstream's log names the service, and its kind of token.
KINDS = {"github": "installation", "linear": "app", "slack": "bot", "stripe": "key", "zendesk": "app"}


@dataclass(frozen=True, kw_only=True)
class Step:
    action: str
    endpoint: str  # the sandbox's name for it
    writes: bool = True
    as_: str = "service"  # or a login
    dispensable: bool = False  # the job is done without it
    holds_up: int | None = None  # how many of the steps after it are left out where it is refused; None: all
    repeatable: bool = False  # doing it twice is doing it once: without an answer it is sent again

    @property
    def upstream(self) -> str:
        return self.action.partition(".")[0]

    @property
    def tells_nothing(self) -> bool:
        """Nobody can ask what became of it, nor send it again: without an answer a person has to look."""
        return self.upstream == "slack" and not self.repeatable

    @property
    def account(self) -> AccountKey:
        """Whose token it is made with."""
        return AccountKey(tenant=TENANT, connection=CONNECTIONS[self.upstream], principal=f"{TENANT}.{self.as_}")

    def author(self, system: Hands) -> tuple[str, str, str]:
        """As the upstream's log shall name whoever wrote."""
        if self.as_ != "service":
            return self.upstream, self.as_, "user"
        return self.upstream, _services(system)[self.upstream], KINDS[self.upstream]


@dataclass(frozen=True, kw_only=True)
class Scene:
    workflow: str
    start: Callable[[Hands], None]
    steps: tuple[Step, ...]
    case: str = ""  # which way through its workflow, where that has several

    @property
    def name(self) -> str:
        return f"{self.workflow}-{self.case}" if self.case else self.workflow

    def authors(self, system: Hands) -> list[tuple[str, str, str]]:
        return [step.author(system) for step in self.steps if step.writes]

    def without(self, number: int) -> tuple[Step, ...]:
        """What is done where that step is refused."""
        holds_up = self.steps[number].holds_up
        after = () if holds_up is None else self.steps[number + 1 + holds_up :]
        return (*self.steps[:number], *after)


def _services(system: Hands) -> dict[str, str]:
    world = system.sandbox.world
    (workspace,) = [one for one in world["slack"]["workspaces"] if one["name"] == TENANT]
    (books,) = [one for one in world["stripe"]["accounts"] if one["tenant"] == TENANT]
    slug = world["github"]["app_slug"]
    return {
        "github": f"{slug}[bot]",
        "linear": slug,
        "slack": workspace["bot_user_id"],
        "stripe": books["id"],
        "zendesk": "aswhom",
    }


GET_PULL = Step(action="github.GetPull", endpoint="get_pull", writes=False)
NOTICE = Step(action="slack.PostMessage", endpoint="chat_post_message", holds_up=0)
PAGE = Step(action="stripe.ListSubscriptions", endpoint="list_subscriptions", writes=False)
NOTE = Step(action="stripe.AnnotateSubscription", endpoint="update_subscription", holds_up=0)
FIND = Step(action="linear.FindIssuesOfPull", endpoint="issues", writes=False)


def _comment(login: str) -> Step:
    return Step(action="github.Comment", endpoint="create_comment", as_=login, holds_up=0)


def _move(as_: str) -> Step:
    return Step(action="linear.MoveIssue", endpoint="issueUpdate", as_=as_, repeatable=True, holds_up=0)


def _filed(login: str, *, as_: str, merged: bool = False) -> tuple[Step, ...]:
    """What follows a label for whom the comment is *login*'s, and the issue *as_*'s.

    In the end it looks whether the pull request is *merged* by now, which then has an issue to finish.
    """
    look = (GET_PULL, replace(FIND, as_=as_), _move(as_)) if merged else (GET_PULL,)
    steps = (Step(action="linear.CreateIssue", endpoint="issueCreate", as_=as_), _comment(login), NOTICE, *look)
    # A refusal keeps back what depends on it, of this label alone.
    return tuple(
        replace(step, holds_up=len(steps) - 1 - place) if step.holds_up is None else step
        for place, step in enumerate(steps)
    )


def _labelled(*labels: str, author: str = "ada", merged: bool = False) -> Callable[[Hands], None]:
    """*merged*: before anything is delivered; of the merge itself nothing is heard here."""

    def start(system: Hands) -> None:
        system.connect_engineer(TENANT, "ada")
        opened = system.sandbox.open_pull(REPO, author, labels=list(labels), hold=True)
        if merged:
            system.sandbox.order("github", f"pulls/{REPO}/{opened['number']}/merge", hold=True, by="grace")
        for guid in opened["deliveries"]:
            system.github("pull_request", guid)

    return start


def _commanded(label: str, *, merged: bool = False) -> Callable[[Hands], None]:
    def start(system: Hands) -> None:
        system.connect_engineer(TENANT, "grace")
        opened = system.sandbox.open_pull(REPO, "ada", labels=[label], hold=True)
        if merged:
            system.sandbox.order("github", f"pulls/{REPO}/{opened['number']}/merge", hold=True, by="grace")
        system.told(REPO, opened["number"], "comments", "issue_comment", author="grace", body="/aswhom link")

    return start


def _merged(by: str, *labels: str) -> Callable[[Hands], None]:
    return lambda system: _merge(system, by, labels)


def _merge(system: Hands, by: str, labels: tuple[str, ...]) -> None:
    """The issues were filed by other jobs, whose ledger is not this one."""
    system.connect_engineer(TENANT, "ada")
    opened = system.sandbox.open_pull(REPO, "ada", labels=list(labels), hold=True)
    number = opened["number"]
    (team, *_) = system.sandbox.world["linear"]["organizations"][0]["teams"]
    link = f"[{REPO}#{number}](https://github.com/{REPO}/pull/{number})"
    token = system.sandbox.app_token(TENANT)
    create = "mutation($input: IssueCreateInput!) { issueCreate(input: $input) { success } }"
    for label in labels:
        fields = {"teamId": team["id"], "title": f"{REPO}#{number}: {label}", "description": f"Pull request {link}"}
        assert "errors" not in system.sandbox.linear(token, create, input=fields).json()
    system.told(REPO, number, "merge", by=by)


def _review(system: Hands) -> None:
    opened = system.sandbox.open_pull(REPO, "ada", hold=True)
    system.told(REPO, opened["number"], "review_requests", reviewer="grace")


def _workspace(system: Hands) -> dict[str, Any]:
    (workspace,) = [one for one in system.sandbox.world["slack"]["workspaces"] if one["name"] == TENANT]
    return dict(workspace)


def _typed(system: Hands) -> None:
    system.connect_engineer(TENANT, "ada")
    link = {"tenant": TENANT, "provider": "slack", "external_id": ADA_IN_SLACK, "principal": f"{TENANT}.ada"}
    now = datetime.now(UTC)
    system.runtime.database.write(lambda c: link_alias(c, **link, login=None, made_by="admin:test", now=now))
    workspace = _workspace(system)
    fields = {
        "team_id": workspace["team_id"],
        "channel_id": workspace["channels"][0]["id"],
        "user_id": ADA_IN_SLACK,
        "command": "/aswhom",
        "text": "issue The page is slow",
    }
    system.deliver("slack", "command", fields, through=SLACK, installation=workspace["team_id"])


def _mentioned(system: Hands) -> None:
    workspace = _workspace(system)
    said = {
        "type": "app_mention",
        "user": "U1",
        "channel": workspace["channels"][0]["id"],
        "text": "?",
        "ts": "1.000001",
    }
    body = {"team_id": workspace["team_id"], "event": said}
    system.deliver("slack", "app_mention", body, through=SLACK, installation=workspace["team_id"])


def _morning(workflow: str) -> Callable[[Hands], None]:
    return lambda system: system.night(TENANT, workflow, due=datetime.now(UTC) - timedelta(minutes=1))


def _deal(system: Hands) -> None:
    system.connect_seller(TENANT, "ada")
    (sales,) = [one for one in system.sandbox.world["salesforce"]["organizations"] if one["tenant"] == TENANT]
    row = sales["opportunities"][0]
    data = {"organization": sales["id"], "opportunity": row["id"], "owner": row["owner"], "stage": "won"}
    # The pretend CRM's clock is ours: what it changed in an earlier test is not newer than this.
    system.report(TENANT, "deal.changed", data, at=datetime.now(UTC) + timedelta(seconds=1))


def _incident(system: Hands) -> None:
    data = {"reference": "inc-1", "customer": "Umbrella", "subject": "It hurts", "description": "Here."}
    system.report(TENANT, "incident.reported", data)


def _answered(system: Hands) -> None:
    """An approval was given before its question came to the channel: one job asks, and says how it ended."""
    news = ApprovalNews(
        approval="apr_0123456789abcdef",
        tenant=TENANT,
        state=ApprovalState.APPROVED,
        before=ApprovalState.OPEN,
        asked=True,
        reason="by acme.grace",
        shown=Shown.model_validate(SHOWN),
        needs=[],
        expires_at="2026-12-01T08:00:00+00:00",
    )
    insert = partial(
        insert_job,
        new=NewJob(
            id=system.runtime.ids("job"),
            tenant=TENANT,
            workflow=system.registry.get("ask_in_slack"),
            event=news.model_dump(mode="json"),
            config={"channel": _workspace(system)["channels"][0]["id"]},
        ),
        now=datetime.now(UTC),
    )
    system.runtime.database.write(insert)


def _closing(as_: str, issues: int = 1) -> tuple[Step, ...]:
    return (FIND, *[_move(as_)] * issues, NOTICE)


# The rule of `bug` files as the person, that of `infra` as the workspace, and `docs` has none.
SCENES = (
    Scene(workflow="link_pull_request", start=_labelled("bug"), steps=(GET_PULL, *_filed("ada", as_="ada"))),
    Scene(
        workflow="link_pull_request",
        case="service-rule",
        start=_labelled("infra"),
        steps=(GET_PULL, *_filed("ada", as_="service")),
    ),
    Scene(
        workflow="link_pull_request",
        case="merged",
        start=_labelled("bug", merged=True),
        steps=(GET_PULL, *_filed("ada", as_="ada", merged=True)),
    ),
    Scene(
        workflow="link_pull_request",
        case="service-rule-merged",
        start=_labelled("infra", merged=True),
        steps=(GET_PULL, *_filed("ada", as_="service", merged=True)),
    ),
    Scene(
        workflow="link_pull_request",
        case="two-labels",
        start=_labelled("bug", "infra"),
        steps=(GET_PULL, *_filed("ada", as_="ada"), *_filed("ada", as_="service")),
    ),
    Scene(
        workflow="link_pull_request",
        case="two-labels-merged",
        start=_labelled("bug", "infra", merged=True),
        steps=(GET_PULL, *_filed("ada", as_="ada", merged=True), *_filed("ada", as_="service", merged=True)),
    ),
    Scene(
        workflow="link_pull_request",
        case="stranger",
        start=_labelled("bug", author="stranger"),
        steps=(GET_PULL, Step(action="linear.CreateIssue", endpoint="issueCreate"), NOTICE, GET_PULL),
    ),
    Scene(workflow="link_on_command", start=_commanded("bug"), steps=(GET_PULL, *_filed("grace", as_="grace"))),
    Scene(
        workflow="link_on_command",
        case="service-rule",
        start=_commanded("infra"),
        steps=(GET_PULL, *_filed("grace", as_="service")),
    ),
    Scene(
        workflow="link_on_command",
        case="merged",
        start=_commanded("bug", merged=True),
        steps=(GET_PULL, *_filed("grace", as_="grace", merged=True)),
    ),
    Scene(
        workflow="link_on_command",
        case="service-rule-merged",
        start=_commanded("infra", merged=True),
        steps=(GET_PULL, *_filed("grace", as_="service", merged=True)),
    ),
    Scene(
        workflow="link_on_command",
        case="no-rule",
        start=_commanded("docs"),
        steps=(GET_PULL, _comment("grace")),
    ),
    Scene(workflow="close_issues", start=_merged("ada", "bug"), steps=_closing("ada")),
    Scene(
        workflow="close_issues",
        case="two-issues",
        start=_merged("ada", "bug", "infra"),
        steps=_closing("ada", issues=2),
    ),
    Scene(workflow="close_issues", case="stranger", start=_merged("stranger", "bug"), steps=_closing("service")),
    Scene(workflow="announce_review", start=_review, steps=(NOTICE,)),
    Scene(
        workflow="file_from_slack",
        start=_typed,
        steps=(
            Step(action="linear.CreateIssue", endpoint="issueCreate", as_="ada"),
            replace(NOTICE, dispensable=True),
        ),
    ),
    Scene(workflow="answer_mention", start=_mentioned, steps=(NOTICE,)),
    Scene(
        workflow="ask_in_slack",
        start=_answered,
        steps=(
            Step(action="slack.AskApproval", endpoint="chat_post_message"),
            replace(NOTICE, holds_up=None),
            Step(action="slack.EndQuestion", endpoint="chat_update", repeatable=True, dispensable=True),
        ),
    ),
    Scene(
        workflow="daily_digest",
        start=_morning("daily_digest"),
        steps=(Step(action="github.ListPulls", endpoint="list_pulls", writes=False), NOTICE),
    ),
    Scene(
        workflow="billing_reconciliation",
        start=_morning("billing_reconciliation"),
        steps=(PAGE, NOTE, PAGE, NOTE, PAGE),
    ),
    Scene(
        workflow="update_opportunity",
        start=_deal,
        steps=(
            Step(action="salesforce.GetOpportunity", endpoint="get_opportunity", writes=False, as_="ada"),
            Step(action="salesforce.UpdateOpportunity", endpoint="update_opportunity", as_="ada", repeatable=True),
        ),
    ),
    Scene(
        workflow="open_ticket",
        start=_incident,
        steps=(Step(action="zendesk.CreateTicket", endpoint="create_ticket"),),
    ),
)


def opportunity(system: Hands, tenant: str = "acme", number: int = 0) -> dict[str, Any]:
    (one,) = [row for row in system.sandbox.world["salesforce"]["organizations"] if row["tenant"] == tenant]
    return {**one["opportunities"][number], "organization": one["id"]}


def deal(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"organization": row["organization"], "opportunity": row["id"], "owner": row["owner"], "stage": "won"} | more
