"""The app's own endpoints: installations, their tokens, and redelivery."""

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.bearer import NOT_ACCESSIBLE, NOT_FOUND, ORDER, SUSPENDED, Gate, Refused
from deploy.sandbox.github.deliveries import Deliveries, Delivery
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.model import Installation
from deploy.sandbox.github.pages import listed, listed_from_cursor, page_of
from deploy.sandbox.github.store import Store
from deploy.sandbox.github.times import stamp
from deploy.sandbox.surface import entry, touched

INSTALLATION = "/app/installations/<int:number>"


def installations(gate: Gate, store: Store, apps: AppShapes, shapes: ItemShapes, deliveries: Deliveries) -> Blueprint:
    routes = Blueprint("installations", __name__)

    def installation_of(number: int) -> Installation:
        installation = store.installations.get(number)
        if installation is None or installation.deleted:
            raise Refused(*NOT_FOUND)
        touched(f"installation:{number}", effect=False)
        return installation

    @routes.get("/app")
    def get_app() -> Response:
        gate.app()
        count = sum(not row.deleted for row in store.installations.values())
        return jsonify(apps.integration(store.now()) | {"installations_count": count})

    @routes.get("/app/installations")
    def list_installations() -> Response:
        gate.app()
        with store.lock:
            return listed([apps.installation(row) for row in store.installations.values() if not row.deleted])

    @routes.get(INSTALLATION)
    def get_installation(number: int) -> Response:
        gate.app()
        with store.lock:
            return jsonify(apps.installation(installation_of(number)))

    @routes.get("/repos/<owner>/<repo>/installation")
    def get_repository_installation(owner: str, repo: str) -> Response:
        gate.app()
        with store.lock:
            installation = store.installation_of(f"{owner}/{repo}")
            if installation is None:
                raise Refused(*NOT_FOUND)
            return jsonify(apps.installation(installation))

    @routes.post(f"{INSTALLATION}/access_tokens")
    def create_token(number: int) -> tuple[Response, int]:
        gate.app()
        wanted = request.get_json(silent=True) or {}
        if not isinstance(wanted, dict):
            raise Refused(400, "Problems parsing JSON")
        with store.lock:
            installation = installation_of(number)
            if installation.suspended_at:
                raise Refused(*SUSPENDED)
            chosen = _chosen(store, installation, wanted)
            permissions = _narrowed(installation, wanted.get("permissions"))
            repositories = installation.repositories if chosen is None else chosen
            token, held = store.mint(installation, repositories, permissions)
            answer: dict[str, object] = {
                "token": token,
                "expires_at": stamp(held.expires_at),
                "permissions": permissions,
                "repository_selection": "selected",
            }
            if chosen is not None:
                answer["repositories"] = [shapes.repository(store.repositories[name]) for name in chosen]
            touched(f"installation:{number}")
            entry().tenant, entry().issued = installation.account.login, fingerprint(token)
            return jsonify(answer), 201

    @routes.delete("/installation/token")
    def revoke_token() -> tuple[str, int]:
        bearer = gate.bearer()
        with store.lock:
            held = store.token(bearer.token)
            if held is None:
                raise Refused(*NOT_ACCESSIBLE)
            held.alive = False
            touched(f"installation:{held.installation.id}")
            return "", 204

    @routes.get("/installation/repositories")
    def list_repositories() -> Response:
        bearer = gate.bearer()
        if bearer.user is not None:
            raise Refused(*NOT_ACCESSIBLE)
        with store.lock:
            rows, headers = page_of(
                [shapes.repository(store.repositories[name]) for name in sorted(bearer.repositories)]
            )
        answer = jsonify(total_count=len(bearer.repositories), repository_selection="selected", repositories=rows)
        answer.headers.update(headers)
        return answer

    @routes.get("/user/installations")
    def list_user_installations() -> Response:
        bearer = gate.bearer()
        if bearer.user is None:
            raise Refused(*NOT_ACCESSIBLE)
        with store.lock:
            rows = [apps.installation(row) for row in bearer.installations]
        return jsonify(total_count=len(rows), installations=rows)

    @routes.get("/app/hook/deliveries")
    def list_deliveries() -> Response:
        gate.app()
        return listed_from_cursor(deliveries.rows())

    def delivery_of(number: str) -> Delivery:
        delivery = deliveries.find(number)
        if delivery is None:
            raise Refused(*NOT_FOUND)
        return delivery

    @routes.get("/app/hook/deliveries/<number>")
    def get_delivery(number: str) -> Response:
        gate.app()
        return jsonify(delivery_of(number).whole())

    @routes.post("/app/hook/deliveries/<number>/attempts")
    def redeliver(number: str) -> tuple[Response, int]:
        gate.app()
        delivery = delivery_of(number)
        deliveries.send(delivery)
        touched(f"delivery:{delivery.guid}")
        return jsonify({}), 202

    return routes


def _chosen(store: Store, installation: Installation, wanted: dict[str, object]) -> list[str] | None:
    """Return the full names of a narrowed token's repositories, or None for all of the installation's."""
    names, ids = wanted.get("repositories"), wanted.get("repository_ids")
    if names is None and ids is None:
        return None
    if not isinstance(names or [], list) or not isinstance(ids or [], list):
        raise Refused(422, "Invalid request")
    by_id = {store.repositories[name].id: name for name in installation.repositories}
    full = [f"{installation.account.login}/{name}" for name in names] if isinstance(names, list) else []
    full += [by_id.get(number, "") for number in ids] if isinstance(ids, list) else []
    if not full or not set(full) <= set(installation.repositories):
        raise Refused(
            422,
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        )
    return list(dict.fromkeys(full))


def _narrowed(installation: Installation, wanted: object) -> dict[str, str]:
    if wanted is None:
        return dict(installation.permissions)
    if not isinstance(wanted, dict):
        raise Refused(422, "Invalid request")
    for name, level in wanted.items():
        if ORDER.get(str(level), 9) > ORDER.get(installation.permissions.get(name, ""), 0):
            raise Refused(422, "The permissions requested are not granted to this installation.")
    return {str(name): str(level) for name, level in wanted.items()} | {"metadata": "read"}
