"""The operator's desk: what people do about the work by hand. The command line and the console call the same acts."""

from datetime import datetime
from typing import TypedDict


class Act(TypedDict):
    """What every act is told: the id of its record in the audit, who does it, and when."""

    audit_id: str
    by: str
    now: datetime
