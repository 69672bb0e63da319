"""Scan Documents passes the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskbridge.testing import ProviderConformance
from taskbridge.testing.conformance.capabilities import EXAMPLES


class TestScanDocuments(ProviderConformance):
    provider = "scan-documents"
    document = EXAMPLES["image/png"]
    documents: ClassVar[Mapping[str, bytes]] = dict.fromkeys(
        ("render", "split", "extract-pages"), EXAMPLES["application/pdf"]
    )
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "convert": {"target_format": "image/png"},
        "extract-pages": {"pages": "1"},
    }
