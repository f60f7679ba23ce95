"""Assembly of the Linear process: one GraphQL endpoint with strict validation."""

from typing import Any

from flask import Flask, Response, jsonify, request
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    execute_sync,
    parse,
    validate,
)
from graphql.execution import ExecutionResult

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.linear.control import control
from deploy.sandbox.linear.errors import unauthenticated
from deploy.sandbox.linear.limits import COMPLEXITY, REQUESTS, SECONDS, complexity_of, count
from deploy.sandbox.linear.model import User
from deploy.sandbox.linear.operations import operations
from deploy.sandbox.linear.schema import SCHEMA
from deploy.sandbox.linear.store import Store
from deploy.sandbox.surface import entry, equip
from deploy.sandbox.windows import Windows, limit


def create_linear(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    introspection = Introspection(world["auth"])
    store = Store(world, clock=clock)
    requests = Windows(clock=clock, limit=REQUESTS, seconds=SECONDS)
    complexity = Windows(clock=clock, limit=COMPLEXITY, seconds=SECONDS)

    def bearer() -> tuple[User, frozenset[str]]:
        """Return the token's user and scopes, or raise a GraphQLError."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            raise unauthenticated()
        entry().token_fingerprint = fingerprint(token)  # a header without a scheme is accepted as well
        described = introspection.describe(token)
        if not described["known"] or described["provider"] != "linear":
            raise unauthenticated()
        as_app = described["kind"] == "app"
        viewer = store.apps[described["organization"]] if as_app else store.users[described["user_id"]]
        entry().token_kind, entry().actor = "app" if as_app else "user", viewer.name
        entry().tenant = viewer.organization.url_key
        if not described["active"]:
            raise unauthenticated()
        return viewer, frozenset(described["scopes"])

    @app.post("/graphql")
    def graphql() -> tuple[Response, int]:
        try:
            viewer, scopes = bearer()
        except GraphQLError as refusal:
            return jsonify(errors=[refusal.formatted]), 401
        body = request.get_json(silent=True)
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            return _malformed("GRAPHQL_PARSE_FAILED", [GraphQLError("a query is required")])
        try:
            document = parse(body["query"])
        except GraphQLSyntaxError as error:
            return _malformed("GRAPHQL_PARSE_FAILED", [error])
        if errors := validate(SCHEMA, document):
            return _malformed("GRAPHQL_VALIDATION_FAILED", errors)
        variables = body.get("variables") or {}
        try:
            count(viewer.id, complexity_of(document, variables), requests=requests, complexity=complexity)
        except GraphQLError as refusal:
            return jsonify(errors=[refusal.formatted], data=None), 400
        with store.lock:
            result = execute_sync(
                SCHEMA,
                document,
                root_value=operations(store, viewer, scopes),
                field_resolver=_resolve,
                variable_values=variables,
                operation_name=body.get("operationName"),
            )
        return _answered(result)

    equip(app, journal=journal, names=_named)
    limit(app, requests=requests, complexity=complexity)
    app.register_blueprint(
        control(world["linear"], store.organizations, store.users, introspection, journal=journal, clock=clock)
    )
    return app


def _named() -> set[str]:
    """Return the requested root fields, which name the operation in the log and in faults."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        return set()
    try:
        fields = _root_fields(parse(body["query"]))
    except GraphQLSyntaxError:
        return set()
    entry().operation = ",".join(fields) or None
    return set(fields)


def _root_fields(document: DocumentNode) -> list[str]:
    return [
        field.name.value
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
        for field in definition.selection_set.selections
        if isinstance(field, FieldNode)
    ]


def _resolve(source: dict[str, Any], info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    value = source[info.field_name]
    return value(**arguments) if callable(value) else value


def _answered(result: ExecutionResult) -> tuple[Response, int]:
    for error in result.errors or []:
        if error.original_error and not isinstance(error.original_error, GraphQLError):
            raise error.original_error  # a bug of ours, not the caller's mistake
    return jsonify(result.formatted), 200


def _malformed(code: str, errors: list[Any]) -> tuple[Response, int]:
    rows = [error.formatted | {"extensions": {"code": code, "type": "graphql error"}} for error in errors]
    return jsonify(errors=rows), 400
