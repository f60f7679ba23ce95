"""GitHub's primary rate limit: a number of requests per hour for each user and each installation.

https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

from deploy.sandbox.github.bearer import Bearer, Refused
from deploy.sandbox.windows import Windows, say

LIMIT, SECONDS = 5000, 3600


def count(bearer: Bearer, windows: Windows) -> None:
    """Count one more request. Raise Refused."""
    whose = f"user {bearer.user}" if bearer.user else f"installation {bearer.installations[0].id}"
    now = windows.count(whose)
    say(
        {
            "x-ratelimit-limit": str(now.limit),
            "x-ratelimit-remaining": str(now.remaining),
            "x-ratelimit-used": str(now.used),
            "x-ratelimit-reset": str(now.resets),
            "x-ratelimit-resource": "core",
        }
    )
    if now.exceeded:
        raise Refused(403, f"API rate limit exceeded for {whose}.")
