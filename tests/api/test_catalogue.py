"""The catalogue: schemas that hold, in the forms that models take, and the document that describes the API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from identity.agents.api_keys import Role
from identity.secret import Secret
from pipeline.action import Result
from pipeline.authoring import tools
from pipeline.authoring.registry import Registry
from tasks import actions
from tests.api.agents_api import AgentsApi
from tests.docs.pages import DOCS
from tests.tasks.sound_action import Make
from webhooks.api.app import document
from webhooks.api.job_models import Form
from webhooks.api.other_endpoints import BESIDE, written

BARE = frozenset(map(written, BESIDE))  # addresses with which no agent shows its key
TOOLS = Registry.load([f"tasks.actions.{module.name}" for module in iter_modules(actions.__path__)]).tools


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_schemas_that_are_schemas(name: str) -> None:
    told = tools.described(TOOLS[name])
    for schema in (told["parameters"], told["result"]):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert told["description"]
    assert not Draft202012Validator(told["parameters"]).is_valid({"no such parameter": 1})


def parameters_of(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in schema.get("properties", {}).items():
        yield name, one
        for each in (one, one.get("items", {})):
            yield from parameters_of(root["$defs"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each, root)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_has_no_parameter_of_which_nothing_is_said(name: str) -> None:
    schema = tools.described(TOOLS[name])["parameters"]
    assert [one for one, of in parameters_of(schema, schema) if not of.get("description")] == []


def test_what_overwrites_is_said_to_and_what_adds_alone_is_not() -> None:
    hints = {name: tools.for_mcp(action)["annotations"]["destructiveHint"] for name, action in TOOLS.items()}
    assert {name for name, destroys in hints.items() if destroys} == {
        "github.UpdateIssue",
        "invoices.PayInvoice",
        "invoices.RefundInvoice",
        "linear.AttachUrl",
        "linear.MoveIssue",
        "salesforce.UpdateOpportunity",
        "stripe.AnnotateSubscription",
    }


@pytest.mark.parametrize("name", TOOLS)
def test_what_a_tool_returns_is_what_its_schemas_promise(name: str) -> None:
    action = TOOLS[name]
    promised = [tools.described(action)["result"], tools.for_mcp(action)["outputSchema"]]

    @settings(max_examples=10, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def returned(data: st.DataObject) -> None:
        try:
            result = data.draw(st.from_type(action.result))
        except ValidationError:  # a number that is none: no answer has one
            reject()
        for schema in promised:
            Draft202012Validator(schema).validate(result.model_dump(mode="json"))

    returned()


class ByItsName(BaseModel):
    number: int = Field(alias="Number")


class ByItsAlias(Result):
    model_config = ConfigDict(serialize_by_alias=True)

    of: ByItsName = Field(alias="Of")


class Both(Result):
    inner: ByItsAlias = Field(alias="Inner")
    more: ByItsName = Field(alias="More")


class ReturnsBoth(Make):
    result = Both


def test_what_is_stored_by_its_alias_is_promised_by_it() -> None:
    number = {"Number": 1}
    stored = Both.model_validate({"Inner": {"Of": number}, "More": number}).model_dump(mode="json")
    assert stored == {"inner": {"Of": {"number": 1}}, "more": {"number": 1}}
    promised = tools.described(ReturnsBoth)["result"]
    Draft202012Validator(promised).validate(stored)
    assert promised["required"] == ["inner", "more"]
    assert promised["$defs"]["ByItsAlias"]["required"] == ["Of"]


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_the_forms_that_models_take(name: str) -> None:
    action = TOOLS[name]
    openai = tools.for_openai(action)["function"]
    anthropic, mcp, told = tools.for_anthropic(action), tools.for_mcp(action), tools.described(action)
    # Responses have no `function` within, and are strict unless told otherwise: these schemas have fields left out.
    assert tools.for_openai_responses(action) == {"type": "function", "strict": False, **openai}
    assert {openai["name"], anthropic["name"], mcp["name"]} == {name.replace(".", "__")}
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", openai["name"])
    assert openai["parameters"] == anthropic["input_schema"] == mcp["inputSchema"] == told["parameters"]
    assert told["parameters"].keys() >= {"type", "properties"}
    assert "description" not in told["parameters"]  # it stands beside it
    assert not any("title" in of for _, of in parameters_of(told["parameters"], told["parameters"]))
    assert mcp["annotations"]["readOnlyHint"] is (action.facts.effect == "read")


@pytest.mark.parametrize("form", list(Form))
def test_the_catalogue_comes_in_each_form(sqlite_api: AgentsApi, form: str) -> None:
    answer = sqlite_api.ask("GET", f"/v1/tools?format={form}")
    assert answer.status_code == 200
    (tool,) = answer.json["tools"]
    assert "text" in json.dumps(tool)
    assert sqlite_api.ask("GET", "/v1/tools?format=other").status_code == 422


def test_a_catalogue_that_is_as_it_was_is_not_sent_again(sqlite_api: AgentsApi) -> None:
    first = sqlite_api.ask("GET", "/v1/tools")
    assert first.headers["Cache-Control"] == "private, no-cache"

    def again(path: str, key: Secret | None = None) -> Any:
        return sqlite_api.ask("GET", path, key, headers={"If-None-Match": first.headers["ETag"]})

    same = again("/v1/tools")
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert again("/v1/tools?format=mcp").status_code == 200
    assert again("/v1/tools", sqlite_api.key(tools=["linear.*"])).status_code == 200


def test_a_catalogue_is_sent_whatever_else_a_request_for_it_must_match(sqlite_api: AgentsApi) -> None:
    answer = sqlite_api.ask("GET", "/v1/tools", headers={"If-Match": '"x"'})
    assert (answer.status_code, len(answer.json["tools"])) == (200, 1)


def test_a_tool_is_found_by_the_name_a_model_calls_it(sqlite_api: AgentsApi) -> None:
    plain, models = (sqlite_api.ask("GET", f"/v1/tools/{name}") for name in ("github.Say", "github__Say"))
    assert plain.json == models.json
    assert plain.json["name"] == "github.Say"
    assert sqlite_api.ask("GET", "/v1/tools/github.Nothing").status_code == 404


@pytest.mark.parametrize("form", list(Form))
def test_one_tool_comes_in_each_form_as_in_the_catalogue(sqlite_api: AgentsApi, form: str) -> None:
    (listed,) = sqlite_api.ask("GET", f"/v1/tools?format={form}").json["tools"]
    assert sqlite_api.ask("GET", f"/v1/tools/github.Say?format={form}").json == listed


def made(api: AgentsApi) -> dict[str, Any]:
    return json.loads(json.dumps(document(api.app)))  # type: ignore[no-any-return,arg-type]


def test_the_document_that_is_kept_is_the_one_that_is_served(sqlite_api: AgentsApi, tmp_path: Path) -> None:
    served = sqlite_api.client.get("/v1/openapi.json")
    assert served.status_code == 200
    kept = DOCS / "reference" / "openapi.json"
    text = json.dumps(served.json, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if not kept.exists() or kept.read_text(encoding="utf-8") != text:
        new = tmp_path / kept.name
        new.write_text(text, encoding="utf-8")
        pytest.fail(f"the API has changed. If that was meant: cp {new} {kept}", pytrace=False)


def test_the_document_is_openapi_3_1_and_tells_of_every_operation(sqlite_api: AgentsApi) -> None:
    spec = made(sqlite_api)
    assert spec["openapi"].startswith("3.1")
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            if path in BARE:
                by_a_key = operation["security"] == [{"key": []}]
                assert by_a_key or operation["security"] in ([], [{"audience": []}])
                assert by_a_key == (path == "/v1/mcp")
            else:
                assert operation["security"] == [{"key": []}]
                assert {"401", "413", "500"} <= operation["responses"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(spec)))
    assert named <= spec["components"]["schemas"].keys()
    for schema in spec["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


#: What any answer of HTTP's may have.
UNTOLD = frozenset({"Date", "Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options"})


def test_every_header_of_an_answer_is_described(sqlite_api: AgentsApi) -> None:
    api, paths = sqlite_api, made(sqlite_api)["paths"]
    reader, admin = api.keys["acme", Role.READER], api.keys["acme", Role.ADMIN]
    revoke = {"kind": "user", "key": "ada", "reason": "she left"}
    as_it_was = {"If-None-Match": api.ask("GET", "/v1/tools").headers.get("ETag", "")}
    answers = {
        ("get", "/v1/tools"): [
            api.ask("GET", "/v1/tools"),
            api.ask("GET", "/v1/tools", headers=as_it_was),
            api.client.get("/v1/tools"),
        ],
        ("post", "/v1/tools/{tool}/execute"): [api.execute(), api.execute(key=reader), api.execute("nobody")],
        ("post", "/v1/revocations"): [api.ask("POST", "/v1/revocations", admin, json=revoke)],
    }
    answers["get", "/v1/jobs/{id}"] = [api.ask("GET", api.execute().headers["Location"])]
    api.limit(0)
    answers["get", "/v1/jobs"] = [api.ask("GET", "/v1/jobs")]
    told = set()
    for (method, path), each in answers.items():
        for answer in each:
            described = paths[path][method]["responses"][str(answer.status_code)]["headers"].keys()
            sent = set(answer.headers.keys()) - UNTOLD
            assert sent <= described
            told |= sent
    assert told == made(api)["components"]["headers"].keys()
