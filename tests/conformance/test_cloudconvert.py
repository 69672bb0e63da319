"""CloudConvert passes the suite."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestCloudConvert(ProviderConformance):
    provider = "cloudconvert"
