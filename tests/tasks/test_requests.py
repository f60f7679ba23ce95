"""What an action asks for goes to its connection's address, or nowhere."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity.errors import BadInput
from pipeline.action import Request
from pipeline.upstream import write

API = "https://api.x.com"


@given(st.text(alphabet=st.sampled_from("/.:@?#\\%ab1 "), max_size=12))
@example(".evil.com/x")
@example("@evil.com/x")
@example("v1/x")
@example("//evil.com/x")
@example("https://api.x.com/v1/x?after=2")
@example("")
def test_a_path_that_is_not_refused_reaches_the_connections_host_and_keeps_its_parameters(path: str) -> None:
    try:
        written = write(Request(method="GET", path=path, params={"after": "2"}), api_url=API)
    except BadInput:
        assert not path.startswith("/") or path.startswith("//") or "?" in path or "#" in path
    else:
        url = httpx.URL(written.url)
        assert (url.scheme, url.host, url.port, url.userinfo) == ("https", "api.x.com", None, b"")
        assert dict(url.params) == {"after": "2"}


@pytest.mark.parametrize(
    "path", ["", "v1/x", ".evil.com/x", "//evil.com/x", "https://api.x.com/v1/x", "/x?a=1", "/x#1"]
)
def test_a_path_that_would_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadInput, match="begins with one slash") as refused:
        write(Request(method="GET", path=path), api_url=API)
    assert "evil" not in str(refused.value)  # a link that an upstream gave may hold a secret


@pytest.mark.parametrize("wrong", [None, True, 1.5, ["a"], b"a"])
@pytest.mark.parametrize("where", ["params", "form"])
def test_a_parameter_that_upstreams_would_read_otherwise_is_refused(where: str, wrong: Any) -> None:
    fields: Any = {where: {"good": "1", "state": wrong}}
    with pytest.raises(BadInput, match=f"'state'.*{type(wrong).__name__}.*leave it out"):
        write(Request(method="POST", path="/v1/x", **fields), api_url=API)


def test_texts_and_whole_numbers_are_written_as_they_are() -> None:
    fields: Any = {"limit": 3, "name": "a b&c"}
    assert write(Request(method="GET", path="/v1/x", params=fields), api_url=f"{API}/").url == (
        "https://api.x.com/v1/x?limit=3&name=a+b%26c"
    )
    assert write(Request(method="POST", path="/v1/x", form=fields), api_url=API).body == b"limit=3&name=a+b%26c"
