"""A document that the operation does not take is refused before anything is sent to the vendor."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.models import TaskFile
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
PNG = b"\x89PNG\r\n\x1a\n an image"


class NamedStream(io.BytesIO):
    name = "a.pdf"


@pytest.mark.parametrize(
    ("vendor", "operation", "given", "found"),
    [
        ("scan-documents", "extract-text", PDF, "document.pdf is application/pdf; render a PDF first"),
        ("scan-documents", "native:apply-effect", PDF, "application/pdf; render a PDF first"),
        ("scan-documents", "extract-text", NamedStream(PDF), "a.pdf is application/pdf"),
        ("scan-documents", "render", PNG, "document.png is image/png; merge makes a PDF of images"),
        ("scan-documents", "extract-text", TaskFile(id="file_1", media_type="application/pdf"), "application/pdf"),
        ("scan-documents", "extract-text", TaskFile(id="file_1", name="a.pdf"), "a.pdf is application/pdf"),
        ("expertai-extract", "extract-text", PNG, "document.png is image/png"),
        ("expertai-extract", "extract-text", b"GIF89a" + bytes(20), "image/gif"),
    ],
)
def test_a_document_of_another_type_is_refused(
    scripted: Maker, vendor: str, operation: str, given: Any, found: str
) -> None:
    client = scripted(vendor).client
    answer = client.can(operation, given)
    assert not answer
    with pytest.raises(tb.UnsupportedFeature, match=found) as caught:
        client.submit(operation, given)
    assert str(answer) == caught.value.message
    assert isinstance(answer.error, tb.UnsupportedFeature)


def test_the_content_decides_and_the_name_only_where_the_content_is_unknown(scripted: Maker, tmp_path: Path) -> None:
    client = scripted("scan-documents").client
    for name, content, possible in [
        ("image.pdf", PNG, True),
        ("text.png", PDF, False),
        ("unknown.png", b"who knows", True),
        ("unknown.pdf", b"who knows", False),
        ("notes.txt", b"some text", False),
        ("unknown.pdf.gz", b"who knows", True),
        ("nameless", b"who knows", True),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        assert bool(client.can("extract-text", path)) is possible, name
    for content in (bytes(100_001), b"BM", b"x" * 5000):  # such beginnings say nothing
        assert client.can("extract-text", content)
    assert not client.can("extract-text", tmp_path / "missing.pdf")
    assert client.can("extract-text", tmp_path / "missing.png")


def test_can_reads_no_stream_and_sends_nothing(scripted: Maker) -> None:
    harness = scripted("scan-documents")
    stream = io.BytesIO(PNG)
    assert harness.client.can("extract-text", stream)
    assert stream.tell() == 0
    assert harness.transport.requests == []


@pytest.mark.parametrize(
    ("vendor", "operation", "given", "reason"),
    [
        ("scan-documents", "extrac-text", PNG, "did you mean 'extract-text'"),
        ("scan-documents", "extract-text", [PNG, PNG], "takes one document"),
        ("scan-documents", "extract-text", b"", "is empty"),
        ("smartdocumentor", "extract-text", PDF, "given as bytes"),
        ("expertai-extract", "native:anything", PDF, "its one operation is layout-document-async"),
        ("cloudconvert", "convert", TaskFile(id="file_1"), "known by an id only"),
    ],
)
def test_can_says_what_submit_would_say(scripted: Maker, vendor: str, operation: str, given: Any, reason: str) -> None:
    client = scripted(vendor).client
    answer = client.can(operation, given)
    assert reason in str(answer)
    with pytest.raises((tb.UnsupportedFeature, tb.InvalidInput), match=reason):
        client.submit(operation, given)


def test_a_document_behind_a_url_is_refused_by_its_content_once_it_is_fetched(
    own_vendors: Emulator, both: Maker, documents: Any
) -> None:
    documents.pages["/image"] = (200, {}, PDF)
    with pytest.raises(tb.UnsupportedFeature, match="image is application/pdf; render a PDF first"):
        both("scan-documents").submit("extract-text", f"{documents.url}/image")
    assert own_vendors.requests == []
