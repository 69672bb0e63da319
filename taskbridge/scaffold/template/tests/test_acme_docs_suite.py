"""The conformance suite: it tries each of the provider's `capabilities` against the emulator."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestAcmeDocs(ProviderConformance):
    provider = "acme-docs"
