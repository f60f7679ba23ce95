"""Requests held against the documents that GitHub and Slack publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft7Validator

from pipeline.action import Request


class Unpublished(AssertionError):
    """The request is not one that the upstream documents."""


class GitHubDocument:
    """GitHub's OpenAPI 3 document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def check(self, request: Request) -> None:
        """Raises Unpublished for a request that the document does not describe."""
        operation, in_path = self._operation(request)
        parameters = [self._resolve(parameter) for parameter in operation.get("parameters", [])]
        known = {parameter["name"]: parameter for parameter in parameters if parameter["in"] == "query"}
        for name, value in request.params.items():
            if name not in known:
                raise Unpublished(f"{request.path} takes no parameter {name}")
            self._check_value(known[name]["schema"], str(value), name)
        for parameter in parameters:
            if parameter["in"] == "path":
                self._check_value(parameter["schema"], in_path[parameter["name"]], parameter["name"])
        body = operation.get("requestBody")
        if (body is None) != (request.json is None):
            raise Unpublished(f"{request.method} {request.path}: a body {'is missing' if body else 'is not taken'}")
        if body is not None:
            schema = body["content"]["application/json"]["schema"]
            self._validate(schema, request.json)
            # OpenAPI schemas are open: a misspelt field would pass, so fields are compared by name too.
            fields = {name for one in schema.get("oneOf", [schema]) for name in one.get("properties", {})}
            if not set(request.json) <= fields:
                raise Unpublished(f"{request.path} takes no {', '.join(sorted(set(request.json) - fields))}")

    def example(self, method: str, path: str, status: str) -> Any:
        """The documented answer of an operation."""
        answer = self._document["paths"][path][method]["responses"][status]
        return self._resolve(answer["content"]["application/json"]["examples"]["default"])["value"]

    def _operation(self, request: Request) -> tuple[dict[str, Any], dict[str, str]]:
        for template, operations in self._document["paths"].items():
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
            match = re.fullmatch(pattern, request.path)
            if match and request.method.lower() in operations:
                return operations[request.method.lower()], match.groupdict()
        raise Unpublished(f"no {request.method} {request.path}")

    def _check_value(self, schema: Mapping[str, Any], value: str, name: str) -> None:
        typed: Any = int(value) if schema.get("type") == "integer" and value.isdecimal() else value
        if not Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER).is_valid(typed):
            raise Unpublished(f"{name}={value} is not as documented")

    def _validate(self, schema: Mapping[str, Any], value: Any) -> None:
        whole = {**schema, "components": self._document["components"]}
        for error in Draft7Validator(whole).iter_errors(value):
            raise Unpublished(error.message)

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found: Any = self._document
            for name in node["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            node = found
        return node


class SlackDocument:
    """Slack's Swagger 2 document: arguments are form fields there, and may be sent as JSON."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def check(self, request: Request) -> None:
        """Raises Unpublished for a request that the document does not describe."""
        operation = self._document["paths"].get(request.path, {}).get(request.method.lower())
        if operation is None or "application/json" not in operation["consumes"]:
            raise Unpublished(f"no {request.method} {request.path} that takes JSON")
        fields = {
            parameter["name"]: parameter for parameter in operation["parameters"] if parameter["in"] == "formData"
        }
        required = {name for name, field in fields.items() if field.get("required")}
        if not required <= set(request.json) <= set(fields):
            raise Unpublished(f"{request.path} takes {', '.join(sorted(fields))}; not {sorted(request.json)}")
        for name, value in request.json.items():
            if not Draft7Validator({"type": fields[name]["type"]}).is_valid(value):
                raise Unpublished(f"{name}={value!r} is no {fields[name]['type']}")

    def example(self, path: str, status: str) -> Any:
        """The documented answer of a method."""
        return self._document["paths"][path]["post"]["responses"][status]["examples"]["application/json"]

    def errors(self, path: str) -> list[str]:
        """The errors that a method is documented to answer."""
        schema = self._document["paths"][path]["post"]["responses"]["default"]["schema"]
        return list(schema["properties"]["error"]["enum"])
