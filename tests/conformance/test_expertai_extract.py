"""expert.ai Extract passes the suite."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestExpertAiExtract(ProviderConformance):
    provider = "expertai-extract"
