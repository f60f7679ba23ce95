"""What an action asks for goes to its connection's address, or nowhere."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity.errors import BadInput
from pipeline.action import Request
from pipeline.upstream import write

API = "https://api.x.com/of/acme"


@given(st.text(alphabet=st.sampled_from("/.:@?#\\%2eEab1 "), max_size=12), st.booleans())
@example(".evil.com/x", False)
@example("@evil.com/x", False)
@example("v1/x", False)
@example("//evil.com/x", False)
@example("/../globex", False)
@example("/%2e%2E/globex", False)
@example("/x?to=/../y", False)
@example("https://api.x.com/v1/x?after=2", True)
@example("", True)
def test_a_path_that_is_not_refused_stays_below_the_api_address_and_keeps_its_parameters(
    path: str, parameters: bool
) -> None:
    params = {"after": "2"} if parameters else {}
    try:
        written = write(Request(method="GET", path=path, params=params), api_url=API)
    except BadInput:
        return
    url = httpx.URL(written.url)
    assert (url.scheme, url.host, url.port, url.userinfo) == ("https", "api.x.com", None, b"")
    assert url.fragment == ""
    segments = url.path.split("/")  # its percent-encoding undone, as an upstream may do
    assert segments[:3] == ["", "of", "acme"]
    assert not {".", ".."} & set(segments)
    if params:
        assert dict(url.params) == params


@pytest.mark.parametrize("path", ["/v1/x", "/v1/..x", "/v1/.../x", "/.well-known/x", "/v1/a%2F..%2Fb", "/", "/a//b"])
def test_a_path_below_the_api_address_is_taken(path: str) -> None:
    assert write(Request(method="GET", path=path), api_url=API).url == API + path


@pytest.mark.parametrize(
    "path",
    [
        "v1/x",
        ".evil.com/x",
        "//evil.com/x",
        "https://api.x.com/v1/x",
        "/x#1",
        "/..",
        "/v1/../evil",
        "/v1/./x",
        "/v1/%2E%2e/evil",
        "/v1/.%2e?a=1",
    ],
)
def test_a_path_that_would_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadInput, match="begins with one slash") as refused:
        write(Request(method="GET", path=path), api_url=API)
    assert "evil" not in str(refused.value)  # a link that an upstream gave may hold a secret


def test_the_query_is_in_the_path_or_in_the_parameters() -> None:
    assert write(Request(method="GET", path="/x?q=../a"), api_url=API).url == f"{API}/x?q=../a"
    with pytest.raises(BadInput, match=r"no \? beside params"):
        write(Request(method="GET", path="/x?q=a", params={"after": "2"}), api_url=API)


def test_the_api_address_may_be_all_of_it() -> None:
    assert write(Request(method="POST", path=""), api_url=API).url == API
    assert write(Request(method="GET", path="", params={"q": "a"}), api_url=API).url == f"{API}?q=a"


@pytest.mark.parametrize("wrong", [None, True, math.inf, math.nan, ["a"], b"a"])
@pytest.mark.parametrize("where", ["params", "form"])
def test_a_parameter_that_upstreams_would_read_otherwise_is_refused(where: str, wrong: Any) -> None:
    fields: Any = {where: {"good": "1", "state": wrong}}
    with pytest.raises(BadInput, match=f"'state'.*{type(wrong).__name__}.*leave it out"):
        write(Request(method="POST", path="/v1/x", **fields), api_url=API)


def test_texts_and_numbers_are_written_as_they_are() -> None:
    fields: dict[str, str | int | float] = {"limit": 3, "min": 1.5, "name": "a b&c"}
    assert write(Request(method="GET", path="/v1/x", params=fields), api_url=f"{API}/").url == (
        f"{API}/v1/x?limit=3&min=1.5&name=a+b%26c"
    )
    assert write(Request(method="POST", path="/v1/x", form=fields), api_url=API).body == b"limit=3&min=1.5&name=a+b%26c"
