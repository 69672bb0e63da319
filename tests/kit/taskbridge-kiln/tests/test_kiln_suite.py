"""The conformance suite that every provider passes."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestKiln(ProviderConformance):
    provider = "kiln"
