"""Zamzar passes the suite that every provider passes."""

from __future__ import annotations

from taskbridge.testing import ProviderConformance


class TestZamzar(ProviderConformance):
    provider = "zamzar"
