"""Checks of action classes: one that could not be carried out or recovered is a TypeError at import."""

from __future__ import annotations

from typing import Any, TypeGuard

from pipeline.action import Action, Facts, Result, named_result
from pipeline.fields import check_kept, check_ordered


def is_action(member: object) -> TypeGuard[type[Action[Any]]]:
    """True if *member* is a concrete action, not an abstract base class."""
    return (
        isinstance(member, type)
        and issubclass(member, Action)
        and hasattr(member, "facts")
        and hasattr(member, "result")
        and "[" not in member.__name__
    )


def check_action(action: Any) -> None:
    """Refuse an action that could not be carried out or recovered. Raises TypeError."""
    if not (isinstance(action, type) and issubclass(action, Action)):
        raise TypeError(f"{action!r} is no action: it takes a class below Action")
    _check_sides(action)
    if hidden := sorted(action.model_fields.keys() & vars(Action).keys()):
        one = f"{action.__name__}.{hidden[0]}"
        raise TypeError(f"{one} hides what every action has by that name: call the field otherwise")
    check_ordered(action)
    check_kept(action)
    check_kept(action.result)
    for name in ("request", "read"):
        if getattr(action, name) is getattr(Action, name):
            raise TypeError(f"{action.action_name()} must define {name}()")
    searches = action.facts.recovery.searches
    for name in ("probe", "found"):
        if (getattr(action, name) is not getattr(Action, name)) != searches:
            rule = "must define" if searches else "must not define"
            raise TypeError(f"{action.action_name()} recovers by {action.facts.recovery}: it {rule} {name}()")


def _check_sides(action: type[Action[Any]]) -> None:
    """Check `facts` and that the result types agree; otherwise a run would fail only after the call had its effect."""
    if not isinstance(getattr(action, "facts", None), Facts):
        raise TypeError(f"{action.__name__} needs facts, as a ClassVar")
    if not isinstance(getattr(action, "result", None), type):
        raise TypeError(f"{action.__name__} needs result, a class below Result: write Action[ITS RESULT]")
    if not issubclass(action.result, Result):
        raise TypeError(f"{action.__name__} needs result, a class below Result and not {action.result.__name__}")
    named = [one for base in action.__mro__ if issubclass(base, Action) and (one := named_result(base)) is not None]
    if named and not issubclass(action.result, named[0]):
        raise TypeError(
            f"{action.__name__} reads {named[0].__name__} by its class and {action.result.__name__} by its `result`"
        )
