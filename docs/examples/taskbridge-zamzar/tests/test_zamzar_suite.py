"""The conformance suite that every provider passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskbridge.testing import ProviderConformance


class TestZamzar(ProviderConformance):
    provider = "zamzar"
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"convert": {"target_format": "png"}}
