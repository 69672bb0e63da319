"""The part of the conformance suite that holds a provider to its `capabilities`.

Here is what the class, its samples and its results show, and that what is not claimed is refused before it is sent.
What has to be tried at a vendor stands in `taskbridge.testing.deeds`; that vendor is emulated, for each test anew.
"""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

import taskbridge as tb
from taskbridge._transport.requests import RequestsTransport
from taskbridge.models import TaskStatus
from taskbridge.provider.addresses import origin_of
from taskbridge.provider.base import Provider
from taskbridge.provider.results import GeneratedFile
from taskbridge.testing.looks import LookConformance, look_up
from taskbridge.testing.samples import Sample, asks, client_of, endless, recorded
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.models import Task, TaskFile, TaskResult
    from taskbridge.provider.http import Flow

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
    "get_options": "get_with",
    "long_poll": "long_poll",
    "result_apart": "result",
    "webhooks": "parse_webhook",
    "bulk": "sweep",
}

INPUTS: Final = frozenset({"path", "bytes", "stream", "url", "file"})


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

    def test_claims_and_methods_agree(self, connection: Connection) -> None:
        """What is claimed is written, and what is written is claimed."""
        kind, claims = type(connection.provider), connection.provider.capabilities
        for claim, method in {**{call: method for call, (method, _) in CALLS.items()}, **METHODS}.items():
            claimed = claim in claims.calls if claim in CALLS else bool(getattr(claims, claim))
            written = getattr(kind, method) is not getattr(Provider, method)
            assert written or not claimed, f"{claim}: is claimed, but {method}() is not written"
            if claim != "result_apart":  # a result may be made of the status answer in a way of its own
                assert claimed or not written, f"{claim}: {method}() is written, but not claimed"

    def test_the_claims_hold_together(self, connection: Connection) -> None:
        """Claims that need or rule out each other do."""
        claims = connection.provider.capabilities
        assert claims.authentication, "authentication: say how the vendor knows who is asking"
        assert claims.inputs <= INPUTS, f"inputs: {sorted(claims.inputs - INPUTS)} are none of {sorted(INPUTS)}"
        assert bool(claims.inputs) == bool(claims.operations), "inputs: belong to operations"
        assert not claims.fetches_urls or "url" in claims.inputs, "fetches_urls: without url among the inputs"
        assert claims.list_polling is None or claims.listing is not None, "bulk: needs a list"
        assert claims.recover is None or claims.operations, "recover: of orders that cannot be given"
        assert claims.upload_limit is None or claims.upload_limit > 0, "upload_limit"
        assert claims.result_ttl is None or claims.result_ttl > 0, "result_ttl"
        assert claims.webhooks is None or claims.webhooks.scheme, "webhooks: say what proves the sender"
        if (home := claims.downloads) is not None:
            assert "files" in home.parts or not (home.links or home.resumes), "downloads: links and ranges are of files"

    def test_what_the_provider_claims_is_true(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """What `capabilities` says and what the samples show is the same."""
        claims = connection.provider.capabilities
        tasks = {label: look_up(connection, sample) for label, sample in samples.items()}
        every = [*tasks.values(), *(each for task in tasks.values() for each in task.subtasks)]
        assert any(task.progress is not None for task in every) == claims.progress, "progress"
        assert any(task.subtasks for task in every) == claims.subtasks, "subtasks"
        held = [connection.provider.long_poll(sample.task_id) is not None for sample in samples.values()]
        assert any(held) == claims.long_poll, "long_poll"
        for label, task in tasks.items():
            if task.status is TaskStatus.COMPLETED:
                assert asks(connection.provider.result(task)) == claims.result_apart, f"result_apart: {label}"
        seen = {task.reason for task in every if task.reason is not None}
        assert seen <= set(claims.reasons), f"reasons: {sorted(seen - set(claims.reasons))} occur and are not claimed"

    def test_every_kind_and_reason_is_shown(
        self, emulator: Any, connection: Connection, samples: Mapping[str, Sample]
    ) -> None:
        """A kind of id or a reason that no sample has is no more than an assertion."""
        if emulator is None:
            pytest.skip("only a vendor can show it; there is no emulator")
        claims = connection.provider.capabilities
        tasks = [look_up(connection, sample) for sample in samples.values()]
        seen = {task.reason for each in tasks for task in (each, *each.subtasks) if task.reason is not None}
        assert set(claims.reasons) <= seen, f"reasons: no sample shows {sorted(set(claims.reasons) - seen)}"
        kinds = {connection.provider.split_id(sample.task_id)[0].prefix for sample in samples.values()}
        assert kinds == {kind.prefix for kind in claims.kinds}, "kinds: each needs a sample"

    def test_what_is_not_claimed_is_refused_and_nothing_is_sent(
        self, connection: Connection, samples: Mapping[str, Sample], tmp_path: Path
    ) -> None:
        """A call, an input, a filter or an option that the vendor does not have is UnsupportedFeature at once."""
        claims, task_id = connection.provider.capabilities, next(iter(samples.values())).task_id
        client, transport = client_of(connection, ())
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
        connection: Connection,
        samples: Mapping[str, Sample],
        tmp_path: Path,
    ) -> None:
        """Each completed sample becomes whole files of the parts that are claimed; what is not claimed is refused."""
        claims = connection.provider.capabilities.downloads
        if claims is None:
            client, transport = client_of(connection, ())
            with pytest.raises(tb.UnsupportedFeature):
                client.download(next(iter(samples.values())).task_id, tmp_path)
            assert transport.requests == []
            return
        seen: set[str] = set()
        for label, sample in samples.items():
            task = look_up(connection, sample)
            if task.status is not TaskStatus.COMPLETED:
                continue
            if emulator is None:
                seen |= _parts(connection, task, client_of(connection, endless(connection, sample))[0].result(task))
                continue
            with tb.connect(self.provider, **settings) as client:
                seen |= _parts(connection, task, client.result(task))
                paths = client.download(task, tmp_path / label)
            assert sorted((tmp_path / label).iterdir()) == sorted(paths), label
            assert all(path.is_file() for path in paths), label
        assert seen, "downloads: no sample becomes a file"
        assert seen == set(claims.parts) or (emulator is None and seen < set(claims.parts)), "downloads"

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

    # For the tests that order something.

    def _order(self, client: tb.Client, given: Any = None, operation: str | None = None, **more: Any) -> Task:
        """Give an order; the first claimed operation where none is named."""
        claims = client.capabilities
        operation = operation or next(iter(claims.operations))
        if given is None:
            given = self.document if "bytes" in claims.inputs else "https://documents.invalid/document.pdf"
        return client.submit(operation, given, options=self.options.get(operation), **more)

    def _own_file(self, client: tb.Client) -> TaskFile:
        """A file that a task of this very vendor made."""
        for task in client.list() if client.capabilities.listing else ():
            if task.status is TaskStatus.COMPLETED:
                with suppress(tb.TaskbridgeError):
                    files = client.result(task).files
                    if files:
                        return files[0]
        raise AssertionError("inputs: no task shows a file that could be handed on")

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

    def _driven(self, connection: Connection, flow: Flow[Any] | None) -> Any:
        """What a flow makes of the vendor's own answers."""
        assert flow is not None
        transport = RequestsTransport(Network())
        try:
            credential, _ = recorded(transport, connection, connection.provider.authorize(), {})
            return recorded(transport, connection, flow, credential.headers)[0]
        finally:
            transport.close()


def _parts(connection: Connection, task: Task, result: TaskResult) -> set[str]:
    """The parts of a result that become files; the credential goes to the vendor's own host only."""
    provider, parts = connection.provider, set[str]()
    for piece in provider.result_files(task, result):
        if isinstance(piece, GeneratedFile):
            parts.add(piece.part)
            continue
        parts.add("files")
        request = provider.source(piece)
        assert request.method == "GET"
        if request.authorized:
            assert origin_of(request.url) == origin_of(provider.base_url), "the credential goes elsewhere"
    return parts


def _in_doubt(client: tb.Client) -> tb.SubmitUncertain:
    return tb.SubmitUncertain(
        "x", recovery_token={"connection": client.name, "provider": client.provider, "reference": "r"}
    )
