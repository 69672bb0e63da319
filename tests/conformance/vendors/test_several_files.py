"""A vendor that takes several documents in one upload: the flow sends a form with a repeated field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.emulator import Emulator
from taskbridge.provider import Accepts, Body, Document, Form, FormFile, Submission
from taskbridge.testing import ProviderConformance

from .plain import PlainEmulator, PlainProvider

MOST = 3  # documents in one upload


class SeveralProvider(PlainProvider):
    """One request with up to three documents."""

    capabilities = replace(PlainProvider.capabilities, accepts={"read": Accepts(several=True, at_most=MOST)})

    def body(self, submission: Submission) -> Body:
        documents = [each for each in submission.sources if isinstance(each, Document)]
        return Form((), tuple(FormFile("file", each.name, each.content) for each in documents))


class TestSeveralFiles(ProviderConformance):
    provider = SeveralProvider
    emulator_class = PlainEmulator


@pytest.fixture
def vendor() -> Any:
    with Emulator(vendors={"plain": PlainEmulator}, speed=1000) as emulator:
        yield emulator


@pytest.mark.parametrize("transport", ["requests", "curl"])
def test_files_bytes_and_streams_go_into_one_request(vendor: Any, tmp_path: Path, transport: str) -> None:
    path = tmp_path / "b.pdf"
    path.write_bytes(b"%PDF second" * 20_000)
    settings: Mapping[str, Any] = {**vendor.settings("plain"), "transport": transport}
    with tb.connect(SeveralProvider, **settings) as client, path.open("rb") as stream:
        task = client.submit("extract-text", [b"%PDF first", path, stream])
        assert client.wait(task).result == tb.TaskResult(text="words of 3 document(s)")
        assert vendor.count(method="POST") == 1
        received = vendor.vendors["plain"].tasks[task.id].documents
        assert [part.data for part in received] == [b"%PDF first", path.read_bytes(), path.read_bytes()]
        assert [part.filename for part in received] == ["document", "b.pdf", "b.pdf"]
        assert not client.can("extract-text", [b"x"] * (MOST + 1))
        with pytest.raises(tb.UnsupportedFeature, match="at most 3 documents at once for read, not 4"):
            client.submit("extract-text", [b"x"] * (MOST + 1))
        assert vendor.count(method="POST") == 1
