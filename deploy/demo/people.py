"""The demo's people, who open their links in a browser and consent or approve, and one thief."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from html import unescape
from typing import Any
from urllib.parse import urljoin

from deploy.demo import page_form
from deploy.demo.asking import asking
from deploy.sandbox import clear
from identity.errors import Unavailable
from identity.model import AccountKey
from pipeline.runtime import Runtime

_AWAY = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]+)">')


class NotApproved(Unavailable):
    """The page did not accept the answer."""


class NotConnected(Unavailable):
    """The pages did not end with a completed consent."""


def connect(runtime: Runtime, key: AccountKey, *, web: str, login: str, now: datetime) -> str:
    """Go through the real pages as *login*, and return the last page's text. Raise NotConnected."""
    link = runtime.connect_flow.start(key, now=now)
    with asking("the web or the provider's page"), clear.client(follow_redirects=True, timeout=10) as browser:
        away = _AWAY.search(browser.post(f"{web}/connect/{link.text}").text)
        if away is None:
            raise NotConnected(f"the link of {key} leads nowhere")
        page = browser.get(unescape(away[1]))
        action = page_form.action(page.text)
        if page.status_code != 200 or action is None:
            raise NotConnected(f"no consent page for {key}: status {page.status_code}")
        said = {**page_form.hidden(page.text), "user": login, "decision": "allow"}
        done = browser.post(urljoin(str(page.url), action), data=said)
    if done.status_code != 200:
        raise NotConnected(f"the callback of {key} ended with status {done.status_code}")
    return done.text


def approve(runtime: Runtime, approval: str, *, by: str, web: str, now: datetime) -> None:
    """Open the personal link of *by* and approve. Raise NotApproved."""
    _, address = runtime.approving.invite(approval, by, now=now)
    with asking("the web"), clear.client(timeout=10) as browser:
        said = {**page_form.hidden(browser.get(address).text), "answer": "yes"}
        done = browser.post(address, data=said, headers={"Origin": web})
    if done.status_code != 200:
        raise NotApproved(f"the page of {approval} ended with status {done.status_code}")


def replay(heard: Mapping[str, str], url: str, *, target: str | None = None) -> Mapping[str, Any]:
    """Resend an overheard request, perhaps to another *target*, as a thief would. Return the service's answer."""
    headers = {"Authorization": heard["authorization"], "Content-Type": "application/json"}
    with asking("the sandbox's invoices"), clear.client(timeout=10) as thief:
        answer = thief.request(
            heard["method"], url + (target or heard["target"]), headers=headers, content=heard["body"]
        )
    return {"tried": target or heard["target"], "status": answer.status_code, **answer.json()}
