"""The part of the conformance suite that tries each claimed operation at an emulated vendor."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import taskbridge as tb
from taskbridge._engine.options import translate_options
from taskbridge._engine.row_trust import same
from taskbridge._transport.requests import RequestsTransport
from taskbridge.models import TaskFile, TaskStatus
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.submission import Query
from taskbridge.testing.conformance.capabilities import EXAMPLES, OPTION_VALUES, CapabilityConformance
from taskbridge.testing.conformance.lookups import get_task
from taskbridge.testing.conformance.samples import Samples, connection_of
from taskbridge.testing.conformance.servers import LosingTransport, MeasuringTransport, local_server, wait_until
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.models import Task, TaskResult
    from taskbridge.provider.base import Provider
    from taskbridge.provider.http import Flow, Request
    from taskbridge.provider.submission import Page

MOST_DOCUMENTS: Final = 20
"""Documents of the largest submission that is tried."""
LARGEST: Final = 64 << 20
"""Bytes of the largest document that is sent to test an upload limit."""
MOST_TASKS: Final = 200
"""Tasks that are created to test a page size."""
MOST_AGE: Final = 86_400.0
"""Seconds since the oldest sample was created, as far as its list is asked."""
A_DAY: Final = 86_400.0
"""Vendor seconds after which a result that can be read once is gone."""
WAIT: Final = 20.0
"""Seconds that an emulated task may take."""
LATE: Final = timedelta(hours=1)
"""Age of a replayed webhook delivery that must be rejected."""


class OperationConformance(CapabilityConformance):
    """What is true of every claimed operation; see `taskbridge.testing.conformance`."""

    # Submissions.

    def test_every_claimed_operation_is_accepted(self, client: tb.Client) -> None:
        """Each neutral operation creates a task that `get` returns."""
        for operation in client.capabilities.operations:
            task = self._submit(client, operation=operation)
            self._check_new_task(client, task, operation)

    def test_every_claimed_option_is_accepted(self, client: tb.Client, vendor: Any) -> None:
        """Each neutral option, with each claimed value, creates a task."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        for operation, table in client.capabilities.options.items():
            for name, row in table.items():
                for value in (OPTION_VALUES[name],) if isinstance(row, str) else row:
                    translated = translate_options(connection, operation, {name: value})
                    needed = {k: v for k, v in self.options.get(operation, {}).items() if k not in translated}
                    try:
                        task = self._submit(client, operation=operation, options=needed, **{name: value})
                    except tb.ApiError as error:
                        raise AssertionError(f"options: {operation} with {name}={value}: {error}") from None
                    self._check_new_task(client, task, f"options: {operation} with {name}={value}")

    def test_every_claimed_media_type_is_accepted(self, client: tb.Client) -> None:
        """A document of each claimed media type is processed; of other types than PDF and PNG, this is not tried."""
        claims = client.capabilities
        for operation, native in claims.operations.items():
            accepts = claims.accepts.get(native)
            stated = accepts.media_types if accepts is not None and "bytes" in claims.inputs else frozenset[str]()
            for media_type in sorted(stated & EXAMPLES.keys()):
                task = client.wait(self._submit(client, EXAMPLES[media_type], operation), timeout=WAIT)
                assert task.status is TaskStatus.COMPLETED, f"accepts: {native} of {media_type} {task.describe()}"

    def test_every_claimed_input_is_accepted(
        self, client: tb.Client, vendor: Any, connection: Connection, samples: Samples, tmp_path: Path
    ) -> None:
        """A document is accepted in each claimed form; URLs are fetched by the library or the vendor, as claimed."""
        del vendor
        claims = client.capabilities
        tasks = [get_task(connection, sample) for sample in samples.values()] if "file" in claims.inputs else []
        files = [file for task in tasks if task.result is not None for file in task.result.files]
        assert files or "file" not in claims.inputs, "inputs: no sample has a file that could be submitted"
        with local_server(self.document) as server:
            inputs = self._inputs(f"{server.url}/document.pdf", files[0] if files else None, tmp_path)
            for kind in sorted(claims.inputs):
                if kind == "file":
                    inputs["file"] = self._result_file(client)
                task = self._submit(client, inputs[kind])
                self._check_new_task(client, task, kind)
            fetched = len(server.received("GET"))
        if "url" in claims.inputs:
            assert (fetched > 0) == claims.fetches_urls, (
                f"fetches_urls: the document's host received {fetched} requests"
            )

    def test_several_documents_are_submitted_where_claimed(self, vendor: Any) -> None:
        """Several documents create one task, and the submission contains all of them."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        claims, transport = connection.provider.capabilities, MeasuringTransport(Network())
        names = {native: neutral for neutral, native in claims.operations.items()}
        one = self.document if "bytes" in claims.inputs else "https://documents.invalid/document.pdf"
        with tb.Client(connection, clock=SystemClock(), transport=transport) as client:
            for native in sorted(word for word, accepts in claims.accepts.items() if accepts.several):
                transport.lengths.clear()
                for documents in (one, [one, one]):
                    task = self._submit(client, documents, names.get(native, f"native:{native}"))
                    self._check_new_task(client, task, native)
                single, double = transport.lengths
                assert single < double, (
                    f"accepts: a submission of {native} with two documents is no longer than with one"
                )
                most = claims.accepts[native].at_most
                if most is not None and most <= MOST_DOCUMENTS:
                    self._submit(client, [one] * most, names.get(native, f"native:{native}"))

    def test_results_have_the_claimed_parts(self, client: tb.Client, vendor: Any) -> None:
        """For each operation, a result or a sample has each claimed part, and no neutral operation has another."""
        claims = client.capabilities
        found: dict[str, set[str]] = {
            operation: _parts_of(client.result(self._submit(client, operation=operation), timeout=WAIT))
            for operation in claims.operations
        }
        for task in self._ended_tasks(client, vendor, TaskStatus.COMPLETED):
            names = [name for name, word in claims.operations.items() if word == task.operation]
            for name in names if len(names) == 1 else [f"native:{task.operation}"]:
                found.setdefault(name, set()).update(_parts_of(client.result(task)))
        for operation, parts in claims.result_parts.items():
            assert parts <= {"text", "pages", "fields"}, f"result_parts: {operation} has unknown parts"
            assert parts <= found.get(operation, set()), f"result_parts: no result of {operation} has all of {parts}"
        for operation in claims.operations:
            others = found[operation] - claims.result_parts.get(operation, frozenset())
            assert not others, f"result_parts: results of {operation} have {sorted(others)}, which is not claimed"

    def test_pages_and_fields_are_sound(self, client: tb.Client, vendor: Any) -> None:
        """Pages have different numbers and boxes within the page, and a result survives JSON."""
        for task in self._ended_tasks(client, vendor, TaskStatus.COMPLETED):
            result = client.result(task)
            numbers = [page.number for page in result.pages]
            assert len(numbers) == len(set(numbers)), "pages: two have the same number"
            for page in result.pages:
                cells = [cell for table in page.tables for cell in table.cells]
                for each in (*page.blocks, *page.lines, *page.words, *cells):
                    assert each.confidence is None or 0 <= each.confidence <= 1, "confidence: not from 0 to 1"
                    assert each.box is None or (
                        0 <= each.box.left <= each.box.right <= 1 and 0 <= each.box.top <= each.box.bottom <= 1
                    ), "box: not within the page"
            assert tb.TaskResult.from_dict(result.to_dict()) == result, "the result differs after JSON"

    def test_external_id_is_returned_where_claimed(self, client: tb.Client) -> None:
        """The vendor returns the caller's id."""
        if client.capabilities.external_id:
            task = self._submit(client, external_id="conformance-1")
            assert client.get(task).external_id == "conformance-1"

    def test_callback_url_is_called_where_claimed(self, client: tb.Client) -> None:
        """The vendor calls the URL of a submission when the task ends."""
        if client.capabilities.callback:
            with local_server(b"") as server:
                self._submit(client, callback_url=f"{server.url}/called")
                wait_until(lambda: bool(server.received("POST")), "callback: the URL was not called")
                assert server.received("POST")[0].path == "/called"

    def test_the_upload_limit_is_as_claimed(self, client: tb.Client, vendor: Any, tmp_path: Path) -> None:
        """A document of the stated size is accepted; one byte more is rejected before it is sent."""
        limit = client.capabilities.upload_limit
        if limit is None or limit > LARGEST:
            return
        path = tmp_path / "large.pdf"
        path.write_bytes(self.document.ljust(limit))
        self._submit(client, path)
        path.write_bytes(self.document.ljust(limit + 1))
        vendor.clear_requests()
        with pytest.raises(tb.InvalidInput):
            self._submit(client, path)
        assert vendor.requests == []

    def test_before_submit_runs_before_work_starts(self, client: tb.Client, vendor: Any) -> None:
        """`before_submit` is called before the request that starts work, which is marked."""
        if not client.capabilities.operations:
            return
        requests_before: list[int] = []

        def before_submit(_recovery_token: Mapping[str, Any]) -> None:
            requests_before.append(len(vendor.requests))

        self._submit(client, before_submit=before_submit)
        assert requests_before, "submit: none of its requests has starts_work=True"
        assert requests_before[-1] < len(vendor.requests), "submit: the request with starts_work=True was not sent"

    def test_recover_finds_an_uncertain_submission_where_claimed(self, vendor: Any) -> None:
        """`recover` finds the task of a submission whose response was lost."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        if connection.provider.capabilities.recover is None:
            return
        with tb.Client(connection, clock=SystemClock(), transport=LosingTransport(Network())) as client:
            with pytest.raises(tb.SubmitUncertain) as caught:
                self._submit(client)
            found = client.recover(caught.value)
            assert found is not None, f"recover: the task was not found by {client.capabilities.recover}"
            assert client.get(found).native_id == found.native_id

    def test_a_repeated_submission_creates_one_task_where_claimed(self, client: tb.Client) -> None:
        """The vendor recognizes a repeated submission."""
        if client.capabilities.idempotency_key:
            assert client.capabilities.external_id, "idempotency_key: needs external_id"
            one, two = (self._submit(client, external_id="conformance-1") for _ in range(2))
            assert one.native_id == two.native_id

    def test_the_account_has_a_balance_where_claimed(self, client: tb.Client) -> None:
        """`account` says how much is left, and of what."""
        if client.capabilities.account:
            account = client.account()
            assert (account.connection, account.provider) == (client.name, client.provider)
            assert account.balance is not None, "account: has no balance"
            assert account.unit is not None, "account: has no unit"

    def test_the_operations_are_listed_where_claimed(self, client: tb.Client) -> None:
        """The vendor's list has the operations behind the neutral ones that it names, and a name narrows it."""
        if client.capabilities.operation_list:
            everything = client.operations()
            names = {each.name for each in everything}
            known = names & set(client.capabilities.operations.values())
            assert known, "operation_list: none of the claimed operations is in the list"
            assert {each.name for each in client.operations(min(known))} == {min(known)}

    def test_tasks_end_with_submit_where_claimed(self, client: tb.Client) -> None:
        """A task that cannot be got later has ended, says so, and is waited for and read without a request."""
        if not client.capabilities.operations:
            return
        task = self._submit(client)
        if task.resumable:
            return
        assert task.is_terminal, f"resumable: the task is {task.describe()} after its submission"
        stored = tb.Task.from_dict(task.to_dict())
        assert client.wait(stored) == client.wait_all([stored])[0].task == stored
        assert stored.resumable is False
        assert client.result(stored) == task.result

    # Results.

    def test_results_are_read_once_where_claimed(self, client: tb.Client, vendor: Any, tmp_path: Path) -> None:
        """A client gives a result as often as it is asked; another one, a day later, only if it can be read again."""
        claims = client.capabilities
        task = self._ended_tasks(client, vendor, TaskStatus.COMPLETED)[0]
        first = client.result(task)
        if not task.resumable:
            return
        if claims.result_once:
            saved = [path.read_bytes() for path in client.download(task, tmp_path / "1")] if claims.downloads else []
            vendor.clock.advance(A_DAY)
            with suppress(tb.TaskNotFound):  # some vendors forget the task with its result
                task = client.get(task)
            assert client.result(task) == first, "result_once: the result is not kept: use read_once"
            if claims.downloads:
                again = client.download(task, tmp_path / "2")
                assert [path.read_bytes() for path in again] == saved, "result_once: the files are not kept"
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        problem = self._problem_of_another_reader(connection, task)
        if claims.result_once:
            assert problem is not None, "result_once: is claimed, but the vendor gives the result again"
        else:
            assert problem is None, f"result_once: is not claimed, but a second client gets no result: {problem}"

    def _problem_of_another_reader(self, connection: Connection, task: Task) -> tb.TaskbridgeError | None:
        """Read a result and its files as a client that knows nothing; return the vendor's error, if there is one."""
        provider = connection.provider
        try:
            found = self._run_flow(connection, provider.get(task.id))
            result = self._run_flow(connection, provider.result(found))
            for file in provider.result_files(found, result):
                if isinstance(file, TaskFile):
                    self._run_flow(connection, _file_flow(provider, provider.download_request(file)))
        except tb.TaskbridgeError as error:
            return error
        return None

    # Existing tasks.

    def test_cancel_stops_a_task_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """`cancel` ends a running task."""
        if not client.capabilities.cancel:
            return
        candidates = [self._running_task(client, vendor)]
        candidates += [t for t in map(client.get, vendor.samples(self.provider_name).values()) if not t.is_terminal]
        stopped = next(
            (task for each in candidates if (task := _unless_rejected(client.cancel, each)) is not None), None
        )
        assert stopped is not None, "cancel: rejected for every running task"
        assert stopped.is_terminal, f"cancel: {stopped.native_status!r} is not terminal"
        assert client.get(stopped).is_terminal

    def test_retry_creates_a_new_task_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """`retry` runs a failed task again, as a new task with `retry_of`."""
        if not client.capabilities.retry:
            return
        for old in self._ended_tasks(client, vendor, TaskStatus.FAILED):
            new = _unless_rejected(client.retry, old)
            if new is not None:
                assert (new.retry_of, new.id == old.id) == (old.id, False)
                assert client.get(new).native_id == new.native_id
                return
        raise AssertionError("retry: rejected for every failed task")

    def test_delete_removes_a_task_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """A deleted task is not found, or its reason says so."""
        if not client.capabilities.delete:
            return
        task = self._ended_tasks(client, vendor, TaskStatus.COMPLETED)[0]
        client.delete(task)
        with suppress(tb.TaskNotFound):
            assert client.get(task).reason in (tb.Reason.DELETED, tb.Reason.EXPIRED)

    def test_a_task_is_marked_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """`mark` is accepted for a completed task, also with another text, and changes no status."""
        if not client.capabilities.mark:
            return
        task = self._ended_tasks(client, vendor, TaskStatus.COMPLETED)[0]
        client.mark(task, "taken")
        client.mark(task, "done")
        assert client.get(task).status is task.status

    def test_files_are_deleted_where_claimed(self, client: tb.Client, vendor: Any, tmp_path: Path) -> None:
        """A file of a result that was deleted cannot be downloaded any more."""
        if not client.capabilities.delete_files:
            return
        ended = self._ended_tasks(client, vendor, TaskStatus.COMPLETED)
        file = next((each for task in ended for each in client.result(task).files if each.id is not None), None)
        assert file is not None, "delete_files: no sample has a file with an id"
        client.delete(file)
        with pytest.raises(tb.TaskNotFound):
            client.download(file, tmp_path / "deleted")

    def test_restart_resets_the_task_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """A restarted task keeps its id, with another status or number of restarts."""
        if not client.capabilities.restart:
            return
        old = self._ended_tasks(client, vendor, TaskStatus.FAILED, TaskStatus.COMPLETED)[0]
        new = client.restart(old, destructive=True)
        assert new.native_id == old.native_id
        assert (new.status, new.restarts) != (old.status, old.restarts)

    def test_a_long_poll_returns_when_the_task_ends_where_claimed(self, vendor: Any) -> None:
        """The vendor answers a long poll when the task ends."""
        from taskbridge.emulator import Plan  # noqa: PLC0415  # needs an extra

        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        if not connection.provider.capabilities.long_poll:
            return
        with tb.Client(connection, clock=SystemClock(), transport=RequestsTransport(Network())) as client:
            vendor.plan_next(self.provider_name, Plan(queued=20, working=20))
            task = self._submit(client)
            flow = connection.provider.long_poll(task.id)
            assert flow is not None, "long_poll: returned None for the id of a submission"
            request = next(flow)
            assert request.long_poll, "long_poll: the request does not have long_poll set"
            ended: Task = self._run_flow(connection, connection.provider.long_poll(task.id))
        assert ended.is_terminal, f"long_poll: the vendor returned {ended.native_status!r} before the end"

    # Lists.

    def _pages(self, connection: Connection, query: Query) -> list[Page]:
        """Return all pages of a list."""
        pages: list[Page] = [self._run_flow(connection, connection.provider.list_page(query, None))]
        while pages[-1].next_cursor is not None and len(pages) < MOST_TASKS:
            pages.append(self._run_flow(connection, connection.provider.list_page(query, pages[-1].next_cursor)))
        return pages

    def test_listing_is_as_claimed(self, client: tb.Client, vendor: Any) -> None:
        """The list contains every sample of its kinds; statuses and filters reach the vendor."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        listing = connection.provider.capabilities.listing
        if listing is None:
            return
        whole = {task.id: task for task in client.list()}
        kinds = {connection.provider.split_id(task_id)[0].prefix for task_id in whole}
        wanted = {
            i for i in vendor.samples(self.provider_name).values() if connection.provider.split_id(i)[0].prefix in kinds
        }
        assert wanted, "listing: the list contains none of the samples"
        assert wanted <= whole.keys(), f"listing: {sorted(wanted - whole.keys())} are not in the list"
        for status in listing.statuses:
            chosen = {task.id for page in self._pages(connection, Query(status)) for task in page.tasks}
            assert {i for i, task in whole.items() if task.status is status} <= chosen, f"statuses: {status}"
            assert chosen < whole.keys(), f"statuses: the list is not restricted to {status}"
        unfiltered = next(connection.provider.list_page(Query(), None))
        for name in listing.filters:
            request = self._filtered_request(connection, name)
            assert request is None or request.url != unfiltered.url, f"filters: {name} does not reach the vendor"

    def _filtered_request(self, connection: Connection, name: str) -> Request | None:
        """Return the request for a list with a filter; None if the provider rejects the values tried."""
        for value in ("conformance", 1, [1]):
            with suppress(tb.TaskbridgeError, TypeError, ValueError):
                return next(connection.provider.list_page(Query(filters={name: value}), None))
        return None

    def test_the_page_size_is_as_claimed(self, client: tb.Client, vendor: Any) -> None:
        """If there are more tasks than fit on a page, the first page is full, and no task is listed twice."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        listing = connection.provider.capabilities.listing
        if listing is None or not connection.provider.capabilities.operations or listing.page_size > MOST_TASKS:
            return
        existing = sum(len(page.tasks) for page in self._pages(connection, Query()))
        document = self._result_file(client) if "file" in client.capabilities.inputs else None
        for _ in range(listing.page_size + 1 - existing):
            self._submit(client, document)
        first, *others = self._pages(connection, Query())
        assert len(first.tasks) == listing.page_size, f"page_size: the first page has {len(first.tasks)}"
        assert others, "page_size: there is no second page"
        ids = [task.id for page in (first, *others) for task in page.tasks]
        assert len(ids) == len(set(ids)) > listing.page_size, "page_size: the pages overlap"

    def test_list_polling_shows_running_tasks_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """The lists of `list_queries` contain a running task, with at most as many queries as claimed."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        list_polling = connection.provider.capabilities.list_polling
        if list_polling is None:
            return
        prefixes = {kind.prefix for kind in connection.provider.capabilities.kinds}
        assert list_polling.prefixes <= prefixes, (
            f"list_polling: {sorted(list_polling.prefixes - prefixes)} are not prefixes of kinds"
        )
        running = self._running_task(client, vendor)
        prefix = connection.provider.split_id(running.id)[0].prefix
        queries = connection.provider.list_queries(frozenset({prefix}), client.get(running).observed_at, 60.0)
        assert 0 < len(queries) <= list_polling.queries, (
            f"list_polling: {len(queries)} queries for one kind, {list_polling.queries} claimed"
        )
        pages = [page for query in queries for page in self._pages(connection, query)]
        assert all(len(page.tasks) <= list_polling.page_size for page in pages), "list_polling: page_size"
        if prefix in list_polling.prefixes:
            assert running.id in {task.id for page in pages for task in page.tasks}, (
                "list_polling: the running task is not listed"
            )

    def test_list_rows_are_whole_where_claimed(self, client: tb.Client, vendor: Any) -> None:
        """A row of a task is the same as the response to a status request, its files and data included."""
        connection = connection_of(self.provider_name, vendor.settings(self.provider_name))
        list_polling = connection.provider.capabilities.list_polling
        if list_polling is None:
            return
        for prefix, source in list_polling.whole_rows.items():
            assert source.startswith("https://"), f"whole_rows: {source!r} is not the address of a page"
            tasks = [client.get(task_id) for task_id in vendor.samples(self.provider_name).values()]
            found = [task for task in tasks if connection.provider.split_id(task.id)[0].prefix == prefix]
            queries = connection.provider.list_queries(frozenset({prefix}), tasks[0].observed_at, MOST_AGE)
            rows = {row.id: row for query in queries for page in self._pages(connection, query) for row in page.tasks}
            compared = [task for task in found if task.is_terminal and task.id in rows]
            assert {task.status for task in compared} >= {task.status for task in found if task.is_terminal}, (
                f"whole_rows: no list of list_queries shows the ended tasks of {prefix!r}"
            )
            for task in compared:
                assert same(rows[task.id], task), f"whole_rows: the row of {task.id} differs from its status response"

    # Webhooks.

    def test_webhooks_are_managed_where_claimed(self, client: tb.Client) -> None:
        """An added webhook has a secret and is listed until it is removed."""
        if not client.capabilities.webhook_management:
            return
        added = client.add_webhook("https://example.com/conformance")
        assert added.secret, "webhook_management: an added webhook has no secret"
        assert added.id in {each.id for each in client.webhooks()}
        client.remove_webhook(added)
        assert added.id not in {each.id for each in client.webhooks()}

    def test_webhooks_are_as_claimed(self, vendor: Any) -> None:
        """A delivery is verified and has a claimed event; a changed or replayed one is rejected."""
        can = connection_of(self.provider_name, vendor.settings(self.provider_name)).provider.capabilities
        if can.webhooks is None:
            return
        with local_server(b"") as server:
            secret = vendor.vendors[self.provider_name].register_webhook(f"{server.url}/hook")
            settings: dict[str, Any] = {**self.quick_settings(vendor), "webhook_secrets": [secret]}
            with tb.connect(self.provider_name, **settings) as client:
                self._submit(client)
                wait_until(lambda: bool(server.received("POST")), "webhooks: the vendor sent none")
                delivery = server.received("POST")[0]
                url = f"{server.url}{delivery.path}"
                event = client.parse_webhook(delivery.headers, delivery.body, url=url)
                assert not can.webhooks.events or event.type in can.webhooks.events, f"events: {event.type!r}"
                assert event.needs_confirmation != can.webhooks.signed_time, (
                    "signed_time: does not match needs_confirmation"
                )
                later = event.occurred_at or client.get(event.ref or "").observed_at
                if can.webhooks.signed_time:
                    with pytest.raises(tb.WebhookRejected):
                        client.parse_webhook(delivery.headers, delivery.body, url=url, now=later + LATE)
                for changed_url, headers, body in self._changed(url, secret, delivery.headers, delivery.body):
                    with pytest.raises(tb.WebhookRejected):
                        client.parse_webhook(headers, body, url=changed_url)

    def _changed(self, url: str, secret: str, headers: Any, body: bytes) -> Iterator[tuple[str, Any, bytes]]:
        """Yield the same delivery, changed so that it must not be verified."""
        if secret in url:
            yield url.replace(secret, "guessed"), headers, body
            return
        yield url, headers, body.replace(b"{", b"{ ", 1)
        yield url, [(name, value) for name, value in headers if "signature" not in name.lower()], body


def _file_flow(provider: Provider[Any], request: Request) -> Flow[None]:
    response = yield request
    if response.status >= 400:
        raise provider.error(response)


def _parts_of(result: TaskResult) -> set[str]:
    """Return which of the neutral parts a result has."""
    parts = {"text": result.text, "pages": result.pages, "fields": result.fields}
    return {name for name, part in parts.items() if part}


def _unless_rejected(call: Callable[[Task], Task], task: Task) -> Task | None:
    """Return the call's result for a task; None if the vendor rejects it for this one."""
    try:
        return call(task)
    except (tb.ApiError, tb.UnsupportedFeature):
        return None
