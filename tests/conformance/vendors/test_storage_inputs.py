"""A vendor that takes uploads gets documents from storages without code of its own."""

from __future__ import annotations

from typing import Any

import fsspec

import taskbridge as tb
from taskbridge.emulator import Emulator

from .plain import PlainEmulator, PlainProvider

FSSPEC: Any = fsspec  # it ships no types


def test_a_document_in_a_storage_is_uploaded() -> None:
    storage = FSSPEC.filesystem("memory")
    storage.pipe_file("/inbox/page.png", b"a document")
    try:
        with Emulator(vendors={"plain": PlainEmulator}, speed=1000) as emulator:
            with tb.connect(PlainProvider, **emulator.settings()) as client:
                task = client.submit("extract-text", "memory://inbox/page.png")
            [vendor] = emulator.vendors.values()
            assert isinstance(vendor, PlainEmulator)
            [document] = vendor.tasks[task.id].documents
        assert (document.filename, document.data) == ("page.png", b"a document")
    finally:
        storage.store.clear()
