"""What agents ask for by the API: a job of one tool, as it is accepted."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from pipeline.action import Action
from pipeline.authoring.tool_workflows import ToolCall
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.workflow import SERVICE
from tests.tasks.in_process_system import InProcessSystem


def ask(system: InProcessSystem, job: str, action: Action[Any]) -> None:
    """An agent of acme's asks for it as the service."""
    call = ToolCall(parameters=action.model_dump(mode="json"), requested_by="key_1").model_dump(mode="json")
    new = NewJob(id=job, tenant="acme", workflow=system.registry.for_tool(type(action), SERVICE), event=call, config={})
    system.runtime.database.write(partial(insert_job, new=new, now=datetime.now(UTC)))
