"""A provider that claims nothing refuses everything; what the built-in ones claim, the conformance suite tries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import taskbridge as tb
from taskbridge.models import Task
from taskbridge.provider.base import Provider, ProviderSettings
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind
from taskbridge.provider.http import Flow
from taskbridge.provider.submission import Query, Submission


class Bare(Provider[ProviderSettings]):
    """A provider that can look up, and nothing else."""

    name = "bare"
    title = "Bare"
    docs = "https://example.com/"
    Settings = ProviderSettings
    capabilities = Capabilities(kinds=(IdKind(PLAIN_ID),), authentication="none")

    def get(self, task_id: str) -> Flow[Task]:
        raise NotImplementedError(task_id)


def test_a_provider_without_capabilities_refuses_every_operation() -> None:
    without_traceback = Bare(ProviderSettings(), "here")
    assert without_traceback.capabilities.calls == ()
    begun: list[Callable[[], object]] = [
        lambda: without_traceback.submit(Submission("x", "x", "r")),
        lambda: without_traceback.list_page(Query(), None),
        lambda: without_traceback.cancel("t"),
        lambda: without_traceback.retry("t"),
        lambda: without_traceback.delete("t"),
        lambda: without_traceback.restart("t"),
        lambda: without_traceback.recover({}),
        lambda: without_traceback.get_with("t", {}),
    ]
    for begin in begun:
        with pytest.raises(tb.UnsupportedFeature, match=r"Bare cannot .+; it offers get, wait, result"):
            begin()
