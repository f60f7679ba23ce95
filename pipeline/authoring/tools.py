"""Tools: descriptions of actions for agents and language models, derived from the actions themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from identity.model import Effect
from pipeline.action import Action, Recovery

if TYPE_CHECKING:
    from pipeline.authoring.registry import Registry

SEPARATOR = "__"  # replaces the dot, which models' APIs do not allow in a tool's name
_MODEL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # OpenAI's and Anthropic's rule


def named(workflows: Registry, name: str) -> type[Action[Any]] | None:
    """Return the tool with this name, in the plain form or the form that models use."""
    return workflows.tools.get(plain_name(name))


def plain_name(name: str) -> str:
    """Return a tool's plain name; models write two underscores for the dot."""
    return name if "." in name else name.replace(SEPARATOR, ".", 1)


@cache
def check_tool(action: type[Action[Any]]) -> None:
    """Refuse an action that cannot be described to models or called by its name. Raises TypeError.

    One bad tool would spoil the whole catalogue, because the models' APIs reject the entire list.
    """
    name, models = action.action_name(), _model_name(action)
    if not _MODEL_NAME.fullmatch(models) or plain_name(models) != name:
        raise TypeError(
            f"{name} cannot be a tool: models call it {models}, and take 64 characters at most, of ASCII's letters, "
            f"digits, _ and -; the first {SEPARATOR} is the dot. Name its class, or its provider, otherwise"
        )
    try:
        described(action)
    except PydanticUserError as fault:
        raise TypeError(f"{name} cannot be described to agents: {fault.message}") from fault


def described(action: type[Action[Any]]) -> dict[str, Any]:
    """Return a tool's API description: its purpose, its needs, and JSON Schemas (2020-12) of both sides."""
    facts = action.facts
    return {
        "name": action.action_name(),
        "description": _said(action),
        "provider": facts.provider,
        "scopes": sorted(facts.scopes),
        "effect": str(facts.effect),
        "attribution": facts.attribution,
        "parameters": _parameters(action),
        "result": _result_schema(action),
    }


def for_openai(action: type[Action[Any]]) -> dict[str, Any]:
    """Return an entry of `tools` for OpenAI's Chat Completions (platform.openai.com/docs/guides/function-calling)."""
    return {"type": "function", "function": _function(action)}


def for_openai_responses(action: type[Action[Any]]) -> dict[str, Any]:
    """Return an entry of `tools` for OpenAI's Responses (platform.openai.com/docs/api-reference/responses/create).

    Responses default to strict, and a strict schema requires every parameter; ours have defaults.
    """
    return {"type": "function", **_function(action), "strict": False}


def for_anthropic(action: type[Action[Any]]) -> dict[str, Any]:
    """Return an entry of `tools` for Anthropic's Messages (docs.anthropic.com/en/docs/build-with-claude/tool-use)."""
    return {"name": _model_name(action), "description": _said(action), "input_schema": _parameters(action)}


def for_mcp(action: type[Action[Any]]) -> dict[str, Any]:
    """Return an entry of MCP's `tools/list` (modelcontextprotocol.io/specification, Server Features, Tools)."""
    reads = action.facts.effect is Effect.READ
    return {
        "name": _model_name(action),
        "description": _said(action),
        "inputSchema": _parameters(action),
        "outputSchema": _result_schema(action),
        "annotations": {
            "readOnlyHint": reads,
            "destructiveHint": not (reads or action.facts.additive),
            "idempotentHint": reads or action.facts.recovery is Recovery.IDEMPOTENT,
            "openWorldHint": True,
        },
    }


FORMS: Mapping[str, Callable[[type[Action[Any]]], dict[str, Any]]] = {
    "openai": for_openai,
    "openai-responses": for_openai_responses,
    "anthropic": for_anthropic,
    "mcp": for_mcp,
}


class _AsStored(GenerateJsonSchema):
    """Names fields as a stored result does: by alias only where the model sets `serialize_by_alias`."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        around, self.by_alias = self.by_alias, bool(schema["cls"].model_config.get("serialize_by_alias"))
        try:
            return super().model_schema(schema)
        finally:
            self.by_alias = around


class _AsFilled(GenerateJsonSchema):
    """Omits titles, which only repeat names: the whole schema is sent to the model with each request."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        return {name: value for name, value in super().model_schema(schema).items() if name != "title"}


@cache
def _parameters(action: type[Action[Any]]) -> dict[str, Any]:
    """Return the schema of the parameters without its description, which the tool carries itself."""
    schema = action.model_json_schema(schema_generator=_AsFilled)
    return {name: value for name, value in schema.items() if name != "description"}


@cache
def _result_schema(action: type[Action[Any]]) -> dict[str, Any]:
    return action.result.model_json_schema(mode="serialization", by_alias=False, schema_generator=_AsStored)


def _function(action: type[Action[Any]]) -> dict[str, Any]:
    return {"name": _model_name(action), "description": _said(action), "parameters": _parameters(action)}


def _model_name(action: type[Action[Any]]) -> str:
    return action.action_name().replace(".", SEPARATOR)


def _said(action: type[Action[Any]]) -> str:
    # `Action`'s own docstring tells authors how to write one.
    said = action.__doc__ if action.__doc__ != Action.__doc__ else None
    return inspect.cleandoc(said or action.__name__)
