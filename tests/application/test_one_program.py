"""One program, four vendors: only one line of the configuration changes, and what a vendor cannot do is never sent."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import Emulator
from taskbridge.testing.conformance.capabilities import EXAMPLES
from taskbridge.testing.conformance.servers import local_server


def docx() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("[Content_Types].xml", "_rels/.rels", "word/document.xml"):
            archive.writestr(name, "<a/>")
    return file.getvalue()


DOCUMENTS: Final = {
    "report.pdf": EXAMPLES["application/pdf"],
    "page.png": EXAMPLES["image/png"],
    "letter.docx": docx(),
}

# What the program does: the operation, its document and its neutral options.
WORK: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "text of a PDF": ("extract-text", "report.pdf", {}),
    "text of an image": ("extract-text", "page.png", {}),
    "DOCX to PDF": ("convert", "letter.docx", {"to": "pdf"}),
}

# Vendor -> what it can do of that; the program's documents are given by URL.
CAN: Final = {
    "cloudconvert": {"text of a PDF", "text of an image", "DOCX to PDF"},
    "expertai-extract": {"text of a PDF"},
    "scan-documents": {"text of an image"},
    "smartdocumentor": {"text of a PDF", "text of an image"},
}


@pytest.fixture
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The documents by name: as URLs or as paths."""
    if request.param == "path":
        for name, content in DOCUMENTS.items():
            (tmp_path / name).write_bytes(content)
        yield {name: str(tmp_path / name) for name in DOCUMENTS}
        return
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(local_server(content)) for name, content in DOCUMENTS.items()}
        yield {name: f"{host.url}/{name}" for name, host in hosts.items()}


@pytest.fixture
def config(own_vendors: Emulator, tmp_path: Path) -> Path:
    """A configuration of all vendors; the caller adds the line that chooses one."""
    path = tmp_path / "taskbridge.toml"
    tables = [
        "\n".join(
            [
                f"[connections.{name}]",
                f'provider = "{name}"',
                "allow_private = true",
                "poll.interval = 0.02",
                *(f'{key} = "{value}"' for key, value in own_vendors.settings(name).items()),
            ]
        )
        for name in CAN
    ]
    path.write_text("\n\n".join(tables) + "\n")
    return path


def choose(config: Path, vendor: str) -> None:
    config.write_text(f'default = "{vendor}"\n{config.read_text()}')


def work(config: Path, operation: str, document: str, options: Any) -> tuple[tb.Support, tb.TaskResult]:
    """The program."""
    with tb.connect(config=config) as client:
        answer = client.can(operation, document, **options)
        task = client.submit(operation, document, **options)
        return answer, client.result(task, timeout=30)


async def work_async(config: Path, operation: str, document: str, options: Any) -> tuple[tb.Support, tb.TaskResult]:
    """The same program with asyncio."""
    async with aio.connect(config=config) as client:
        answer = client.can(operation, document, **options)
        task = await client.submit(operation, document, **options)
        return answer, await client.result(task, timeout=30)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("what", WORK)
@pytest.mark.parametrize("vendor", CAN)
@pytest.mark.parametrize("inputs", ["url", "path"], indirect=True)
def test_a_program_runs_unchanged_and_what_a_vendor_cannot_do_is_refused_before_anything_is_sent(
    own_vendors: Emulator,
    config: Path,
    inputs: dict[str, str],
    vendor: str,
    what: str,
    *,
    asynchronous: bool,
) -> None:
    choose(config, vendor)
    operation, name, options = WORK[what]
    document = inputs[name]

    def run() -> tuple[tb.Support, tb.TaskResult]:
        if asynchronous:
            return asyncio.run(work_async(config, operation, document, options))
        return work(config, operation, document, options)

    if what in CAN[vendor] and (vendor != "smartdocumentor" or "://" in document):
        answer, result = run()
        assert (bool(answer), str(answer), answer.error) == (True, "", None)
        assert result.text or result.files or result.data
        return
    with tb.connect(config=config) as client:
        answer = client.can(operation, document, **options)
    with pytest.raises(tb.UnsupportedFeature) as caught:
        run()
    assert not answer
    assert str(answer) == caught.value.message
    assert own_vendors.requests == []
