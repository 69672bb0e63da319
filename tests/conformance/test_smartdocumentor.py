"""SmartDocumentor passes the suite."""

from __future__ import annotations

from typing import ClassVar

from taskbridge.testing import ProviderConformance


class TestSmartDocumentor(ProviderConformance):
    provider = "smartdocumentor"
    status_fields: ClassVar[tuple[str, ...]] = ("taskStatus", "taskStatusText")  # either decides
