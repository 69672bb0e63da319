"""Scan Documents passes the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskbridge.testing import ProviderConformance


class TestScanDocuments(ProviderConformance):
    provider = "scan-documents"
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "convert": {"target_format": "image/png"},
        "extract-pages": {"pages": "1"},
    }
