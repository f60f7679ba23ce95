"""Acts on jobs: cancel, replay, and resolve an unanswered call."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import BadInput
from pipeline.desk import jobs as acts
from pipeline.model import Bell
from pipeline.states import JobState
from pipeline.steps.resolution import Resolution
from webhooks.console.access import visitor
from webhooks.console.jobs import found_job, job_page
from webhooks.console.parts import Desk


def job_acts(pages: Blueprint, desk: Desk) -> None:
    @pages.route("/jobs/<id>/cancel", methods=["GET", "POST"])
    def cancel_job(id: str) -> BaseResponse:
        def cancel() -> BaseResponse:
            though_it_runs = request.form.get("running") == "yes"
            to = desk.write(partial(acts.cancel, id=id, act=desk.act(), though_it_runs=though_it_runs))
            return _back(id, "stopping" if to is JobState.STOPPING else "cancelled")

        return _by_form(desk, id, cancel)

    @pages.post("/jobs/<id>/replay")
    def replay_job(id: str) -> BaseResponse:
        desk.read(partial(found_job, id=id))
        act, subject = desk.act(), visitor().person.known_by
        rung = desk.write(lambda c: acts.replay_one(c, id, act, workflows=desk.workflows, subject=subject))
        return _ringing(desk, _back(id, "replayed"), rung)

    @pages.route("/jobs/<id>/resolve", methods=["GET", "POST"])
    def resolve_job(id: str) -> BaseResponse:
        def resolve() -> BaseResponse:
            found_out, act = _resolution_form(), desk.act()
            resolved = desk.write(lambda c: acts.resolve(c, id, found_out, act, workflows=desk.workflows))
            return _ringing(desk, _back(id, "resolved"), resolved.bells, revocations=resolved.revocations)

        return _by_form(desk, id, resolve)


def _by_form(desk: Desk, id: str, act: Callable[[], BaseResponse]) -> BaseResponse:
    """Run *act* for a form of the job's page; if it refuses the form, show that page again as it was filled in.

    A GET of the act's address, for example by a returning visitor, leads to the job.
    """
    if request.method == "GET":
        return redirect(url_for("console.job", id=id), 303)
    desk.read(partial(found_job, id=id))
    try:
        return act()
    except BadInput as error:
        return job_page(desk, id, 422, wrong=str(error))


def _resolution_form() -> Resolution:
    """Read what the form says of the calls. Raises BadInput."""
    calls = request.form.getlist("call")
    effect = {"yes": True, "no": False}.get(request.form.get("effect", ""))
    if effect is None:
        raise BadInput("look at the provider first, then say whether the call had its effect")
    text = request.form.get("result", "").strip()
    if not text or not effect:
        return Resolution(calls=calls, effect=effect)
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"what the step returns has to be JSON: {error}") from error
    if not isinstance(result, dict):
        raise BadInput('what the step returns has to be a JSON object, such as {"id": "…"}')
    return Resolution(calls=calls, effect=effect, result=result)


def _back(id: str, done: str) -> BaseResponse:
    return redirect(url_for("console.job", id=id, done=done), 303)


def _ringing(
    desk: Desk, response: BaseResponse, rung: tuple[Bell, ...], *, revocations: tuple[str, ...] = ()
) -> BaseResponse:
    desk.bells.ring_after(response, bells=rung, revocations=revocations)
    return response
