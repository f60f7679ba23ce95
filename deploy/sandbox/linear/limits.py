"""Linear's two rate limits, requests and complexity, for each user and each app's actor.

https://linear.app/developers/rate-limiting
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLObjectType,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
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
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    counter = _Counter(fragments, variables)
    return math.ceil(
        sum(
            counter.cost(definition.selection_set, SCHEMA.get_root_type(definition.operation))
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        )
    )


@dataclass(frozen=True)
class _Counter:
    fragments: Mapping[str, FragmentDefinitionNode]  # without cycles: the document is valid
    variables: Mapping[str, Any]

    def cost(self, selected: SelectionSetNode, of: GraphQLNamedType | None) -> float:
        return sum(self._of(selection, of) for selection in selected.selections)

    def _of(self, selection: SelectionNode, of: GraphQLNamedType | None) -> float:
        match selection:
            case FragmentSpreadNode(name=name):
                return self.cost(self.fragments[name.value].selection_set, of)
            case InlineFragmentNode(selection_set=within):
                return self.cost(within, of)
            case FieldNode(selection_set=SelectionSetNode() as within) if isinstance(of, GraphQLObjectType):
                field = of.fields.get(selection.name.value)  # None: introspection
                named = None if field is None else get_named_type(field.type)
                cost = self.cost(within, named)
                is_paged = named is not None and named.name.endswith("Connection")
                return cost * _page(selection, self.variables) if is_paged else OBJECT + cost
            case FieldNode(selection_set=SelectionSetNode() as within):
                return OBJECT + self.cost(within, None)
        return PROPERTY


def _page(field: FieldNode, variables: Mapping[str, Any]) -> int:
    for argument in field.arguments or ():
        if argument.name.value in ("first", "last"):
            match argument.value:
                case IntValueNode(value=said):
                    return int(said)
                case VariableNode(name=named) if isinstance(size := variables.get(named.value), int):
                    return size  # of another type: the execution refuses it
    return PAGE
