"""Linear's two rate limits, requests and complexity, for each user and each app's actor.

https://linear.app/developers/rate-limiting
"""

import math
from collections.abc import Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLNamedType,
    GraphQLObjectType,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

from deploy.sandbox.linear.errors import rate_limited
from deploy.sandbox.linear.schema import SCHEMA
from deploy.sandbox.windows import Windows, say

REQUESTS, COMPLEXITY, SECONDS = 5000, 250_000, 3600
PROPERTY, OBJECT, PAGE = 0.1, 1.0, 50  # points per property, points per object, default page size


def count(whose: str, cost: int, *, requests: Windows, complexity: Windows) -> None:
    """Count a request of this complexity. Raise GraphQLError."""
    say({"X-Complexity": str(cost)})
    for name, windows, more in (("Requests", requests, 1), ("Complexity", complexity, cost)):
        now = windows.count(whose, more)
        say(
            {
                f"X-RateLimit-{name}-Limit": str(now.limit),
                f"X-RateLimit-{name}-Remaining": str(now.remaining),
                f"X-RateLimit-{name}-Reset": str(now.resets * 1000),
            }
        )
        if now.exceeded:
            raise rate_limited()


def complexity_of(document: DocumentNode, variables: Mapping[str, Any]) -> int:
    """Return a valid document's cost: its properties and objects, multiplied by the page sizes of their connections."""
    return math.ceil(
        sum(
            _cost(definition.selection_set, SCHEMA.get_root_type(definition.operation), variables)
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        )
    )


def _cost(selected: SelectionSetNode, of: GraphQLNamedType | None, variables: Mapping[str, Any]) -> float:
    cost = 0.0
    for field in selected.selections:
        if not isinstance(field, FieldNode) or not isinstance(of, GraphQLObjectType):
            continue  # our own documents have no fragments
        if field.selection_set is None:
            cost += PROPERTY
            continue
        named = get_named_type(of.fields[field.name.value].type)
        within = _cost(field.selection_set, named, variables)
        cost += within * _page(field, variables) if named.name.endswith("Connection") else OBJECT + within
    return cost


def _page(field: FieldNode, variables: Mapping[str, Any]) -> int:
    for argument in field.arguments or ():
        if argument.name.value in ("first", "last"):
            match argument.value:
                case IntValueNode(value=said):
                    return int(said)
                case VariableNode(name=named):
                    return int(variables.get(named.value) or PAGE)
    return PAGE
