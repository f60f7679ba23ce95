"""Every cookie of ours has its flags from one place: one that is forgotten is a hole."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from flask import Flask, Response

from tests.docs.pages import ROOT
from webhooks.cookies import Cookie
from webhooks.settings import WebSettings


@pytest.mark.parametrize(
    ("base_url", "begins", "flags"),
    [
        ("https://aswhom.example", "__Host-aswhom-x=v;", {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}),
        ("http://localhost", "aswhom-x=v;", {"HttpOnly", "Path=/", "SameSite=Lax"}),
    ],
)
def test_it_is_kept_and_taken_back_under_the_same_name_and_flags(base_url: str, begins: str, flags: set[str]) -> None:
    cookie, kept, gone = Cookie(WebSettings(base_url=base_url), "x"), Response(), Response()
    cookie.set(kept, "v", lasts=timedelta(minutes=1))
    cookie.clear(gone)
    said = kept.headers["Set-Cookie"]
    assert said.startswith(begins)
    assert {*said.split("; ")[1:]} == flags | {"Max-Age=60"} | {one for one in said.split("; ") if "Expires" in one}
    ended = gone.headers["Set-Cookie"]
    assert ended.startswith(begins.replace("=v", "="))
    assert flags < {*ended.split("; ")}
    with Flask("web").test_request_context(headers={"Cookie": begins.rstrip(";")}):
        assert cookie.sent() == "v"


def test_no_other_place_sets_or_reads_one() -> None:
    ours = [path for path in (ROOT / "webhooks").rglob("*.py") if path.name != "cookies.py"]
    assert [
        path.name for path in ours if re.search(r"set_cookie|delete_cookie|request\.cookies", path.read_text())
    ] == []
