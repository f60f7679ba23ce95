"""The registry of an installation's workflows, with their actions and tools."""

from __future__ import annotations

import importlib
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from identity.errors import BadInput, Misconfigured
from pipeline.action import Action
from pipeline.authoring.action_checks import is_action
from pipeline.authoring.declared_workflow import COMPENSATION, TOOL, Workflow
from pipeline.authoring.matching import Considered, Match, consider
from pipeline.authoring.tool_workflows import by_name, derived
from pipeline.authoring.uses import Who

log = logging.getLogger(__name__)


class Registry:
    """All workflows of an installation by name, its actions, and its tools: the actions that agents may call."""

    def __init__(self, workflows: Iterable[Workflow], actions: Iterable[type[Action[Any]]] = ()) -> None:
        """Register *workflows*, the actions they use, and *actions*. Raises TypeError if one cannot be used."""
        self._by_name: dict[str, Workflow] = {}
        for declared in workflows:
            other = self._by_name.setdefault(declared.name, declared)
            if other is not declared:  # the same object imported by two modules is no conflict
                where = f"in {other.function.__module__} and in {declared.function.__module__}"
                raise TypeError(f"two workflows are named {declared.name}, {where}")
        used = [action for declared in self._by_name.values() for action in declared.uses]
        self.actions: Mapping[str, type[Action[Any]]] = by_name([*used, *actions])
        self.tools = {name: action for name, action in self.actions.items() if action.facts.tool}
        self._of_tools = derived(self.tools.values())

    @classmethod
    def load(cls, modules: Iterable[str]) -> Registry:
        """Load the workflows and actions that the named modules declare at top level. Raises Misconfigured."""
        workflows: list[Workflow] = []
        actions: list[type[Action[Any]]] = []
        for name in modules:
            module = _imported(name)
            members = list(vars(module).values())
            of_it = [one for one in members if isinstance(one, Workflow)]
            tools = [one for one in members if is_action(one) and one.__module__ == name]
            if not of_it and not tools:
                told = {"action": "workflows.nothing_declared", "of": name}
                lies_at = getattr(module, "__file__", None) or "no file"
                log.warning(
                    "%s declares no workflow and no action at its top level. It was loaded from %s: if you meant a "
                    "file of yours, rename it, since an installed module has its name",
                    name,
                    lies_at,
                    extra=told,
                )
            workflows += of_it
            actions += tools
        try:
            return cls(workflows, actions)
        except TypeError as fault:
            raise Misconfigured(f"a workflow cannot be used: {fault}") from fault

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._by_name.values())

    @property
    def with_compensations(self) -> tuple[Workflow, ...]:
        """The workflows, each followed by that of its compensations, if it has any."""
        return tuple(
            one for declared in self for one in (declared, declared.compensating) if one is declared or one.uses
        )

    def get(self, name: str) -> Workflow:
        """Return the named workflow, including those of compensations and single tools. Raises BadInput."""
        found = self.find(name)
        if found is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise BadInput(f"no workflow is named {name!r}: known are {known}. Is its module in ASWHOM_WORKFLOWS?")
        return found

    def declared(self, name: str) -> Workflow:
        """Return the named workflow, excluding those of tools and compensations. Raises BadInput."""
        if name not in self._by_name and name.startswith(TOOL):
            raise BadInput(f"{name} is a tool's: the agents' API carries it out, for the key that asks for it")
        if name not in self._by_name and (undone := self.find(name)) is not None:
            raise BadInput(f"{name} undoes what {undone.name.removesuffix(COMPENSATION)} did: a revocation starts it")
        return self.get(name)

    def find(self, name: str) -> Workflow | None:
        """Return the named workflow, or None where `get` raises."""
        of = self._by_name.get(name.removesuffix(COMPENSATION))
        if of is not None and name != of.name:
            return of.compensating
        return of or next((one for one in self._of_tools.values() if one.name == name), None)

    def for_tool(self, action: type[Action[Any]], who: Who) -> Workflow:
        """Return the one-step workflow that carries out a tool as *who*."""
        return self._of_tools[action, who]

    def usages(self, source: str, event: str) -> dict[str, tuple[str, ...]]:
        """Return the commands a person could have typed, by the workflow that would have matched."""
        listened = ((w.name, t) for w in self for t in w.on if (t.source, t.event) == (source, event) and t.usage)
        found: dict[str, tuple[str, ...]] = {}
        for name, trigger in listened:
            found[name] = (*found.get(name, ()), trigger.usage)
        return found

    def match(self, source: str, event: str, body: Mapping[str, Any]) -> list[Match]:
        """Return every workflow this delivery starts, with its typed event.

        Raises BadInput if a workflow could not read the body and none starts.
        """
        considered = self.consider(source, event, body)
        matches = [one.match for one in considered if one.match is not None]
        misfits = [one.refusal for one in considered if one.misfit]
        if misfits and not matches:
            raise BadInput(misfits[-1])
        return matches

    def consider(self, source: str, event: str, body: Mapping[str, Any]) -> list[Considered]:
        """Offer the body to each workflow that listens to this kind of event, and return the results."""
        found = []
        for declared in self._by_name.values():
            triggers = [one for one in declared.on if (one.source, one.event) == (source, event)]
            if triggers:
                found.append(consider(declared, triggers, body))
        return found


def _imported(module: str) -> ModuleType:
    """Import a module of workflows, which is the operator's own code. Raises Misconfigured for any error."""
    try:
        return importlib.import_module(module)
    except Exception as fault:
        lines = [
            line for frame, line in traceback.walk_tb(fault.__traceback__) if frame.f_globals.get("__name__") == module
        ]
        where = f"{module}, line {lines[-1]}" if lines else module
        raise Misconfigured(
            f"workflows cannot be loaded from {where} ({type(fault).__name__}: {fault}): "
            "see ASWHOM_WORKFLOWS, and ASWHOM_WORKFLOWS_DIR"
        ) from fault
