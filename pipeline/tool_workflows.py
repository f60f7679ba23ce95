"""The built-in workflows of tools: one step each, so that what an agent asks for is a job like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.action import Action, check_action
from pipeline.authoring.declared_workflow import TOOL, NoConfig, Workflow
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.events import Event
from pipeline.run import Run
from pipeline.tools import check_tool


class ToolCall(Event):
    """An agent asked for one tool."""

    parameters: Mapping[str, Any]
    requested_by: str  # the key it called with
    held_by: str | None = None  # the user whom that key was said to be held by


def tool_workflow_name(action: type[Action[Any]], who: Who) -> str:
    """`tool:github.Comment:user`."""
    return _named(action.action_name(), who)


def workflows_of_tool(tool: str) -> list[str]:
    """The names of the workflows that carry out the tool of that name, whether it is there yet or not."""
    return [_named(tool, who) for who in (USER, SERVICE)]


def _named(tool: str, who: Who) -> str:
    return f"{TOOL}{tool}:{'user' if who is USER else 'service'}"


def is_of_a_tool(workflow: str) -> bool:
    """Whether a workflow of that name is a tool's."""
    return workflow.startswith(TOOL)


def tool_of(workflow: str) -> str | None:
    """The name of the tool that a workflow of that name carries out; None: it is no tool's."""
    return workflow.removeprefix(TOOL).rpartition(":")[0] if is_of_a_tool(workflow) else None


def tool_workflow(action: type[Action[Any]], who: Who) -> Workflow:
    """The built-in workflow of a tool: one step, as the user or as the service.

    Its jobs are jobs like any other, so the ledger, policy, audit and revocation hold for them as well. Whose agent
    asked is put in at acceptance.
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
    """The workflows of these tools, as each whom."""
    return {(action, who): tool_workflow(action, who) for action in actions for who in (USER, SERVICE)}


def by_name(actions: Iterable[type[Action[Any]]]) -> dict[str, type[Action[Any]]]:
    """The actions by their names, sorted.

    Raises TypeError if two have the same name, or one could not be carried out, recovered, described or called.
    """
    found: dict[str, type[Action[Any]]] = {}
    for action in actions:
        other = found.setdefault(action.action_name(), action)
        if other is not action:
            where = f"in {other.__module__} and in {action.__module__}"
            raise TypeError(f"two actions are named {action.action_name()}, {where}")
    for action in found.values():
        check_action(action)  # some are no workflow's, and some name what was defined after their workflow
        if action.facts.tool:
            check_tool(action)
    return dict(sorted(found.items()))
