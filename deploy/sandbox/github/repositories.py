"""Pull requests, issues, comments, labels and search, for user and installation tokens."""

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.bearer import NOT_ACCESSIBLE, NOT_FOUND, Bearer, Gate, Refused
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.events import Events
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.lists import ordered, since
from deploy.sandbox.github.model import Item, Repository
from deploy.sandbox.github.pages import listed, page_of
from deploy.sandbox.github.search import Query
from deploy.sandbox.github.store import Store
from deploy.sandbox.surface import touched

ISSUE = "/repos/<owner>/<repo>/issues/<int:number>"


def repositories(
    gate: Gate, store: Store, actors: ActorShapes, shapes: ItemShapes, events: Events, deliveries: Deliveries
) -> Blueprint:
    routes = Blueprint("repositories", __name__)

    def enter(owner: str, repo: str, **any_of: str) -> tuple[Bearer, Repository]:
        bearer = gate.bearer()
        touched(f"{owner}/{repo}", effect=False)
        return bearer, gate.repository(bearer, f"{owner}/{repo}", **any_of)

    def item_of(repository: Repository, number: int, *, pull: bool | None = None) -> Item:
        item = repository.items.get(number)
        if item is None or pull not in (None, item.is_pull):
            raise Refused(*NOT_FOUND)
        touched(item.key, effect=False)
        return item

    @routes.get("/user")
    def get_user() -> Response:
        bearer = gate.bearer()
        if bearer.user is None:
            raise Refused(*NOT_ACCESSIBLE)
        account = store.account_of[bearer.user]
        return jsonify(actors.public_user(bearer.author, account, store.now()))

    @routes.get("/repos/<owner>/<repo>")
    def get_repository(owner: str, repo: str) -> Response:
        _, repository = enter(owner, repo, metadata="read")
        extra = {"network_count": 0, "subscribers_count": 0}
        return jsonify(shapes.repository(repository) | extra)

    @routes.get("/repos/<owner>/<repo>/pulls")
    def list_pulls(owner: str, repo: str) -> Response:
        _, repository = enter(owner, repo, pull_requests="read")
        with store.lock:
            pulls = [item for item in repository.items.values() if item.is_pull]
            return listed([shapes.pull_simple(item) for item in ordered(pulls)])

    @routes.get("/repos/<owner>/<repo>/pulls/<int:number>")
    def get_pull(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, pull_requests="read")
        with store.lock:
            return jsonify(shapes.pull(item_of(repository, number, pull=True)))

    @routes.get("/repos/<owner>/<repo>/issues")
    def list_issues(owner: str, repo: str) -> Response:
        _, repository = enter(owner, repo, issues="read", pull_requests="read")
        wanted = {name for name in request.args.get("labels", "").split(",") if name}
        with store.lock:
            items = [item for item in repository.items.values() if wanted <= set(item.labels)]
            return listed([shapes.issue(item) for item in ordered(since(items))])

    @routes.post("/repos/<owner>/<repo>/issues")
    def create_issue(owner: str, repo: str) -> tuple[Response, int]:
        bearer, repository = enter(owner, repo, issues="write")
        body = _json()
        title, text, labels = body.get("title"), body.get("body"), body.get("labels", [])
        if not isinstance(title, str) or not title or not isinstance(text, str | None):
            raise Refused(422, "Validation Failed")
        with store.lock:
            item = store.open_item(
                repository,
                author=bearer.author,
                via_app=True,
                title=title,
                body=text,
                labels=_label_names(labels),
                is_pull=False,
            )
            touched(item.key)
            return jsonify(shapes.issue(item)), 201

    @routes.get(ISSUE)
    def get_issue(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, issues="read", pull_requests="read")
        with store.lock:
            return jsonify(shapes.issue(item_of(repository, number)))

    @routes.patch(ISSUE)
    def update_issue(owner: str, repo: str, number: int) -> Response:
        """Change title, body or state; what stays as it was makes no event."""
        bearer, repository = enter(owner, repo, issues="write", pull_requests="write")
        body = _json()
        if not all(valid(body[name]) for name, valid in _UPDATES.items() if name in body):
            raise Refused(422, "Validation Failed")
        with store.lock:
            item = item_of(repository, number)
            before = store.update(item, body)
            made = []
            if changes := {name: {"from": before[name] or ""} for name in ("title", "body") if name in before}:
                made.append(events.of_item("edited", item, bearer.author, changes=changes))
            if "state" in before:
                action = "closed" if item.closed_at else "reopened"
                made.append(events.of_item(action, item, bearer.author))
            if made:
                touched(item.key)
            answer = jsonify(shapes.issue(item))
        deliveries.give(made, hold=False)
        return answer

    @routes.get(f"{ISSUE}/comments")
    def list_comments(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, issues="read", pull_requests="read")
        with store.lock:
            return listed([shapes.comment(comment) for comment in since(item_of(repository, number).comments)])

    @routes.post(f"{ISSUE}/comments")
    def create_comment(owner: str, repo: str, number: int) -> tuple[Response, int]:
        bearer, repository = enter(owner, repo, issues="write", pull_requests="write")
        with store.lock:
            item = item_of(repository, number)
            text = _json().get("body")
            if not isinstance(text, str) or not text:
                raise Refused(422, "Validation Failed")
            comment = store.comment(item, author=bearer.author, via_app=True, body=text)
            touched(item.key)
            return jsonify(shapes.comment(comment)), 201

    @routes.get("/repos/<owner>/<repo>/issues/comments/<int:number>")
    def get_comment(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, issues="read", pull_requests="read")
        with store.lock:
            for item in repository.items.values():
                for comment in item.comments:
                    if comment.id == number:
                        touched(item.key, effect=False)
                        return jsonify(shapes.comment(comment))
        raise Refused(*NOT_FOUND)

    @routes.delete("/repos/<owner>/<repo>/issues/comments/<int:number>")
    def delete_comment(owner: str, repo: str, number: int) -> tuple[str, int]:
        _, repository = enter(owner, repo, issues="write", pull_requests="write")
        with store.lock:
            for item in repository.items.values():
                for comment in item.comments:
                    if comment.id == number:
                        item.comments.remove(comment)
                        touched(item.key)
                        return "", 204
        raise Refused(*NOT_FOUND)

    @routes.get(f"{ISSUE}/labels")
    def list_labels(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, issues="read", pull_requests="read")
        with store.lock:
            return listed(shapes.labels(item_of(repository, number)))

    @routes.post(f"{ISSUE}/labels")
    def add_labels(owner: str, repo: str, number: int) -> Response:
        _, repository = enter(owner, repo, issues="write", pull_requests="write")
        body = request.get_json(silent=True)
        names = _label_names(body.get("labels", []) if isinstance(body, dict) else body)
        with store.lock:
            item = item_of(repository, number)
            if store.label(item, names):
                touched(item.key)
            return jsonify(shapes.labels(item))

    @routes.get("/search/issues")
    def search_issues() -> Response:
        bearer = gate.bearer()
        wanted = Query(request.args.get("q", ""))
        with store.lock:
            seen = [store.repositories[name] for name in sorted(bearer.repositories)]
            found = [item for repository in seen for item in repository.items.values() if wanted.finds(item)]
            rows, headers = page_of([shapes.issue(item) | {"score": 1.0} for item in found])
        answer = jsonify(total_count=len(found), incomplete_results=False, items=rows)
        answer.headers.update(headers)
        return answer

    return routes


_UPDATES: dict[str, Callable[[object], bool]] = {
    "title": lambda value: isinstance(value, str) and value != "",
    "body": lambda value: isinstance(value, str | None),
    "state": lambda value: value in ("open", "closed"),
    "state_reason": lambda value: value in ("completed", "not_planned", "duplicate", "reopened", None),
}


def _json() -> dict[str, object]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise Refused(400, "Problems parsing JSON")
    return body


def _label_names(labels: object) -> list[str]:
    if not isinstance(labels, list):
        raise Refused(422, "Validation Failed")
    names = [label.get("name") if isinstance(label, dict) else label for label in labels]
    if not all(isinstance(name, str) and name for name in names):
        raise Refused(422, "Validation Failed")
    return [str(name) for name in names]
