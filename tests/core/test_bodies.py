"""Multipart forms, read back by the emulators' reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskbridge._transport.bodies import body_stream
from taskbridge.emulator.helpers import FormPart, from_multipart, multipart_parts
from taskbridge.provider.http import Form, FormFile, Request, Upload

FIELDS = (("target", "pdf"), ("name", "Grüße, \r\n--und mehr"), ("empty", ""))


def sent(body: Form | Upload) -> dict[str, FormPart]:
    made = body_stream(Request("POST", "https://api.example.com/", body=body))
    assert made is not None
    whole = b"".join(made.blocks())
    assert len(whole) == made.length
    return from_multipart(whole, made.headers["Content-Type"])


@pytest.mark.parametrize("fields", [FIELDS, FIELDS[:1], ()], ids=["three", "one", "none"])
def test_a_form_without_a_file_holds_its_fields(fields: tuple[tuple[str, str], ...]) -> None:
    parts = sent(Form(fields))
    assert {name: part.data.decode() for name, part in parts.items()} == dict(fields)
    assert all(part.filename is None for part in parts.values())


def test_a_form_with_a_file_holds_the_same_fields_before_it() -> None:
    parts = sent(Upload(FIELDS, "document", "a.pdf", b"%PDF"))
    assert list(parts) == ["target", "name", "empty", "document"]
    assert {name: parts[name].data.decode() for name, _ in FIELDS} == dict(FIELDS)
    assert parts["document"] == FormPart(b"%PDF", "a.pdf", "application/pdf")


def test_a_form_hides_its_fields_from_repr() -> None:
    assert "secret" not in repr(Form((("password", "secret"),)))


def test_a_form_with_several_files_holds_them_in_order_after_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(bytes(range(256)) * 1000)
    files = (FormFile("files", "a.md", b"# one"), FormFile("files", 'b".pdf', path), FormFile("logo", "c.x", b""))
    made = body_stream(Request("POST", "https://api.example.com/", body=Form(FIELDS, files)))
    assert made is not None
    for _ in range(2):  # it can be sent again
        whole = b"".join(made.blocks())
        assert len(whole) == made.length
        parts = multipart_parts(whole, made.headers["Content-Type"])
        assert [name for name, _ in parts] == ["target", "name", "empty", "files", "files", "logo"]
        assert [part for _, part in parts[3:]] == [
            FormPart(b"# one", "a.md", "text/markdown"),
            FormPart(path.read_bytes(), 'b".pdf', "application/pdf"),
            FormPart(b"", "c.x", "application/octet-stream"),
        ]
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="became shorter"):
        list(made.blocks())
    path.unlink()
    with pytest.raises(FileNotFoundError):
        body_stream(Request("POST", "https://api.example.com/", body=Form((), files)))
