"""The part of the conformance suite that holds a provider to its `capabilities`.

Each claim is tried at an emulated vendor that the test has for itself; what is not claimed has to be refused before
anything is sent. Where there is no emulator, only the recorded answers and the class itself can be looked at.
"""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

import taskbridge as tb
from taskbridge.config import Network
from taskbridge.fetch import origin_of
from taskbridge.model import TaskStatus
from taskbridge.policy import SystemClock
from taskbridge.provider import Made, Provider
from taskbridge.submission import Query
from taskbridge.testing.looks import LookConformance, look_up
from taskbridge.testing.samples import Sample, asks, channel_of, client_of, endless, recorded
from taskbridge.testing.stage import Losing, Weighing, until, visited
from taskbridge.transport.requests import RequestsTransport

if TYPE_CHECKING:
    from taskbridge.channel import Channel
    from taskbridge.http import Flow, Request
    from taskbridge.model import Task, TaskFile, TaskResult
    from taskbridge.submission import Page

__all__ = ["ClaimConformance"]

# Call of the client -> how it is made, and the provider's method behind it.
CALLS: Final[Mapping[str, tuple[str, Callable[[Any, str], object]]]] = {
    "submit": ("submit", lambda client, _: client.submit("native:anything", b"x")),
    "list": ("list_page", lambda client, _: list(client.list())),
    "cancel": ("cancel", lambda client, task_id: client.cancel(task_id)),
    "retry": ("retry", lambda client, task_id: client.retry(task_id)),
    "delete": ("delete", lambda client, task_id: client.delete(task_id)),
    "restart": ("restart", lambda client, task_id: client.restart(task_id, destructive=True)),
    "recover": ("recover", lambda client, _: client.recover(_in_doubt(client))),
}

# Claim that is no call of its own -> the provider's method behind it.
METHODS: Final[Mapping[str, str]] = {
    "look_options": "get_with",
    "long_poll": "hold",
    "result_apart": "result",
    "webhooks": "parse_webhook",
    "bulk": "sweep",
}

INPUTS: Final = frozenset({"path", "bytes", "stream", "url", "file"})
LARGEST: Final = 64 << 20
"""Bytes of the largest document that is sent to see whether a stated limit holds."""
MOST_TASKS: Final = 200
"""Tasks that are made to see whether a page is as long as claimed."""
EARLY: Final = timedelta(seconds=1)
LATE: Final = timedelta(hours=1)


