"""Assembly of the Slack process."""

from typing import Any

from flask import Flask

from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.slack.events import control
from deploy.sandbox.slack.methods import methods
from deploy.sandbox.slack.store import Store
from deploy.sandbox.surface import equip


def create_slack(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    store = Store(world["slack"], clock=clock)
    equip(app, journal=journal)
    app.register_blueprint(methods(world["slack"], store))
    app.register_blueprint(control(world["slack"], store, journal=journal, clock=clock))
    return app
