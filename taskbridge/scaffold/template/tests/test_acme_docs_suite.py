"""Acme Docs passes the suite that every provider passes: each claim is tried against the emulator."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestAcmeDocs(ProviderConformance):
    provider = "acme-docs"
