"""What the upstreams publish is found and can be read."""

import json
from pathlib import Path

import pytest
from graphql import GraphQLSchema

from tests.servers import shared_data as published


def test_every_document_is_there(linear_schema: GraphQLSchema) -> None:
    payloads = published.github_payloads()
    assert payloads["pull_request"]
    assert {"ping", "push", "installation", "github_app_authorization"} <= payloads.keys()
    for document in (published.github_webhook_schema(), published.github_rest(), published.slack_openapi()):
        assert json.loads(document.read_text())
    for examples in (published.slack_payloads(), published.linear_payloads(), published.security_events()):
        assert all(isinstance(json.loads(example.read_text()), dict) for example in examples)
        assert examples
    assert linear_schema.get_type("Issue")
    assert json.loads(published.signature_vectors().read_text())


def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASWHOM_SHARED_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="nowhere"):
        published.folder()


def test_without_the_folder_github_is_read_from_its_packages_and_the_others_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ASWHOM_SHARED_DATA", raising=False)
    monkeypatch.setattr(published, "_REPOSITORY", tmp_path / "somewhere" / "aswhom")
    examples = published.github_examples()
    assert len(examples) > 100
    pings = [json.loads(example.body) for example in examples if example.event == "ping"]
    assert pings == published.github_payloads()["ping"] != []
    for document in (published.github_webhook_schema(), published.github_rest()):
        assert json.loads(document.read_text())
    for only_there in (published.linear_schema, published.slack_openapi, published.security_events):
        with pytest.raises(pytest.skip.Exception, match="NOT CHECKED"):
            only_there()
