"""Neutral options become the vendor's own; what a vendor cannot do is refused before anything is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.provider.http import Request, Response
from taskbridge.provider.options import normalize_option
from taskbridge.testing import Emulator
from taskbridge.testing.conformance.samples import connection_of

Maker = Callable[..., Any]

PDF = b"%PDF-1.4 a document"
PNG = b"\x89PNG\r\n\x1a\n an image"
URL = "https://files.example.com/talk.mp3"
INPUTS: dict[tuple[str, str], Any] = {
    ("scan-documents", "convert"): PNG,
    ("scan-documents", "extract-text"): PNG,
    ("smartdocumentor", "extract-text"): URL,
}


def answer(request: Request) -> Response:
    if request.url.endswith("/files"):
        return Response(200, {}, b'{"id": "file_1"}')
    return Response(500, {}, b"{}")


def sent_options(scripted: Maker, vendor: str, operation: str, neutral: dict[str, Any], **settings: Any) -> Any:
    """The vendor's own options in the submission that is sent."""
    options = settings.pop("options", None)
    harness = scripted(vendor, answer, **settings)
    with pytest.raises(tb.TaskbridgeError):
        harness.client.submit(operation, INPUTS.get((vendor, operation), PDF), options=options, **neutral)
    body = json.loads(harness.transport.requests[-1].body)
    if vendor == "cloudconvert":
        body = body["tasks"][operation]
    return {key: value for key, value in body.items() if key not in ("input", "operation", "externalId")}


@pytest.mark.parametrize(
    ("vendor", "operation", "neutral", "own"),
    [
        ("cloudconvert", "convert", {"to": "pdf"}, {"output_format": "pdf"}),
        ("cloudconvert", "convert", {"to": ".JPEG"}, {"output_format": "jpg"}),
        ("cloudconvert", "extract-text", {"text_format": "plain"}, {"output_format": "txt"}),
        ("cloudconvert", "render", {}, {"output_format": "png"}),
        ("cloudconvert", "render", {"to": "webp", "pages": "1,3-5"}, {"output_format": "webp", "pages": "1,3-5"}),
        ("cloudconvert", "extract-pages", {"pages": 2}, {"pages": "2"}),
        ("scan-documents", "convert", {"to": "png"}, {"target_format": "image/png"}),
        ("scan-documents", "convert", {"to": "jpg"}, {"target_format": "image/jpeg", "quality": 90}),
        ("scan-documents", "extract-text", {}, {"format": "plain"}),
        ("scan-documents", "extract-text", {"text_format": "markdown"}, {"format": "markdown"}),
        ("scan-documents", "render", {"to": "png", "pages": "2-7", "dpi": 150}, {"pages": "2-7", "dpi": 150}),
        ("scan-documents", "extract-pages", {"pages": "2,3,7"}, {"pages": "2,3,7"}),
        (
            "smartdocumentor",
            "extract-text",
            {"language": "pt-PT"},
            {"context": {"url": URL, "transcriptLanguage": "pt-PT"}},
        ),
    ],
)
def test_a_neutral_option_is_sent_in_the_vendors_own_words(
    scripted: Maker, vendor: str, operation: str, neutral: dict[str, Any], own: dict[str, Any]
) -> None:
    assert sent_options(scripted, vendor, operation, neutral) == own


@pytest.mark.parametrize(
    ("vendor", "operation", "neutral", "message"),
    [
        ("cloudconvert", "extract-text", {"text_format": "html"}, "with text_format=html; text_format is one of plain"),
        ("cloudconvert", "extract-text", {"language": "de"}, "no language for extract-text; it has text_format"),
        ("cloudconvert", "render", {"dpi": 72}, "has no dpi for render; it has to, pages"),
        ("scan-documents", "convert", {"to": "pdf"}, "cannot convert with to=pdf; to is one of png, jpg, webp"),
        ("scan-documents", "render", {"to": "jpg"}, "cannot render with to=jpg; to is one of png"),
        ("expertai-extract", "extract-text", {"text_format": "markdown"}, "text_format is one of plain"),
        ("smartdocumentor", "extract-text", {"text_format": "plain"}, "no text_format for extract-text; it has"),
    ],
)
def test_what_a_vendor_cannot_do_is_refused_and_what_it_can_is_named(
    scripted: Maker, vendor: str, operation: str, neutral: dict[str, Any], message: str
) -> None:
    client = scripted(vendor).client
    with pytest.raises(tb.UnsupportedFeature, match=message):
        client.submit(operation, INPUTS.get((vendor, operation), PDF), **neutral)
    assert not client.can(operation, "no-such-file", **neutral)


