"""SmartDocumentor passes the suite."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from taskbridge.testing import ProviderConformance


class TestSmartDocumentor(ProviderConformance):
    provider = "smartdocumentor"
    status_fields: ClassVar[tuple[str, ...]] = ("taskStatus", "taskStatusText")  # either decides

    @pytest.mark.xfail(reason="the response for archived tasks is not published, so the emulator keeps them")
    def test_results_expire_as_claimed(self, vendor: Any) -> None:
        super().test_results_expire_as_claimed(vendor)
