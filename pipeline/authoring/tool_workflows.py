"""Built-in one-step workflows for tools, which turn an agent's request into an ordinary job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.action import Action
from pipeline.authoring.action_checks import check_action
from pipeline.authoring.declared_workflow import TOOL, NoConfig, Workflow
from pipeline.authoring.tools import check_tool
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.events import Event
from pipeline.run import Run


class ToolCall(Event):
    """An agent's request for one tool."""

    parameters: Mapping[str, Any]
    requested_by: str  # the API key it called with
    held_by: str | None = None  # the user that the key was stated to be held by


def tool_workflow_name(action: type[Action[Any]], who: Who) -> str:
    """Return a name such as `tool:github.Comment:user`."""
    return _named(action.action_name(), who)


def workflows_of_tool(tool: str) -> list[str]:
    """Return the names of the workflows that carry out the named tool, whether or not it exists yet."""
    return [_named(tool, who) for who in (USER, SERVICE)]


def _named(tool: str, who: Who) -> str:
    return f"{TOOL}{tool}:{'user' if who is USER else 'service'}"


def is_of_a_tool(workflow: str) -> bool:
    """True if the name is that of a tool's workflow."""
    return workflow.startswith(TOOL)


def tool_of(workflow: str) -> str | None:
    """Return the tool that the named workflow carries out; None: it is not a tool's workflow."""
    return workflow.removeprefix(TOOL).rpartition(":")[0] if is_of_a_tool(workflow) else None


def tool_workflow(action: type[Action[Any]], who: Who) -> Workflow:
    """Return the built-in workflow of a tool: one step, as the user or as the service.

    Its jobs are ordinary jobs, so the ledger, policy, audit and revocation apply to them. The requesting agent is
    filled in at acceptance.
    """

    def execute(run: Run[Any], call: ToolCall) -> None:
        try:
            wanted = action.model_validate(call.parameters)
        except ValidationError as error:
            raise BadInput(f"the stored parameters no longer fit {action.action_name()}") from error
        run.do(wanted, as_=who)

    return Workflow(
        name=tool_workflow_name(action, who),
        agent="agents-api",
        function=execute,
        on=(),
        schedule=None,
        user=None,
        triggered_by=None,
        uses={action: who},
        config=NoConfig,
        event=ToolCall,
    )


def derived(actions: Iterable[type[Action[Any]]]) -> dict[tuple[type[Action[Any]], Who], Workflow]:
    """Return the workflows of these tools, one as the user and one as the service for each."""
    return {(action, who): tool_workflow(action, who) for action in actions for who in (USER, SERVICE)}


def by_name(actions: Iterable[type[Action[Any]]]) -> dict[str, type[Action[Any]]]:
    """Return the actions by name, sorted.

    Raises TypeError if two share a name, or one could not be carried out, recovered, described or called.
    """
    found: dict[str, type[Action[Any]]] = {}
    for action in actions:
        other = found.setdefault(action.action_name(), action)
        if other is not action:
            where = f"in {other.__module__} and in {action.__module__}"
            raise TypeError(f"two actions are named {action.action_name()}, {where}")
    for action in found.values():
        check_action(action)  # some belong to no workflow, and some refer to classes defined after their workflow
        if action.facts.tool:
            check_tool(action)
    return dict(sorted(found.items()))
