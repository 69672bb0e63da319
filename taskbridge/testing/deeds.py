"""The part of the conformance suite that tries each claimed call at an emulated vendor."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import taskbridge as tb
from taskbridge._transport.requests import RequestsTransport
from taskbridge.models import TaskStatus
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.submission import Query
from taskbridge.testing.claims import ClaimConformance
from taskbridge.testing.looks import look_up
from taskbridge.testing.samples import Sample, connection_of
from taskbridge.testing.stage import Losing, Weighing, until, visited
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.models import Task
    from taskbridge.provider.http import Request
    from taskbridge.provider.submission import Page

__all__ = ["DeedConformance"]

LARGEST: Final = 64 << 20
"""Bytes of the largest document that is sent to see whether a stated limit holds."""
MOST_TASKS: Final = 200
"""Tasks that are made to see whether a page is as long as claimed."""
LATE: Final = timedelta(hours=1)
"""By how much a delivery is late that may not be believed."""


class DeedConformance(ClaimConformance):
    """What every call that is claimed does; see `taskbridge.testing.conformance`."""

    # Orders.

    def test_every_claimed_operation_is_taken(self, connected: tb.Client) -> None:
        """Each neutral operation becomes a task that the vendor knows."""
        for operation in connected.capabilities.operations:
            task = self._order(connected, operation=operation)
            assert connected.get(task).native_id == task.native_id, operation

    def test_every_claimed_input_is_taken(
        self, connected: tb.Client, vendor: Any, connection: Connection, samples: Mapping[str, Sample], tmp_path: Path
    ) -> None:
        """A document may be given in each claimed form, and who fetches a URL is who is said to."""
        del vendor
        claims = connected.capabilities
        tasks = [look_up(connection, sample) for sample in samples.values()] if "file" in claims.inputs else []
        files = [file for task in tasks if task.result is not None for file in task.result.files]
        assert files or "file" not in claims.inputs, "inputs: no sample shows a file that could be handed on"
        with visited(self.document) as host:
            given = self._given(f"{host.url}/document.pdf", files[0] if files else None, tmp_path)
            for kind in sorted(claims.inputs):
                if kind == "file":
                    given["file"] = self._own_file(connected)
                task = self._order(connected, given[kind])
                assert connected.get(task).native_id == task.native_id, kind
            fetched = len(host.came("GET"))
        if "url" in claims.inputs:
            assert (fetched > 0) == claims.fetches_urls, f"fetches_urls: {fetched} requests came to the document's host"

    def test_several_documents_are_taken_where_claimed(self, vendor: Any) -> None:
        """An operation of many documents becomes one task, and the order tells of all of them."""
        connection = connection_of(self.provider, vendor.settings(self.provider))
        claims, transport = connection.provider.capabilities, Weighing(Network())
        names = {native: neutral for neutral, native in claims.operations.items()}
        one = self.document if "bytes" in claims.inputs else "https://documents.invalid/document.pdf"
        with tb.Client(connection, clock=SystemClock(), transport=transport) as client:
            for native in sorted(claims.many_inputs):
                transport.weights.clear()
                for documents in (one, [one, one]):
                    task = self._order(client, documents, names.get(native, f"native:{native}"))
                    assert client.get(task).native_id == task.native_id, native
                single, double = transport.weights
                assert single < double, f"many_inputs: an order of {native} for two documents says no more than for one"

    def test_a_callers_own_id_is_kept_where_claimed(self, connected: tb.Client) -> None:
        """The vendor tells the caller's id again."""
        if connected.capabilities.external_id:
            task = self._order(connected, external_id="conformance-1")
            assert connected.get(task).external_id == "conformance-1"

    def test_an_order_s_own_address_is_called_where_claimed(self, connected: tb.Client) -> None:
        """The vendor calls the address that an order names."""
        if connected.capabilities.callback:
            with visited(b"") as host:
                self._order(connected, callback_url=f"{host.url}/called")
                until(lambda: bool(host.came("POST")), "callback: nobody called the order's address")
                assert host.came("POST")[0].path == "/called"

    def test_the_upload_limit_is_the_vendor_s(self, connected: tb.Client, vendor: Any, tmp_path: Path) -> None:
        """A document of the stated size is taken; one byte more is refused before it is sent."""
        limit = connected.capabilities.upload_limit
        if limit is None or limit > LARGEST:
            return
        path = tmp_path / "large.pdf"
        path.write_bytes(self.document.ljust(limit))
        self._order(connected, path)
        path.write_bytes(self.document.ljust(limit + 1))
        vendor.forget()
        with pytest.raises(tb.InvalidInput):
            self._order(connected, path)
        assert vendor.requests == []

    def test_an_order_is_announced_before_it_leaves(self, connected: tb.Client, vendor: Any) -> None:
        """Who listens hears of an order before the vendor does: the request that commits is marked."""
        if not connected.capabilities.operations:
            return
        told: list[int] = []

        def hear(_clue: Mapping[str, Any]) -> None:
            told.append(len(vendor.requests))

        self._order(connected, before_submit=hear)
        assert told, "submit: none of its requests is marked commits=True"
        assert told[-1] < len(vendor.requests), "submit: nothing was sent after the request that is marked commits=True"

    def test_an_order_in_doubt_is_found_where_claimed(self, vendor: Any) -> None:
        """An order whose answer was lost is found again, and it is that one."""
        connection = connection_of(self.provider, vendor.settings(self.provider))
        if connection.provider.capabilities.recover is None:
            return
        with tb.Client(connection, clock=SystemClock(), transport=Losing(Network())) as client:
            with pytest.raises(tb.SubmitUncertain) as caught:
                self._order(client)
            found = client.recover(caught.value)
            assert found is not None, f"recover: the order was not found by {client.capabilities.recover}"
            assert client.get(found).native_id == found.native_id

    def test_an_order_sent_twice_is_done_once_where_claimed(self, connected: tb.Client) -> None:
        """The vendor takes an order that it has already for the same one."""
        if connected.capabilities.idempotency_key:
            assert connected.capabilities.external_id, "idempotency_key: by what does the vendor know the order again?"
            one, two = (self._order(connected, external_id="conformance-1") for _ in range(2))
            assert one.native_id == two.native_id

    # Tasks that exist.

    def test_cancel_stops_a_task_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """A task that goes on is stopped, and one that has ended stays as it is."""
        if not connected.capabilities.cancel:
            return
        candidates = [self._running(connected, vendor)]
        candidates += [t for t in map(connected.get, vendor.samples(self.provider).values()) if not t.is_terminal]
        stopped = next((task for each in candidates if (task := _tried(connected.cancel, each)) is not None), None)
        assert stopped is not None, "cancel: refused for every task that goes on"
        assert stopped.is_terminal, f"cancel: {stopped.native_status!r} is no end"
        assert connected.get(stopped).is_terminal

    def test_retry_makes_a_new_task_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """A failed task is done once more, as a task of its own that names the old one."""
        if not connected.capabilities.retry:
            return
        for old in self._ended(connected, vendor, TaskStatus.FAILED):
            new = _tried(connected.retry, old)
            if new is not None:
                assert (new.retry_of, new.id == old.id) == (old.id, False)
                assert connected.get(new).native_id == new.native_id
                return
        raise AssertionError("retry: refused for every failed task")

    def test_delete_removes_a_task_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """A task that was removed is not there, or says so."""
        if not connected.capabilities.delete:
            return
        task = self._ended(connected, vendor, TaskStatus.COMPLETED)[0]
        connected.delete(task)
        with suppress(tb.TaskNotFound):
            assert connected.get(task).reason in (tb.Reason.DELETED, tb.Reason.EXPIRED)

    def test_restart_begins_anew_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """A restarted task keeps its id, and is not what it was."""
        if not connected.capabilities.restart:
            return
        old = self._ended(connected, vendor, TaskStatus.FAILED, TaskStatus.COMPLETED)[0]
        new = connected.restart(old, destructive=True)
        assert new.native_id == old.native_id
        assert (new.status, new.restarts) != (old.status, old.restarts)

    def test_a_held_line_answers_at_the_end_where_claimed(self, vendor: Any) -> None:
        """The vendor holds a look-up until the task has ended."""
        from taskbridge.emulator import Plan  # noqa: PLC0415  # needs an extra

        connection = connection_of(self.provider, vendor.settings(self.provider))
        if not connection.provider.capabilities.long_poll:
            return
        with tb.Client(connection, clock=SystemClock(), transport=RequestsTransport(Network())) as client:
            vendor.plan_next(self.provider, Plan(queued=20, working=20))
            task = self._order(client)
            flow = connection.provider.long_poll(task.id)
            assert flow is not None, "long_poll: no line is held for the id of an order"
            asked = next(flow)
            assert asked.long_poll, "long_poll: the request does not say how long the vendor may hold it"
            ended: Task = self._driven(connection, connection.provider.long_poll(task.id))
        assert ended.is_terminal, f"long_poll: the vendor answered {ended.native_status!r} before the end"

    # Lists.

    def _pages(self, connection: Connection, query: Query) -> list[Page]:
        """All pages of a list."""
        pages: list[Page] = [self._driven(connection, connection.provider.list_page(query, None))]
        while pages[-1].next_cursor is not None and len(pages) < MOST_TASKS:
            pages.append(self._driven(connection, connection.provider.list_page(query, pages[-1].next_cursor)))
        return pages

    def test_the_list_is_as_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """The list has every sample of the kinds that it shows; statuses and filters are heard by the vendor."""
        connection = connection_of(self.provider, vendor.settings(self.provider))
        listing = connection.provider.capabilities.listing
        if listing is None:
            return
        whole = {task.id: task for task in connected.list()}
        kinds = {connection.provider.split_id(task_id)[0].prefix for task_id in whole}
        wanted = {
            i for i in vendor.samples(self.provider).values() if connection.provider.split_id(i)[0].prefix in kinds
        }
        assert wanted, "listing: the list shows none of the samples"
        assert wanted <= whole.keys(), f"listing: {sorted(wanted - whole.keys())} are not in the list"
        for status in listing.statuses:
            chosen = {task.id for page in self._pages(connection, Query(status)) for task in page.tasks}
            assert {i for i, task in whole.items() if task.status is status} <= chosen, f"statuses: {status}"
            assert chosen < whole.keys(), f"statuses: the vendor was not asked for {status} only"
        unfiltered = next(connection.provider.list_page(Query(), None))
        for name in listing.filters:
            asked = self._filtered(connection, name)
            assert asked is None or asked.url != unfiltered.url, f"filters: {name} does not reach the vendor"

    def _filtered(self, connection: Connection, name: str) -> Request | None:
        """The request for a list with a filter; None where the provider refuses the value made up for it."""
        for value in ("conformance", 1, [1]):
            with suppress(tb.TaskbridgeError, TypeError, ValueError):
                return next(connection.provider.list_page(Query(filters={name: value}), None))
        return None

    def test_a_page_is_as_long_as_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """Of more tasks than a page takes, the first page is full, and no task comes twice."""
        connection = connection_of(self.provider, vendor.settings(self.provider))
        listing = connection.provider.capabilities.listing
        if listing is None or not connection.provider.capabilities.operations or listing.page_size > MOST_TASKS:
            return
        there = sum(len(page.tasks) for page in self._pages(connection, Query()))
        own = self._own_file(connected) if "file" in connected.capabilities.inputs else None
        for _ in range(listing.page_size + 1 - there):
            self._order(connected, own)
        first, *others = self._pages(connection, Query())
        assert len(first.tasks) == listing.page_size, f"page_size: the first page has {len(first.tasks)}"
        assert others, "page_size: there is no second page"
        ids = [task.id for page in (first, *others) for task in page.tasks]
        assert len(ids) == len(set(ids)) > listing.page_size, "page_size: the pages overlap"

    def test_a_sweep_shows_what_goes_on_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """The lists of a sweep have a task that goes on, in as many requests as are claimed."""
        connection = connection_of(self.provider, vendor.settings(self.provider))
        list_polling = connection.provider.capabilities.list_polling
        if list_polling is None:
            return
        prefixes = {kind.prefix for kind in connection.provider.capabilities.kinds}
        assert list_polling.prefixes <= prefixes, (
            f"bulk: {sorted(list_polling.prefixes - prefixes)} are no kinds of ids"
        )
        going_on = self._running(connected, vendor)
        prefix = connection.provider.split_id(going_on.id)[0].prefix
        queries = connection.provider.list_queries(frozenset({prefix}), connected.get(going_on).observed_at, 60.0)
        assert 0 < len(queries) <= list_polling.queries, (
            f"bulk: {len(queries)} queries for one kind, {list_polling.queries} claimed"
        )
        pages = [page for query in queries for page in self._pages(connection, query)]
        assert all(len(page.tasks) <= list_polling.page_size for page in pages), "bulk: page_size"
        if prefix in list_polling.prefixes:
            assert going_on.id in {task.id for page in pages for task in page.tasks}, "bulk: the task is not shown"

    # What the vendor tells unasked.

    def test_webhooks_are_as_claimed(self, vendor: Any) -> None:
        """A delivery is proved by the claimed scheme, has a claimed event, and a changed one is refused."""
        can = connection_of(self.provider, vendor.settings(self.provider)).provider.capabilities
        if can.webhooks is None:
            return
        with visited(b"") as host:
            secret = vendor.vendors[self.provider].subscribe(f"{host.url}/hook")
            settings: dict[str, Any] = {**self.quick_settings(vendor), "webhook_secrets": [secret]}
            with tb.connect(self.provider, **settings) as client:
                self._order(client)
                until(lambda: bool(host.came("POST")), "webhooks: the vendor told nothing")
                letter = host.came("POST")[0]
                url = f"{host.url}{letter.path}"
                event = client.parse_webhook(letter.headers, letter.body, url=url)
                assert not can.webhooks.events or event.type in can.webhooks.events, f"events: {event.type!r}"
                assert event.needs_confirmation != can.webhooks.signed_time, "signed_time: needs_confirmation says no"
                later = event.occurred_at or client.get(event.ref or "").observed_at
                if can.webhooks.signed_time:
                    with pytest.raises(tb.WebhookRejected):
                        client.parse_webhook(letter.headers, letter.body, url=url, now=later + LATE)
                for changed in self._changed(url, secret, letter.headers, letter.body):
                    with pytest.raises(tb.WebhookRejected):
                        client.parse_webhook(changed[1], changed[2], url=changed[0])

    def _changed(self, url: str, secret: str, headers: Any, body: bytes) -> Iterator[tuple[str, Any, bytes]]:
        """The same delivery without what proves it."""
        if secret in url:
            yield url.replace(secret, "guessed-by-a-stranger"), headers, body
            return
        yield url, headers, body.replace(b"{", b"{ ", 1)
        yield url, [(name, value) for name, value in headers if "signature" not in name.lower()], body


def _tried(call: Callable[[Task], Task], task: Task) -> Task | None:
    """What a call makes of a task; None where the vendor refuses it for this one."""
    try:
        return call(task)
    except (tb.ApiError, tb.UnsupportedFeature):
        return None
