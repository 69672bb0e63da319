"""Scan Documents passes the suite."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestScanDocuments(ProviderConformance):
    provider = "scan-documents"
