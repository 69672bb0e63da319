"""The vendors' own examples, field by field: ``tests/golden/<provider>/<name>.json``.

Each file has a `source`, the `response`, the `task_id` (and the `flow`, unless it is ``get``), and either `expect` (the
task) or `raises` (the error). Of an object, only the fields in the file are compared; lists are compared whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from taskbridge import errors
from taskbridge.errors import TaskbridgeError
from taskbridge.models import Task
from taskbridge.provider.base import Provider
from taskbridge.provider.http import Request, Response
from taskbridge_cloudconvert import CloudConvert
from taskbridge_expertai_extract import ExpertAiExtract
from taskbridge_scan_documents import ScanDocuments
from taskbridge_smartdocumentor import SmartDocumentor

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("*/*.json"))

PROVIDERS: dict[str, tuple[type[Provider[Any]], dict[str, str]]] = {
    "cloudconvert": (CloudConvert, {"api_key": "k"}),
    "scan-documents": (ScanDocuments, {"api_key": "k"}),
    "smartdocumentor": (SmartDocumentor, {"client_id": "me", "client_secret": "s"}),
    "expertai-extract": (ExpertAiExtract, {"username": "me", "password": "p"}),
}


def body(content: object) -> bytes:
    """The body of a response: empty for null, plain text for a string, otherwise JSON."""
    if content is None:
        return b""
    return content.encode() if isinstance(content, str) else json.dumps(content).encode()


def printable(value: Any) -> Any:
    """A result as JSON."""
    if isinstance(value, Task):
        dump = {k: v for k, v in value.to_dict().items() if k not in {"raw", "subtasks"}}
        return {**dump, "ref": str(value.ref), "subtasks": [printable(each) for each in value.subtasks]}
    credential = {"headers": dict(value.headers), "expires_at": value.expires_at}
    return {**credential, "expires_at": value.expires_at and value.expires_at.isoformat().replace("+00:00", "Z")}


def compare(expected: Any, actual: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert isinstance(actual, dict), where
        for key, value in cast("Any", expected).items():
            assert key in actual, f"{where}.{key}"
            compare(value, actual[key], f"{where}.{key}")
    elif isinstance(expected, list):
        items = cast("Any", expected)
        assert len(items) == len(actual), where
        for place, (value, found) in enumerate(zip(items, actual, strict=True)):
            compare(value, found, f"{where}[{place}]")
    else:
        assert expected == actual, where


def test_every_provider_has_examples() -> None:
    assert {file.parent.name for file in FILES} == set(PROVIDERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_an_example_is_translated_as_expected(drive: Drive, respond: Respond, file: Path) -> None:
    case = json.loads(file.read_bytes())
    kind, settings = PROVIDERS[file.parent.name]
    provider = kind(kind.Settings.model_validate(settings), "golden")
    response = respond(case["response"]["status"], body(case["response"]["body"]))
    flow = getattr(provider, case.get("flow", "get"))(*([case["task_id"]] if case["task_id"] else []))
    if "raises" in case:
        raises = case["raises"]
        with pytest.raises(TaskbridgeError) as caught:
            drive(flow, response)
        assert type(caught.value) is getattr(errors, raises["class"])
        facts = {key: value for key, value in raises.items() if key != "class"}
        assert {key: getattr(caught.value, key) for key in facts} == facts
        return
    result, _ = drive(flow, response)
    compare(case["expect"], printable(result), file.stem)
    if isinstance(result, Task):
        sent = case["response"]["body"]
        assert result.raw == (sent["data"] if file.parent.name == "cloudconvert" else sent)
