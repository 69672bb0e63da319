"""A vendor that says what a task cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskbridge.emulator.helpers import JsonObject
from taskbridge.models import Task, UsageUnit
from taskbridge.provider import Payload
from taskbridge.testing import ProviderConformance

from .plain import PlainEmulator, PlainProvider, PlainTask


class MeteredProvider(PlainProvider):
    """The figure is verbatim; its unit is one of ours."""

    capabilities = replace(PlainProvider.capabilities, usage=(UsageUnit.PAGES,))

    def task(self, payload: Payload, task_id: str | None = None, **more: Any) -> Task:
        return super().task(payload, task_id, usage=payload.maybe_usage("pages", UsageUnit.PAGES), **more)


class MeteredEmulator(PlainEmulator):
    """Says how many pages a task had, once it is done."""

    def show(self, task: PlainTask) -> JsonObject:
        shown = super().show(task)
        return {**shown, "pages": 3} if shown["state"] == "done" else shown


class TestUsage(ProviderConformance):
    provider = MeteredProvider
    emulator_class = MeteredEmulator
