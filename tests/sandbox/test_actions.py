"""The project's own actions meet the sandbox: what they send is served, what is answered they can read."""

import uuid
from typing import Any

from pipeline.action import Action, Call, Request, Response, Verdict
from tasks.actions import github, linear, slack
from tests.sandbox.calls import a_call
from tests.sandbox.driver import Sandbox


def send(sandbox: Sandbox, request: Request, token: str) -> Response:
    answer = sandbox.http.request(
        request.method,
        sandbox.url(*_home(request)) + request.path,
        params=dict(request.params),
        json=request.json,
        headers={**request.headers, "authorization": f"Bearer {token}"},
    )
    return Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)


def _home(request: Request) -> tuple[str, str]:
    if request.path == "/graphql":
        return "linear", ""
    return ("slack", "/api") if request.path.startswith("/chat.") else ("github", "")


def do(sandbox: Sandbox, action: Action[Any], token: str, call: Call | None = None) -> Any:
    """The result of an action that is expected to succeed."""
    response = send(sandbox, action.request(call or a_call()), token)
    judgement = action.judge(response)
    assert judgement.verdict is Verdict.SUCCESS, (judgement, response.body)
    return action.read(response)


def test_github_serves_its_actions(sandbox: Sandbox) -> None:
    number = sandbox.open_pull(labels=["bug"])["number"]
    ada, app = sandbox.connect("github", "ada")["access_token"], sandbox.installation_token()
    pull = do(sandbox, github.GetPull(repo="acme/shop", number=number), app)
    assert (pull.key, pull.author.login, pull.labels) == (f"acme/shop#{number}", "ada", ("bug",))
    assert number in [row.number for row in do(sandbox, github.ListPulls(repo="acme/shop"), ada).pulls]
    labels = do(sandbox, github.AddLabels(repo="acme/shop", number=number, labels=("late",)), app)
    assert labels.names == ("bug", "late")
    issue = do(sandbox, github.CreateIssue(repo="acme/shop", title="Broken", body="b"), ada).number
    close = github.UpdateIssue(repo="acme/shop", number=issue, title="Mended", state="closed")
    closed = do(sandbox, close, ada)
    assert (closed.title, closed.state) == ("Mended", "closed")
    assert do(sandbox, close, ada) == closed
    for action in (
        github.Comment(repo="acme/shop", number=number, body="Tracked"),
        github.CreateIssue(repo="acme/shop", title="t", body="b"),
    ):
        call = a_call()
        assert action.found(send(sandbox, action.probe(call), app), call) is None
        made = do(sandbox, action, ada, call)
        found = action.found(send(sandbox, action.probe(call), app), call)
        assert found == made


def test_linear_serves_its_actions(sandbox: Sandbox) -> None:
    token, team = (
        sandbox.connect("linear", "ada", scope="read,write,issues:create,comments:create")["access_token"],
        sandbox.world["linear"]["organizations"][0]["teams"][0]["id"],
    )
    create, call = linear.CreateIssue(team_id=team, title="t", description="d", priority=2), a_call()
    assert create.found(send(sandbox, create.probe(call), token), call) is None
    issue = do(sandbox, create, token, call)
    assert create.judge(send(sandbox, create.request(call), token)).verdict is Verdict.UNKNOWN
    assert create.found(send(sandbox, create.probe(call), token), call) == issue
    url = f"http://127.0.0.1:1/{uuid.uuid4()}"
    attach = linear.AttachUrl(issue_id=issue.id, url=url, title="PR")
    assert do(sandbox, attach, token) == do(sandbox, attach, token)
    assert do(sandbox, linear.FindByAttachmentUrl(url=url), token).issues == (issue,)
    comment, call = linear.Comment(issue_id=issue.id, body="b"), a_call()
    made = do(sandbox, comment, token, call)
    assert comment.found(send(sandbox, comment.probe(call), token), call) == made
    refused = send(sandbox, create.request(a_call()), "lin_oauth_none")
    assert create.judge(refused).verdict is Verdict.UNAUTHORIZED


def test_slack_serves_its_action(sandbox: Sandbox) -> None:
    workspace = sandbox.world["slack"]["workspaces"][0]
    action = slack.PostMessage(channel=workspace["channels"][0]["id"], text="PR → ENG-1")
    message = do(sandbox, action, workspace["bot_token"])
    assert sandbox.read("slack", "messages")[-1]["ts"] == message.ts
    assert action.judge(send(sandbox, action.request(a_call()), "xoxb-none")).verdict is Verdict.UNAUTHORIZED
