"""Invalid input is refused before anything is sent."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._engine.inputs import TemporaryFiles
from taskbridge.models import TaskFile
from taskbridge.provider.http import Request, Response
from taskbridge.provider.submission import safe_name

Maker = Callable[..., Any]

TAKES_FILES = ("cloudconvert", "scan-documents", "expertai-extract")
VENDORS = (*TAKES_FILES, "smartdocumentor")
PDF = b"%PDF-1.4 a document"
PNG = b"\x89PNG\r\n\x1a\n an image"


@pytest.fixture(params=TAKES_FILES)
def unsent(request: pytest.FixtureRequest, scripted: Maker) -> Any:
    """A client that must not send anything."""
    return scripted(request.param).client


class Unreadable(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:  # noqa: ARG002  # the name in the base class
        raise OSError(5, "the disk is broken", "somewhere")


def test_a_missing_file_is_pythons_own_error(unsent: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unsent.submit("extract-text", tmp_path / "none.pdf")


def test_a_directory_is_pythons_own_error(unsent: Any, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        unsent.submit("extract-text", str(tmp_path))


def test_a_file_that_may_not_be_read_is_pythons_own_error(
    unsent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.pdf"
    path.write_bytes(PDF)

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", locked)  # root may read everything
    with pytest.raises(PermissionError):
        unsent.submit("extract-text", path)


def test_a_stream_that_breaks_is_pythons_own_error(unsent: Any) -> None:
    with pytest.raises(OSError, match="disk is broken"):
        unsent.submit("extract-text", Unreadable())


def test_an_empty_document_is_refused(unsent: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.pdf"
    path.touch()
    read = io.BytesIO(PDF)
    read.read()
    for given in (path, b"", io.BytesIO(), read):
        with pytest.raises(tb.InvalidInput, match="is empty"):
            unsent.submit("extract-text", given)


def test_a_named_pipe_does_not_hang(unsent: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pdf"
    os.mkfifo(pipe)
    with pytest.raises(tb.InvalidInput, match="no regular file"):
        unsent.submit("extract-text", pipe)


def test_a_text_stream_is_refused(unsent: Any) -> None:
    with pytest.raises(tb.InvalidInput, match='mode "rb"'):
        unsent.submit("extract-text", io.StringIO("text"))


@pytest.mark.parametrize("given", [7, {"a": 1}, object()])
def test_an_object_of_the_wrong_type_is_refused(unsent: Any, given: Any) -> None:
    with pytest.raises(tb.InvalidInput, match="a document is a path"):
        unsent.submit("extract-text", given)


@pytest.mark.parametrize("url", ["ftp://example.com/a.pdf", "file:///etc/passwd", "gopher://x/", "https://"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_url_of_another_scheme_is_refused(vendor: str, url: str, scripted: Maker) -> None:
    with pytest.raises(tb.InvalidInput, match="https://"):
        scripted(vendor).client.submit("extract-text", url)


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_unknown_operation_suggests_the_nearest(vendor: str, scripted: Maker) -> None:
    client = scripted(vendor).client
    with pytest.raises(tb.UnsupportedFeature, match="did you mean 'extract-text'"):
        client.submit("extract_text", "https://example.com/a.pdf")
    with pytest.raises(tb.UnsupportedFeature, match="name an operation"):
        client.submit(None, "https://example.com/a.pdf")


@pytest.mark.parametrize("word", ["../status", "A B", "x?y", "native:"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_native_operation_cannot_leave_its_path(vendor: str, word: str, scripted: Maker) -> None:
    with pytest.raises(tb.UnsupportedFeature):
        scripted(vendor).client.submit(f"native:{word}", None)


@pytest.mark.parametrize("options", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}, {"a": b"bytes"}])
def test_options_must_be_json_serializable(unsent: Any, options: dict[str, Any]) -> None:
    with pytest.raises(tb.InvalidInput, match="options must be what JSON can hold"):
        unsent.submit("extract-text", PDF, options=options)


@pytest.mark.parametrize("vendor", ["scan-documents", "expertai-extract"])
def test_an_external_id_is_refused_where_the_vendor_does_not_store_it(vendor: str, scripted: Maker) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="cannot keep an external_id"):
        scripted(vendor).client.submit("extract-text", PDF, external_id="INV-7")


@pytest.mark.parametrize("vendor", ["smartdocumentor", "expertai-extract"])
def test_a_callback_url_is_refused_where_the_vendor_does_not_call_it(vendor: str, scripted: Maker) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="cannot call a callback_url"):
        scripted(vendor).client.submit("extract-text", "https://example.com/a", callback_url="https://example.com/")


def test_an_invalid_callback_url_is_refused(scripted: Maker) -> None:
    with pytest.raises(tb.InvalidInput, match="callback_url"):
        scripted("cloudconvert").client.submit("extract-text", PDF, callback_url="mailto:a@example.com")


@pytest.mark.parametrize("external_id", ["", "a\nb", "x" * 513, 7])
def test_an_external_id_must_be_printable(scripted: Maker, external_id: Any) -> None:
    with pytest.raises(tb.InvalidInput, match="external_id"):
        scripted("cloudconvert").client.submit("extract-text", PDF, external_id=external_id)


@pytest.mark.parametrize("vendor", ["scan-documents", "expertai-extract"])
def test_a_document_over_the_stated_limit_is_refused(vendor: str, scripted: Maker, tmp_path: Path) -> None:
    path = tmp_path / "huge.pdf"
    with path.open("wb") as file:
        file.truncate(12 << 20)
    client = scripted(vendor).client
    with pytest.raises(tb.InvalidInput, match=rf"of at most {client.capabilities.upload_limit}"):
        client.submit("extract-text", path)


def test_several_documents_are_refused_unless_the_operation_joins_them(unsent: Any) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="takes one document"):
        unsent.submit("extract-text", [PDF, PDF])


def test_a_file_without_id_and_link_is_refused(scripted: Maker) -> None:
    with pytest.raises(tb.InvalidInput, match="neither an id nor a link"):
        scripted("scan-documents").client.submit("extract-text", TaskFile(name="a.png"))
    with pytest.raises(tb.UnsupportedFeature, match="given as file"):
        scripted("expertai-extract").client.submit("extract-text", TaskFile(id="file_1"))
    with pytest.raises(tb.InvalidInput, match="known by an id only"):
        scripted("cloudconvert").client.submit("extract-text", TaskFile(id="file_1"))


def test_an_option_that_the_vendor_rejects_keeps_its_field_errors(scripted: Maker) -> None:
    errors = {"target_format": ["must be one of image/png"]}
    body = {"type": "https://scan-documents.com/docs/errors/validation-error", "status": 422, "errors": errors}
    refused = Response(422, {"content-type": "application/problem+json"}, json.dumps(body).encode())
    harness = scripted("scan-documents", Response(200, {}, b'{"id": "file_1"}'), refused)
    with pytest.raises(tb.InvalidRequest, match="target_format: must be one of image/png") as caught:
        harness.client.submit("convert", PNG, options={"target_format": "gif"})
    assert caught.value.raw["errors"] == errors
    assert caught.value.recovery_token["files"] == ["file_1"]


def test_a_stream_is_read_to_its_end_once_and_can_be_sent_twice(scripted: Maker) -> None:
    bodies: list[Any] = []

    def vendor(request: Request) -> Response:
        bodies.append(request.body.content.read_bytes())  # type: ignore[union-attr]
        return Response(429, {}, b"") if len(bodies) == 1 else Response(202, {}, b'{"taskId": "t-1"}')

    stream = io.BytesIO(b"----" + PDF)
    stream.seek(4)
    scripted("expertai-extract", vendor).client.submit("extract-text", stream)
    assert bodies == [PDF, PDF]


def test_temporary_files_are_removed() -> None:
    with TemporaryFiles() as files:
        path = files.save(io.BytesIO(PDF))
        assert path.read_bytes() == PDF
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.pdf", "a.pdf"),
        ('a"b\r\nX: y.pdf', 'a"b__X: y.pdf'),
        ("Rechnung für März.pdf", "Rechnung für März.pdf"),
        ("..", "document"),
        ("", "document"),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
    ],
)
def test_a_document_name_is_reduced_to_a_plain_file_name(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_name_with_quotes_is_sent_as_one_field(scripted: Maker) -> None:
    harness = scripted("scan-documents", Response(200, {}, b'{"id": "file_1"}'), Response(422, {}, b"{}"))
    with pytest.raises(tb.InvalidRequest):
        harness.client.submit("extract-text", PNG, name='../a"b\r\n.pdf')
    assert harness.transport.requests[0].body.filename == 'a"b__.pdf'
