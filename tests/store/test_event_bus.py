"""The event bus of a store, and webhooks in it, do the same in each database."""

from __future__ import annotations

import taskbridge as tb
from taskbridge.testing import check_event_bus


def test_the_event_bus_of_a_store_does_what_every_one_must(store: tb.Store) -> None:
    check_event_bus(store.event_bus)


def test_a_webhook_is_stored_once(store: tb.Store) -> None:
    refs = [tb.TaskRef("scans:task_1"), tb.TaskRef("scans:task_2")]
    for is_new in (True, False):
        with store.begin() as tx:
            assert tx.add_webhook("scans", "event_1", refs) is is_new
