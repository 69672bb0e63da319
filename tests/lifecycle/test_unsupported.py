"""A provider refuses what it does not claim; the conformance suite tests what the built-in ones claim."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import taskbridge as tb
from taskbridge.models import Task
from taskbridge.provider.base import Provider, ProviderSettings
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, IdKind
from taskbridge.provider.http import Flow
from taskbridge.provider.submission import Query, Submission


class Minimal(Provider[ProviderSettings]):
    """A provider that can only get tasks."""

    name = "minimal"
    title = "Minimal"
    docs = "https://example.com/"
    Settings = ProviderSettings
    capabilities = Capabilities(kinds=(IdKind(PLAIN_ID),), authentication="none")

    def get(self, task_id: str) -> Flow[Task]:
        raise NotImplementedError(task_id)


def test_a_provider_without_capabilities_refuses_every_operation() -> None:
    provider = Minimal(ProviderSettings(), "here")
    assert provider.capabilities.calls == ()
    calls: list[Callable[[], object]] = [
        lambda: provider.submit(Submission("x", "x", "r")),
        lambda: provider.list_page(Query(), None),
        lambda: provider.cancel("t"),
        lambda: provider.retry("t"),
        lambda: provider.delete("t"),
        lambda: provider.restart("t"),
        lambda: provider.recover({}),
        provider.account,
        lambda: provider.operations(None, None, None),
        lambda: provider.mark("t", "taken"),
        provider.webhooks,
        lambda: provider.add_webhook("https://example.com/", ()),
        lambda: provider.remove_webhook("w1"),
        lambda: provider.delete_file(tb.TaskFile(id="f")),
        lambda: provider.get_with("t", {}),
    ]
    for call in calls:
        with pytest.raises(tb.UnsupportedFeature, match=r"Minimal cannot .+; it offers get, wait, result"):
            call()
