"""Tasks are marked as taken at the vendor, and the unmarked ones are listed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import taskbridge as tb
from taskbridge.testing import Emulator

from .conftest import Both

VENDOR = "smartdocumentor"


def test_a_marked_task_leaves_the_list_of_those_that_were_never_marked(
    both: Callable[..., Both], own_vendors: Emulator
) -> None:
    client, task_id = both(VENDOR), own_vendors.samples(VENDOR)["completed"]
    assert task_id in {task.id for task in client.list(externalIntegrationStatus="never")}
    client.mark(task_id, "taken")
    assert task_id not in {task.id for task in client.list(externalIntegrationStatus="never")}
    assert [task.id for task in client.list(externalIntegrationStatus="taken")] == [task_id]
    client.restart(task_id, destructive=True)  # resets the label: patch-external-integration-status
    assert list(client.list(externalIntegrationStatus="taken")) == []


def test_a_task_is_marked_by_the_callers_own_id(both: Callable[..., Both]) -> None:
    client = both(VENDOR)
    task = client.submit("extract-text", "https://files.example.com/a.pdf", external_id="INV-99")
    client.mark("external/INV-99", "x" * 32)
    assert [each.id for each in client.list(externalIntegrationStatus="x" * 32)] == [task.id]


@pytest.mark.parametrize("label", ["", "   ", "x" * 33])
def test_a_label_that_the_vendor_refuses_is_not_sent(
    both: Callable[..., Both], own_vendors: Emulator, label: str
) -> None:
    with pytest.raises(tb.InvalidInput, match="1 to 32 characters"):
        both(VENDOR).mark("44", label)
    assert own_vendors.count(VENDOR) == 0


@pytest.mark.parametrize("provider", ["cloudconvert", "scan-documents", "expertai-extract"])
def test_other_vendors_have_no_marks(both: Callable[..., Both], own_vendors: Emulator, provider: str) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="mark a task"):
        both(provider).mark(own_vendors.samples(provider)["completed"], "taken")
    assert own_vendors.count(provider) == 0


def test_an_unknown_task_is_not_found(both: Callable[..., Both]) -> None:
    with pytest.raises(tb.TaskNotFound):
        both(VENDOR).mark("999999", "taken")
