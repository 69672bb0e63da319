"""CloudConvert passes the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskbridge.testing import ProviderConformance


class TestCloudConvert(ProviderConformance):
    provider = "cloudconvert"
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"convert": {"output_format": "pdf"}}
