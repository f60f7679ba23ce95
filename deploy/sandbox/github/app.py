"""Assembly of the GitHub process. Its base URL stands for api.github.com."""

from functools import partial
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.exceptions import NotFound

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.authorizations import authorizations
from deploy.sandbox.github.bearer import NOT_FOUND, Gate, Refused
from deploy.sandbox.github.control import control
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.events import Events
from deploy.sandbox.github.installations import installations
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.limits import LIMIT, SECONDS, count
from deploy.sandbox.github.repositories import repositories
from deploy.sandbox.github.store import Store
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.surface import equip
from deploy.sandbox.windows import Windows, limit


def create_github(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    github = world["github"]
    introspection = Introspection(world["auth"])
    store = Store(github, clock=clock)
    actors = ActorShapes(github["url"])
    apps = AppShapes(github, actors)
    shapes = ItemShapes(github["url"], actors, apps)
    deliveries = Deliveries(github, journal=journal, clock=clock)
    events = Events(store, actors, shapes, deliveries)
    windows = Windows(clock=clock, limit=LIMIT, seconds=SECONDS)
    gate = Gate(github, store, introspection, count=partial(count, windows=windows))

    equip(app, journal=journal)
    app.register_blueprint(repositories(gate, store, actors, shapes, events, deliveries))
    app.register_blueprint(installations(gate, store, apps, shapes, deliveries))
    app.register_blueprint(authorizations(github, store, actors, deliveries, introspection))
    limit(app, requests=windows)
    app.register_blueprint(control(store, actors, apps, shapes, events, deliveries, introspection))

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        return jsonify(error.body()), error.status

    @app.errorhandler(NotFound)
    def unknown_route(_: NotFound) -> tuple[Response, int]:
        return jsonify(Refused(*NOT_FOUND).body()), 404

    return app