@pytest.mark.parametrize(
    ("operation", "neutral", "message"),
    [
        ("convert", {"too": "pdf"}, "no neutral option 'too'; did you mean 'to'"),
        ("convert", {"dpi": 300}, "convert has no option dpi; it has to"),
        ("merge", {"to": "pdf"}, "merge has no option to; it has none"),
        ("native:optimize", {"to": "pdf"}, "native:… takes the vendor's own options only"),
        ("convert", {"to": "a/b"}, "to is the suffix of a file, such as pdf, not 'a/b'"),
        ("convert", {"to": 7}, "to is the suffix of a file"),
        ("render", {"pages": "5-2"}, "pages is page numbers from 1"),
        ("render", {"pages": "0"}, "pages is page numbers from 1"),
        ("extract-text", {"text_format": "rtf"}, "text_format is plain, markdown or html"),
        ("extract-text", {"language": "german!"}, "language is a tag such as de or pt-BR"),
    ],
)
def test_an_option_that_no_vendor_could_do_is_invalid(
    scripted: Maker, operation: str, neutral: dict[str, Any], message: str
) -> None:
    client = scripted("cloudconvert").client
    with pytest.raises(tb.InvalidInput, match=message):
        client.submit(operation, PDF, **neutral)


@pytest.mark.parametrize("dpi", [0, True, "300", 1e3])
def test_dpi_is_a_whole_number(dpi: Any) -> None:
    with pytest.raises(tb.InvalidInput, match="dpi is a whole number"):
        normalize_option("dpi", dpi)


def test_the_vendors_own_options_override_neutral_ones(scripted: Maker) -> None:
    own = sent_options(scripted, "scan-documents", "convert", {"to": "jpg"}, options={"quality": 50})
    assert own == {"target_format": "image/jpeg", "quality": 50}
    context = sent_options(
        scripted, "smartdocumentor", "extract-text", {"language": "pt"}, options={"context": {"key": 1}}
    )
    assert context == {"context": {"url": URL, "transcriptLanguage": "pt", "key": 1}}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_bridge_passes_neutral_options_on(own_vendors: Emulator, *, asynchronous: bool) -> None:
    settings = {**own_vendors.settings("scan-documents"), "poll": {"interval": 0.02}}
    connections = {"scan-documents": connection_of("scan-documents", settings)}

    async def submit() -> tb.Task:
        async with aio.Bridge(connections) as bridge:
            return await bridge.submit("scan-documents", "render", PDF, to="png", dpi=72)

    if asynchronous:
        task = asyncio.run(submit())
    else:
        with tb.Bridge(connections) as bridge:
            task = bridge.submit("scan-documents", "render", PDF, to="png", dpi=72)
    assert task.raw["parameters"]["dpi"] == 72


def test_a_call_overrides_the_configuration_neutral_or_not(scripted: Maker) -> None:
    usual = {"operation": "convert", "to": "jpg"}
    assert sent_options(scripted, "cloudconvert", "convert", {}, submit=usual) == {"output_format": "jpg"}
    assert sent_options(scripted, "cloudconvert", "convert", {"to": "png"}, submit=usual) == {"output_format": "png"}
    own = {"operation": "convert", "options": {"output_format": "docx", "engine": "office"}}
    assert sent_options(scripted, "cloudconvert", "convert", {"to": "pdf"}, submit=own) == {
        "output_format": "pdf",
        "engine": "office",
    }
    assert sent_options(scripted, "cloudconvert", "extract-text", {}, submit=usual) == {"output_format": "txt"}


def test_a_neutral_option_of_the_configuration_is_checked_when_it_is_read() -> None:
    for name, value in [("text_format", "rtf"), ("dpi", 0), ("dpi", "300")]:
        with pytest.raises(tb.ConfigError, match=f"submit.{name}"):
            tb.connect("cloudconvert", api_key="k", submit={"operation": "extract-text", name: value})