class ClaimConformance(LookConformance):
    """What every claim keeps; see `taskbridge.testing.conformance`."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Options that an order needs, by operation (neutral or ``native:…``)."""
    document: ClassVar[bytes] = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
    """A document that the vendor takes."""

    @pytest.fixture
    def vendor(self, emulator: Any) -> Iterator[Any]:
        """The vendor, emulated for one test, to be changed; skips where nobody wrote an emulator."""
        if emulator is None:
            pytest.skip("only a vendor can show it; there is no emulator")
        from taskbridge.testing import Emulator  # noqa: PLC0415  # needs an extra

        with Emulator(self.provider, speed=1000) as own:
            yield own

    @pytest.fixture
    def connected(self, vendor: Any) -> Iterator[tb.Client]:
        """A client of that vendor."""
        with tb.connect(self.provider, **self.quick_settings(vendor)) as client:
            yield client

    def quick_settings(self, vendor: Any) -> dict[str, Any]:
        """Keywords for `taskbridge.connect`, with pauses that no test minds."""
        fast: dict[str, Any] = {"poll": {"interval": 0.01}, "retry": {"first": 0.01}, "allow_private": True}
        return {**vendor.settings(self.provider), **fast}

    # What the class and the samples show.

    def test_the_installed_provider_is_listed(self) -> None:
        """`taskbridge.providers` shows it, without a problem."""
        found = [info for info in tb.providers() if info.name == self.provider]
        assert [info.problem for info in found] == [None]

    def test_claims_and_methods_agree(self, channel: Channel) -> None:
        """What is claimed is written, and what is written is claimed."""
        kind, claims = type(channel.provider), channel.provider.capabilities
        for claim, method in {**{call: method for call, (method, _) in CALLS.items()}, **METHODS}.items():
            claimed = claim in claims.calls if claim in CALLS else bool(getattr(claims, claim))
            written = getattr(kind, method) is not getattr(Provider, method)
            assert written or not claimed, f"{claim}: is claimed, but {method}() is not written"
            if claim != "result_apart":  # a result may be made of the status answer in a way of its own
                assert claimed or not written, f"{claim}: {method}() is written, but not claimed"

    def test_the_claims_hold_together(self, channel: Channel) -> None:
        """Claims that need or rule out each other do."""
        claims = channel.provider.capabilities
        assert claims.authentication, "authentication: say how the vendor knows who is asking"
        assert claims.inputs <= INPUTS, f"inputs: {sorted(claims.inputs - INPUTS)} are none of {sorted(INPUTS)}"
        assert bool(claims.inputs) == bool(claims.operations), "inputs: belong to operations"
        assert not claims.fetches_urls or "url" in claims.inputs, "fetches_urls: without url among the inputs"
        assert claims.bulk is None or claims.listing is not None, "bulk: needs a list"
        assert claims.recover is None or claims.operations, "recover: of orders that cannot be given"
        assert claims.upload_limit is None or claims.upload_limit > 0, "upload_limit"
        assert claims.result_ttl is None or claims.result_ttl > 0, "result_ttl"
        assert claims.webhooks is None or claims.webhooks.scheme, "webhooks: say what proves the sender"

    def test_what_the_provider_claims_is_true(self, channel: Channel, samples: Mapping[str, Sample]) -> None:
        """What `capabilities` says and what the samples show is the same."""
        claims = channel.provider.capabilities
        tasks = {label: look_up(channel, sample) for label, sample in samples.items()}
        every = [*tasks.values(), *(each for task in tasks.values() for each in task.subtasks)]
        assert any(task.progress is not None for task in every) == claims.progress, "progress"
        assert any(task.subtasks for task in every) == claims.subtasks, "subtasks"
        held = [channel.provider.hold(sample.task_id) is not None for sample in samples.values()]
        assert any(held) == claims.long_poll, "long_poll"
        for label, task in tasks.items():
            if task.status is TaskStatus.COMPLETED:
                assert asks(channel.provider.result(task)) == claims.result_apart, f"result_apart: {label}"
        seen = {task.reason for task in every if task.reason is not None}
        assert seen <= set(claims.reasons), f"reasons: {sorted(seen - set(claims.reasons))} occur and are not claimed"

    def test_every_kind_and_reason_is_shown(
        self, emulator: Any, channel: Channel, samples: Mapping[str, Sample]
    ) -> None:
        """A kind of id or a reason that no sample has is no more than an assertion."""
        if emulator is None:
            pytest.skip("only a vendor can show it; there is no emulator")
        claims = channel.provider.capabilities
        tasks = [look_up(channel, sample) for sample in samples.values()]
        seen = {task.reason for each in tasks for task in (each, *each.subtasks) if task.reason is not None}
        assert set(claims.reasons) <= seen, f"reasons: no sample shows {sorted(set(claims.reasons) - seen)}"
        kinds = {channel.provider.split_id(sample.task_id)[0].prefix for sample in samples.values()}
        assert kinds == {kind.prefix for kind in claims.kinds}, "kinds: each needs a sample"

    def test_what_is_not_claimed_is_refused_and_nothing_is_sent(
        self, channel: Channel, samples: Mapping[str, Sample], tmp_path: Path
    ) -> None:
        """A call, an input, a filter or an option that the vendor does not have is UnsupportedFeature at once."""
        claims, task_id = channel.provider.capabilities, next(iter(samples.values())).task_id
        client, transport = client_of(channel, ())
        refused: dict[str, Callable[[], object]] = {
            call: (lambda make=make: make(client, task_id))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            for call, (_, make) in CALLS.items()
            if call not in claims.calls
        }
        refused["a look-up option"] = lambda: client.get(task_id, options={"no-such-option": "x"})
        if claims.listing is not None:
            refused["a filter"] = lambda: list(client.list(no_such_filter="x"))
        for native in claims.operations.values():
            refused |= {f"{each}: {native}": made for each, made in self._refused_orders(client, native, tmp_path)}
        if claims.operations:
            refused["an operation"] = lambda: client.submit("no-such-operation", b"x")
        if claims.webhooks is None:
            refused["a webhook"] = lambda: client.parse_webhook({}, b"{}")
        for what, call in refused.items():
            try:
                call()
            except tb.UnsupportedFeature:
                continue
            raise AssertionError(f"{what}: is not claimed, and yet not refused")
        assert transport.requests == []

    def _refused_orders(
        self, client: tb.Client, native: str, folder: Path
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Orders of an operation that go beyond the claims."""
        claims, operation = client.capabilities, f"native:{native}"
        given = self._given("https://documents.invalid/a.pdf", None, folder)
        for kind in INPUTS - claims.inputs - {"file"}:
            yield f"input {kind}", lambda kind=kind: client.submit(operation, given[kind])  # type: ignore[misc]  # mypy cannot infer a lambda's default
        taken = given[min(claims.inputs - {"file"})]
        if native not in claims.many_inputs:
            yield "several documents", lambda: client.submit(operation, [taken, taken])
        if not claims.external_id:
            yield "external_id", lambda: client.submit(operation, taken, external_id="x")
        if not claims.callback:
            yield "callback_url", lambda: client.submit(operation, taken, callback_url="https://example.com/")

    def _given(self, url: str, file: TaskFile | None, folder: Path) -> dict[str, Any]:
        """The suite's document, in each form that a document can have."""
        path = folder / "document.pdf"
        path.write_bytes(self.document)
        return {"path": path, "bytes": self.document, "stream": BytesIO(self.document), "url": url, "file": file}

    # Results.

    def test_what_is_claimed_comes_home(
        self,
        emulator: Any,
        settings: Mapping[str, Any],
        channel: Channel,
        samples: Mapping[str, Sample],
        tmp_path: Path,
    ) -> None:
        """Each completed sample becomes whole files of the parts that are claimed; what is not claimed is refused."""
        claims = channel.provider.capabilities.downloads
        if claims is None:
            client, transport = client_of(channel, ())
            with pytest.raises(tb.UnsupportedFeature):
                client.download(next(iter(samples.values())).task_id, tmp_path)
            assert transport.requests == []
            return
        seen: set[str] = set()
        for label, sample in samples.items():
            task = look_up(channel, sample)
            if task.status is not TaskStatus.COMPLETED:
                continue
            if emulator is None:
                seen |= _parts(channel, task, client_of(channel, endless(channel, sample))[0].result(task))
                continue
            with tb.connect(self.provider, **settings) as client:
                seen |= _parts(channel, task, client.result(task))
                paths = client.download(task, tmp_path / label)
            assert sorted((tmp_path / label).iterdir()) == sorted(paths), label
            assert all(path.is_file() for path in paths), label
        assert seen, "downloads: no sample becomes a file"
        assert seen == set(claims.parts) or (emulator is None and seen < set(claims.parts)), "downloads"

    # Orders.

    def _order(self, client: tb.Client, given: Any = None, operation: str | None = None, **more: Any) -> Task:
        """Give an order; the first claimed operation where none is named."""
        claims = client.capabilities
        operation = operation or next(iter(claims.operations))
        if given is None:
            given = self.document if "bytes" in claims.inputs else "https://documents.invalid/document.pdf"
        return client.submit(operation, given, options=self.options.get(operation), **more)

    def test_every_claimed_operation_is_taken(self, connected: tb.Client) -> None:
        """Each neutral operation becomes a task that the vendor knows."""
        for operation in connected.capabilities.operations:
            task = self._order(connected, operation=operation)
            assert connected.get(task).native_id == task.native_id, operation

    def test_every_claimed_input_is_taken(
        self, connected: tb.Client, vendor: Any, channel: Channel, samples: Mapping[str, Sample], tmp_path: Path
    ) -> None:
        """A document may be given in each claimed form, and who fetches a URL is who is said to."""
        del vendor
        claims = connected.capabilities
        tasks = [look_up(channel, sample) for sample in samples.values()] if "file" in claims.inputs else []
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

    def _own_file(self, client: tb.Client) -> TaskFile:
        """A file that a task of this very vendor made."""
        for task in client.list() if client.capabilities.listing else ():
            if task.status is TaskStatus.COMPLETED:
                with suppress(tb.TaskbridgeError):
                    files = client.result(task).files
                    if files:
                        return files[0]
        raise AssertionError("inputs: no task shows a file that could be handed on")

    def test_several_documents_are_taken_where_claimed(self, vendor: Any) -> None:
        """An operation of many documents becomes one task, and the order tells of all of them."""
        channel = channel_of(self.provider, vendor.settings(self.provider))
        claims, transport = channel.provider.capabilities, Weighing(Network())
        names = {native: neutral for neutral, native in claims.operations.items()}
        one = self.document if "bytes" in claims.inputs else "https://documents.invalid/document.pdf"
        with tb.Client(channel, clock=SystemClock(), transport=transport) as client:
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

    def test_an_order_in_doubt_is_found_where_claimed(self, vendor: Any) -> None:
        """An order whose answer was lost is found again, and it is that one."""
        channel = channel_of(self.provider, vendor.settings(self.provider))
        if channel.provider.capabilities.recover is None:
            return
        with tb.Client(channel, clock=SystemClock(), transport=Losing(Network())) as client:
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

    def _running(self, client: tb.Client, vendor: Any) -> Task:
        """A task that goes on."""
        from taskbridge.emulator import Plan  # noqa: PLC0415  # needs an extra

        if client.capabilities.operations:
            vendor.plan_next(self.provider, Plan(outcome="stuck"))
            return self._order(client)
        tasks = map(client.get, vendor.samples(self.provider).values())
        return next(task for task in tasks if not task.is_terminal)

    def _ended(self, client: tb.Client, vendor: Any, *statuses: TaskStatus) -> list[Task]:
        """Samples that ended so."""
        tasks = [client.get(task_id) for task_id in vendor.samples(self.provider).values()]
        return [task for task in tasks if task.status in statuses]

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

        channel = channel_of(self.provider, vendor.settings(self.provider))
        if not channel.provider.capabilities.long_poll:
            return
        with tb.Client(channel, clock=SystemClock(), transport=RequestsTransport(Network())) as client:
            vendor.plan_next(self.provider, Plan(queued=20, working=20))
            task = self._order(client)
            flow = channel.provider.hold(task.id)
            assert flow is not None, "long_poll: no line is held for the id of an order"
            asked = next(flow)
            assert asked.hold, "long_poll: the request does not say how long the vendor may hold it"
            ended: Task = self._driven(channel, channel.provider.hold(task.id))
        assert ended.is_terminal, f"long_poll: the vendor answered {ended.native_status!r} before the end"

    def test_a_result_lives_as_long_as_claimed(self, vendor: Any) -> None:
        """Once its time is over, a result is gone, or its files are marked as gone."""
        with tb.connect(self.provider, **self.quick_settings(vendor)) as client:
            ttl = client.capabilities.result_ttl
            if ttl is None:
                return
            task = self._ended(client, vendor, TaskStatus.COMPLETED)[0]
            files = client.result(task).files
            ends = [file.expires_at for file in files if file.expires_at is not None]
            if ends and task.finished_at is not None:
                assert abs((ends[0] - task.finished_at).total_seconds() - ttl) < max(60.0, ttl / 100)
                return
            vendor.clock.advance(ttl + 60)
            with pytest.raises(tb.TaskbridgeError):
                client.result(task)

    # Lists.

    def _driven(self, channel: Channel, flow: Flow[Any] | None) -> Any:
        """What a flow makes of the vendor's own answers."""
        assert flow is not None
        transport = RequestsTransport(Network())
        try:
            credential, _ = recorded(transport, channel, channel.provider.authorise(), {})
            return recorded(transport, channel, flow, credential.headers)[0]
        finally:
            transport.close()

    def _pages(self, channel: Channel, query: Query) -> list[Page]:
        """All pages of a list."""
        pages: list[Page] = [self._driven(channel, channel.provider.list_page(query, None))]
        while pages[-1].next_cursor is not None and len(pages) < MOST_TASKS:
            pages.append(self._driven(channel, channel.provider.list_page(query, pages[-1].next_cursor)))
        return pages

    def test_the_list_is_as_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """The list has every sample of the kinds that it shows; statuses and filters are heard by the vendor."""
        channel = channel_of(self.provider, vendor.settings(self.provider))
        listing = channel.provider.capabilities.listing
        if listing is None:
            return
        whole = {task.id: task for task in connected.list()}
        kinds = {channel.provider.split_id(task_id)[0].prefix for task_id in whole}
        wanted = {i for i in vendor.samples(self.provider).values() if channel.provider.split_id(i)[0].prefix in kinds}
        assert wanted, "listing: the list shows none of the samples"
        assert wanted <= whole.keys(), f"listing: {sorted(wanted - whole.keys())} are not in the list"
        for status in listing.statuses:
            chosen = {task.id for page in self._pages(channel, Query(status)) for task in page.tasks}
            assert {i for i, task in whole.items() if task.status is status} <= chosen, f"statuses: {status}"
            assert chosen < whole.keys(), f"statuses: the vendor was not asked for {status} only"
        unfiltered = next(channel.provider.list_page(Query(), None))
        for name in listing.filters:
            asked = self._filtered(channel, name)
            assert asked is None or asked.url != unfiltered.url, f"filters: {name} does not reach the vendor"

    def _filtered(self, channel: Channel, name: str) -> Request | None:
        """The request for a list with a filter; None where the provider refuses the value made up for it."""
        for value in ("conformance", 1, [1]):
            with suppress(tb.TaskbridgeError, TypeError, ValueError):
                return next(channel.provider.list_page(Query(filters={name: value}), None))
        return None

    def test_a_page_is_as_long_as_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """Of more tasks than a page takes, the first page is full, and no task comes twice."""
        channel = channel_of(self.provider, vendor.settings(self.provider))
        listing = channel.provider.capabilities.listing
        if listing is None or not channel.provider.capabilities.operations or listing.page_size > MOST_TASKS:
            return
        there = sum(len(page.tasks) for page in self._pages(channel, Query()))
        own = self._own_file(connected) if "file" in connected.capabilities.inputs else None
        for _ in range(listing.page_size + 1 - there):
            self._order(connected, own)
        first, *others = self._pages(channel, Query())
        assert len(first.tasks) == listing.page_size, f"page_size: the first page has {len(first.tasks)}"
        assert others, "page_size: there is no second page"
        ids = [task.id for page in (first, *others) for task in page.tasks]
        assert len(ids) == len(set(ids)) > listing.page_size, "page_size: the pages overlap"

    def test_a_sweep_shows_what_goes_on_where_claimed(self, connected: tb.Client, vendor: Any) -> None:
        """The lists of a sweep have a task that goes on, in as many requests as are claimed."""
        channel = channel_of(self.provider, vendor.settings(self.provider))
        bulk = channel.provider.capabilities.bulk
        if bulk is None:
            return
        prefixes = {kind.prefix for kind in channel.provider.capabilities.kinds}
        assert bulk.prefixes <= prefixes, f"bulk: {sorted(bulk.prefixes - prefixes)} are no kinds of ids"
        going_on = self._running(connected, vendor)
        prefix = channel.provider.split_id(going_on.id)[0].prefix
        queries = channel.provider.sweep(frozenset({prefix}), connected.get(going_on).observed_at, 60.0)
        assert 0 < len(queries) <= bulk.queries, f"bulk: {len(queries)} queries for one kind, {bulk.queries} claimed"
        pages = [page for query in queries for page in self._pages(channel, query)]
        assert all(len(page.tasks) <= bulk.page_size for page in pages), "bulk: page_size"
        if prefix in bulk.prefixes:
            assert going_on.id in {task.id for page in pages for task in page.tasks}, "bulk: the task is not shown"

    # What the vendor tells unasked.

    def test_webhooks_are_as_claimed(self, vendor: Any) -> None:
        """A delivery is proved by the claimed scheme, has a claimed event, and a changed one is refused."""
        can = channel_of(self.provider, vendor.settings(self.provider)).provider.capabilities
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


def _parts(channel: Channel, task: Task, result: TaskResult) -> set[str]:
    """The parts of a result that become files; the credential goes to the vendor's own host only."""
    provider, parts = channel.provider, set[str]()
    for piece in provider.written(task, result):
        if isinstance(piece, Made):
            parts.add(piece.part)
            continue
        parts.add("files")
        request = provider.source(piece)
        assert request.method == "GET"
        if request.authorised:
            assert origin_of(request.url) == origin_of(provider.base_url), "the credential goes elsewhere"
    return parts


def _tried(call: Callable[[Task], Task], task: Task) -> Task | None:
    """What a call makes of a task; None where the vendor refuses it for this one."""
    try:
        return call(task)
    except (tb.ApiError, tb.UnsupportedFeature):
        return None


def _in_doubt(client: tb.Client) -> tb.SubmitUncertain:
    return tb.SubmitUncertain("x", clue={"connection": client.name, "provider": client.provider, "reference": "r"})
