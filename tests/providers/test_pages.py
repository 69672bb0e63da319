"""Pages and fields of each vendor's result, as the vendors' documents have them, and of results that make no sense."""

from __future__ import annotations

import gzip
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskbridge.layout import Box, DocumentField, DocumentPage
from taskbridge.models import TaskResult
from taskbridge.provider import Provider, Request, Response
from taskbridge_cloudconvert import CloudConvert, CloudConvertSettings
from taskbridge_expertai_extract import ExpertAiExtract, ExpertAiExtractSettings
from taskbridge_scan_documents import ScanDocuments, ScanDocumentsSettings
from taskbridge_smartdocumentor import SmartDocumentor, SmartDocumentorSettings

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]
Get = Callable[[Provider[Any], str, Any], TaskResult]

CLOUDCONVERT = CloudConvert(CloudConvertSettings.model_validate({"api_key": "k"}), "c")
SCAN = ScanDocuments(ScanDocumentsSettings.model_validate({"api_key": "k"}), "c")
SMART = SmartDocumentor(SmartDocumentorSettings.model_validate({"access_token": "t"}), "c")
EXPERT = ExpertAiExtract(ExpertAiExtractSettings.model_validate({"access_token": "t"}), "c")
GOLDEN = Path(__file__).parents[1] / "golden"


def respond_with(body: object) -> Response:
    return Response(200, {}, json.dumps(body).encode())


@pytest.fixture
def result_of(drive: Drive) -> Get:
    """The result of a completed task with this result of the vendor's."""

    def get(provider: Provider[Any], task_id: str, outcome: Any) -> TaskResult:
        if provider is SMART:
            status = {"taskId": int(task_id), "taskStatusText": "Processed"}
            task, _ = drive(provider.get(task_id), respond_with(status))
            result, _ = drive(provider.result(task), respond_with(outcome))
        else:
            state = {"state": "SUCCESS"} if provider is EXPERT else {"id": task_id, "status": "completed"}
            task, _ = drive(provider.get(task_id), respond_with({**state, "result": outcome}))
            result, _ = drive(provider.result(task))
        assert isinstance(result, TaskResult)
        return result

    return get


def words(*records: tuple[str, int, tuple[int, int, int, int]]) -> str:
    packed = b"\0\0\0\0".join(text.encode() + b"\0" + struct.pack("<5I", item, *box) for text, item, box in records)
    return b64encode(gzip.compress(packed)).decode()


