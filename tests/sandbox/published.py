"""Validators made of what the providers publish."""

import json
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.servers import shared_data


def github_rest() -> Callable[[str, str, int], Validator]:
    """A validator for the answer of (method, path, status)."""
    api = _without_nullable(json.loads(shared_data.github_rest().read_text()))
    registry = _registry(api)

    def answer_of(method: str, path: str, status: int) -> Validator:
        answer = api["paths"][path][method.lower()]["responses"][str(status)]
        if "$ref" in answer:
            answer = api["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = answer["content"]["application/json"]["schema"]
        return Draft202012Validator(_absolute(schema), registry=registry)

    return answer_of


def github_webhooks() -> Callable[[str], Validator]:
    """A validator for the payload with a definition's name, such as `pull_request$opened`."""
    schema = json.loads(shared_data.github_webhook_schema().read_text())
    for definition in schema["definitions"].values():
        definition.pop("$schema", None)
    registry = _registry({"definitions": schema["definitions"]})
    return lambda name: Draft202012Validator({"$ref": f"urn:published#/definitions/{name}"}, registry=registry)


def slack_web() -> Callable[[str, bool], Validator]:
    """A validator for the answer of a Web API method, when it is ok and when it is not."""
    api = json.loads(shared_data.slack_openapi().read_text())
    registry = _registry(api)

    def answer_of(method: str, ok: bool) -> Validator:
        operation = next(iter(api["paths"][f"/{method}"].values()))
        return Draft202012Validator(
            _absolute(operation["responses"]["200" if ok else "default"]["schema"]), registry=registry
        )

    return answer_of


def _registry(document: dict[str, Any]) -> Registry[Any]:
    registry: Registry[Any] = Registry().with_resource("urn:published", DRAFT202012.create_resource(document))
    return registry


def _absolute(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: f"urn:published{value}" if key == "$ref" and isinstance(value, str) else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(part) for part in schema] if isinstance(schema, list) else schema


def _without_nullable(schema: Any) -> Any:
    """OpenAPI 3.0 says `nullable`; JSON Schema says it with a type."""
    if isinstance(schema, list):
        return [_without_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_nullable(value) for key, value in schema.items() if key not in ("example", "examples")}
    if [part.get("title") for part in plain.get("allOf", [])] == ["Simple User", "Enterprise"]:
        # An account is one or the other; the document says both, which GitHub's own answers are not.
        plain["anyOf"] = plain.pop("allOf")
    if plain.get("nullable") is True:
        del plain["nullable"]
        return {"anyOf": [{"type": "null"}, plain]}
    return plain
