"""The people of the demo: they open their connect link in a browser of their own and say yes at the provider."""

from __future__ import annotations

import re
from datetime import datetime
from html import unescape
from urllib.parse import urljoin

import httpx

from identity.model import AccountKey
from pipeline.runtime import Runtime

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')
_AWAY = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]+)">')
_ACTION = re.compile(r'<form method="post" action="([^"]+)">')


class NotConnected(Exception):
    """The pages did not end where a consent ends."""


def connect(runtime: Runtime, key: AccountKey, *, web: str, login: str, now: datetime) -> str:
    """Walk through the real pages as *login*; returns the text of the last page. Raises NotConnected."""
    link = runtime.connect.start(key, now=now)
    with httpx.Client(follow_redirects=True, timeout=10, trust_env=False) as browser:
        away = _AWAY.search(browser.post(f"{web}/connect/{link.text}").text)
        if away is None:
            raise NotConnected(f"the link of {key} leads nowhere")
        page = browser.get(unescape(away[1]))
        action = _ACTION.search(page.text)
        if page.status_code != 200 or action is None:
            raise NotConnected(f"no consent page for {key}: status {page.status_code}")
        fields = {unescape(name): unescape(value) for name, value in _HIDDEN.findall(page.text)}
        said = {**fields, "user": login, "decision": "allow"}
        done = browser.post(urljoin(str(page.url), unescape(action[1])), data=said)
    if done.status_code != 200:
        raise NotConnected(f"the callback of {key} ended with status {done.status_code}")
    return done.text