def item(key: int, kind: str, box: Any = None, parent: int | None = 1, page: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": key, "type": kind, "page": page, "parent": parent, "bbox": box, **more}


ROOT = item(1, "page", [0, 0, 1000, 500], None, children=[2, 3, 4])


def test_expertai_extract_as_its_client_has_it(result_of: Get) -> None:
    body = json.loads((GOLDEN / "expertai-extract" / "success.json").read_text())["response"]["body"]
    (page,) = result_of(EXPERT, "a", body["result"]).pages
    assert (page.number, page.width, page.height, page.unit, page.dpi) == (1, 850, 1100, "pixel", 100)
    assert (page.rotation, page.lines, page.tables) == (None, (), ())
    (block,) = page.blocks
    assert (block.text, block.kind, block.confidence) == ("test", "text", None)
    assert block.box == Box(left=100 / 850, top=100 / 1100, right=125 / 850, bottom=114 / 1100)
    assert block.raw == body["result"]["layout"][1]
    (word,) = page.words
    assert (word.text, word.raw) == ("test", {"text": "test", "element": 2, "box": (100, 101, 124, 114)})
    assert word.box == Box(left=100 / 850, top=101 / 1100, right=124 / 850, bottom=114 / 1100)
    assert page.raw == body["result"]["layout"][0]


def test_expertai_extract_kinds_and_tables(result_of: Get) -> None:
    cells = [
        item(10, "cell", [0, 0, 500, 50], 4, content="Item\n", row=1, column=1, isHEad=True, span=[2, 1]),
        item(11, "cell", [0, 50, 500, 100], 12, content="Paper", row=3, column=1, isHead=False, span=None),
        item(13, "cell", [0, 0, 1, 1], 99, content="an orphan", row="3", column=None),
    ]
    layout = [
        ROOT,
        item(2, "header", [0, 0, 10, 10], content="H"),
        item(3, "title", [0, 0, 10, 10], content="T"),
        item(4, "table", [0, 0, 500, 100], children=[10, 12]),
        item(12, "row", None, 4, children=[11]),  # a type that no source names
        *cells,
        item(5, "text", [0, 0, 10, 10], content="X"),
        item(6, "footer", [0, 0, 10, 10], content="F"),
        item(7, "stamp", [0, 0, 10, 10], content="S"),
    ]
    (page,) = result_of(EXPERT, "a", {"layout": layout}).pages
    assert [(block.kind, block.text) for block in page.blocks] == [
        ("header", "H"),
        ("title", "T"),
        ("table", None),
        (None, "an orphan"),
        ("text", "X"),
        ("footer", "F"),
        (None, "S"),
    ]
    (table,) = page.tables
    assert [(c.text, c.row, c.column, c.row_span, c.column_span, c.is_header, c.raw) for c in table.cells] == [
        ("Item", 0, 0, 1, 2, True, cells[0]),  # rows and columns count from the first that has a cell
        ("Paper", 2, 0, None, None, False, cells[1]),
    ]
    assert table.cells[1].box == Box(left=0, top=0.1, right=0.5, bottom=0.2)


def test_expertai_extract_fills_a_page_as_far_as_it_can_be_read(result_of: Get) -> None:
    loop = [item(8, "cell", None, 9), item(9, "group", None, 8)]
    outcome = {
        "layout": [None, "x", item(2, "text", [0, 0, "a", 1], page=2, content=7), {}, item(3, "text", page="1"), *loop],
        "words": ["not base64", words(("a", 1, (0, 0, 1, 1)), ("b", 1, (1, 0, 2, 1))), None],
    }
    first, second, third = result_of(EXPERT, "a", outcome).pages
    assert (first.number, first.width, first.unit, first.words) == (1, None, None, ())
    assert [block.raw["id"] for block in first.blocks] == [8, 9]
    assert [(block.text, block.box) for block in second.blocks] == [(None, None)]
    assert [(word.text, word.box) for word in second.words] == [("a", None), ("b", None)]  # the page has no size
    assert third == DocumentPage(number=3)


def test_smartdocumentor_has_a_block_and_a_field_for_each_entity(result_of: Get) -> None:
    one = {"type": "Total", "category": "c", "pageNumber": 2, "chunkNumber": 1, "customFormValues": "string"}
    two, three = {"type": "QrCode", "pageNumber": 1, "qrCode": {"boundingBox": {"left": 0}}}, {"pageNumber": "1"}
    result = result_of(
        SMART, "44", {"taskId": 44, "chunks": [{"entities": [one, None, two]}, {"entities": [three]}, 7]}
    )
    assert [page.number for page in result.pages] == [1, 2]
    assert [block.raw for page in result.pages for block in page.blocks] == [two, one]
    assert result.fields == (
        DocumentField(name="Total", page=2),
        DocumentField(name="QrCode", page=1),
        DocumentField(),
    )
    assert [field.raw for field in result.fields] == [one, two, three]
    assert result.text is None
    assert result_of(SMART, "44", {"taskId": 44}).fields == ()


def test_scan_documents_json_is_a_field_for_each_value(result_of: Get) -> None:
    data = {"seller": {"name": "Shop"}, "total": 12.5, "paid": None, "lines": [{"n": 1}, {"n": 2}], "notes": []}
    result = result_of(SCAN, "task_1", {"format": "json", "content": json.dumps(data)})
    assert [(field.name, field.text, field.value) for field in result.fields] == [
        ("seller.name", "Shop", "Shop"),
        ("total", None, 12.5),
        ("paid", None, None),
        ("lines[0].n", None, 1),
        ("lines[1].n", None, 2),
        ("notes", None, []),
    ]
    assert (len(result.pages), result.data) == (0, data)
    assert result_of(SCAN, "task_1", {"format": "json", "content": "no json"}).fields == ()
    assert result_of(SCAN, "task_1", {"format": "plain", "content": "7"}).fields == ()
    deep = {"a" * 300: {"b": {"c": 1}}}
    (field,) = result_of(SCAN, "task_1", {"format": "json", "content": json.dumps(deep)}).fields
    assert (field.name, field.value) == ("a" * 300, {"b": {"c": 1}})


def test_scan_documents_detects_documents_without_the_size_of_the_photo(result_of: Get) -> None:
    found: dict[str, Any] = {
        "bounding_box": {"left": 1, "top": 2, "width": 3, "height": 4},
        "vertices": [],
        "file_id": "file_1",
    }
    (page,) = result_of(SCAN, "task_1", {"documents": [found, 7]}).pages
    assert [(block.kind, block.text, block.box, block.raw) for block in page.blocks] == [
        ("document", None, None, found)
    ]
    assert (page.number, page.width, page.height) == (1, None, None)


@pytest.mark.parametrize(("name", "has_text"), [("a.txt", True), ("a.md", True), ("a.HTML", True), ("a.docx", False)])
def test_cloudconvert_gets_a_text_that_is_a_file(drive: Drive, respond: Respond, name: str, *, has_text: bool) -> None:
    file = {"filename": name, "url": f"https://storage.test/{name}"}
    export = {"id": "e", "operation": "export/url", "status": "finished", "result": {"files": [file]}}
    text = {"id": "t", "name": "extract-text", "operation": "convert", "status": "finished"}
    body = {"data": {"id": "x441E6HMhG", "status": "finished", "tasks": [text, export]}}
    job, _ = drive(CLOUDCONVERT.get("job/x441E6HMhG"), respond(200, body))
    if has_text:
        result, requests = drive(CLOUDCONVERT.result(job), respond(200, b"# Total"))
        assert (requests[0].url, requests[0].external) == (file["url"], True)
    else:
        result, _ = drive(CLOUDCONVERT.result(job))
    assert (result.text, len(result.pages), len(result.fields)) == ("# Total" if has_text else None, 0, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["layout", "words", "id", "type", "page", "parent", "children", "bbox", "content", "row", "span"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(0, 5) | JSON,
        "parent": st.integers(0, 5) | JSON,
        "type": st.sampled_from(["page", "table", "cell", "text"]) | JSON,
        "page": st.integers(-1, 2) | JSON,
        "bbox": st.lists(st.integers(0, 9), min_size=4, max_size=4) | JSON,
        "children": JSON,
        "row": st.integers() | JSON,
        "column": st.integers() | JSON,
        "span": JSON,
        "pageNumber": st.integers(0, 2) | JSON,
        "bounding_box": JSON,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(ITEM, max_size=6) | JSON, packed=st.lists(st.binary(max_size=60), max_size=2))
def test_whatever_the_vendor_sends_pages_and_fields_can_be_read(
    result_of: Get, items: Any, packed: list[bytes]
) -> None:
    pages = [b64encode(gzip.compress(each)).decode() for each in packed]
    for provider, outcome in (
        (EXPERT, {"layout": items, "words": pages}),
        (EXPERT, {"layout": items, "words": items}),
        (SMART, {"chunks": [{"entities": items}], "more": items}),
        (SMART, {"chunks": items}),
        (SCAN, {"documents": items}),
        (SCAN, {"format": "json", "content": json.dumps(items)}),
    ):
        result = result_of(provider, "44", outcome)
        assert TaskResult.from_dict(result.to_dict()) == result
