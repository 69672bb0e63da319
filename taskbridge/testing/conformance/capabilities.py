"""The part of the conformance suite that compares a provider's `capabilities` with its methods, samples and results.

It also checks that features which are not claimed are rejected before anything is sent. Capabilities that must be tried
at a vendor are in `taskbridge.testing.conformance.operations`; each of those tests has its own emulated vendor.
"""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

import taskbridge as tb
from taskbridge._config.registry import check_provider
from taskbridge._transport.requests import RequestsTransport
from taskbridge.models import TaskStatus
from taskbridge.provider.addresses import origin_of
from taskbridge.provider.base import Provider
from taskbridge.provider.capabilities import Accepts
from taskbridge.provider.options import NEUTRAL_OPTIONS, normalize_option
from taskbridge.provider.results import GeneratedFile
from taskbridge.testing.conformance.lookups import LookupConformance, get_task
from taskbridge.testing.conformance.samples import (
    Samples,
    endless_responses,
    find_emulator,
    run_flow_at,
    scripted_client,
    sends_requests,
)
from taskbridge.transport import Network

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.models import Task, TaskFile, TaskResult
    from taskbridge.provider.http import Flow

# Method of the client -> the provider's method behind it, and a call of it.
CALLS: Final[Mapping[str, tuple[str, Callable[[Any, str], object]]]] = {
    "submit": ("submit", lambda client, _: client.submit("native:anything", b"x")),
    "list": ("list_page", lambda client, _: list(client.list())),
    "cancel": ("cancel", lambda client, task_id: client.cancel(task_id)),
    "retry": ("retry", lambda client, task_id: client.retry(task_id)),
    "delete": ("delete", lambda client, task_id: client.delete(task_id)),
    "restart": ("restart", lambda client, task_id: client.restart(task_id, destructive=True)),
    "mark": ("mark", lambda client, task_id: client.mark(task_id, "taken")),
    "recover": ("recover", lambda client, _: client.recover(_uncertain_submission(client))),
    "account": ("account", lambda client, _: client.account()),
    "operations": ("operations", lambda client, _: client.operations()),
    "webhooks": ("webhooks", lambda client, _: client.webhooks()),
    "add_webhook": ("add_webhook", lambda client, _: client.add_webhook("https://example.com/hook")),
    "remove_webhook": ("remove_webhook", lambda client, _: client.remove_webhook("w1")),
}

# Other capability -> the provider's method behind it.
METHODS: Final[Mapping[str, str]] = {
    "get_options": "get_with",
    "long_poll": "long_poll",
    "separate_result": "result",
    "webhooks": "parse_webhook",
    "list_polling": "list_queries",
    "delete_files": "delete_file",
}

# Neutral option -> a value of it.
OPTION_VALUES: Final[Mapping[str, Any]] = {
    "to": "pdf",
    "text_format": "plain",
    "language": "en",
    "pages": "1",
    "dpi": 150,
}

# Neutral option -> a value that few vendors can do.
OTHER_VALUES: Final[Mapping[str, Any]] = {"to": "xyz", "text_format": "html", "language": "tlh"}

MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+", re.ASCII)

# Media type -> a document of it.
EXAMPLES: Final[Mapping[str, bytes]] = {
    "application/pdf": b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n",
    "image/png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x01\0\0\0\0\xec\x74\x83\x26",
    "image/gif": b"GIF89a\x01\0\x01\0\0\0\0;",
}

INPUTS: Final = frozenset({"path", "bytes", "stream", "url", "file"})


class CapabilityConformance(LookupConformance):
    """What is true of every capability; see `taskbridge.testing.conformance`."""

    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Options that a submission needs, by operation (neutral or ``native:…``)."""
    document: ClassVar[bytes] = EXAMPLES["application/pdf"]
    """A document that the vendor accepts."""
    documents: ClassVar[Mapping[str, bytes]] = {}
    """Documents for neutral operations that do not accept `document`."""

    @pytest.fixture
    def vendor(self, emulator: Any) -> Iterator[Any]:
        """The vendor, emulated for one test, which may change it; skips if there is no emulator."""
        if emulator is None:
            pytest.skip("needs an emulator: only a vendor can show it")
        with find_emulator(self.provider_name, 1000, self.emulator_class) as vendor:
            yield vendor

    @pytest.fixture
    def client(self, vendor: Any) -> Iterator[tb.Client]:
        """A client of that vendor."""
        with tb.connect(self.provider_name, **self.quick_settings(vendor)) as client:
            yield client

    def quick_settings(self, vendor: Any) -> dict[str, Any]:
        """Return keywords for `taskbridge.connect`, with pauses short enough for tests."""
        fast: dict[str, Any] = {"poll": {"interval": 0.01}, "retry": {"first": 0.01}, "allow_private": True}
        return {**vendor.settings(self.provider_name), **fast}

    # The class and the samples.

    def test_the_installed_provider_is_listed(self) -> None:
        """`taskbridge.providers` lists it, without a problem; `taskbridge.connect` accepts the class of another."""
        if not isinstance(self.provider, str):
            assert check_provider(self.provider) is self.provider
            return
        found = [info for info in tb.providers() if info.name == self.provider_name]
        assert [info.problem for info in found] == [None]

    def test_capabilities_match_the_methods(self, connection: Connection) -> None:
        """Every claimed capability has its method, and every method its capability."""
        kind, claims = type(connection.provider), connection.provider.capabilities
        calls = [(call, method, call in claims.calls) for call, (method, _) in CALLS.items()]
        others = [(name, method, bool(getattr(claims, name))) for name, method in METHODS.items()]
        for claim, method, claimed in calls + others:
            implemented = getattr(kind, method) is not getattr(Provider, method)
            assert implemented or not claimed, f"{claim}: is claimed, but {method}() is not implemented"
            if claim != "separate_result":  # result() may also read the status response in its own way
                assert claimed or not implemented, f"{claim}: {method}() is implemented, but not claimed"

    def test_capabilities_are_consistent(self, connection: Connection) -> None:
        """Capabilities that depend on each other agree."""
        claims = connection.provider.capabilities
        assert claims.authentication, "authentication: say how requests are authenticated"
        assert claims.inputs <= INPUTS, f"inputs: {sorted(claims.inputs - INPUTS)} are not in {sorted(INPUTS)}"
        assert bool(claims.inputs) == bool(claims.operations), "inputs: need operations, and operations need inputs"
        assert not claims.fetches_urls or "url" in claims.inputs, "fetches_urls: needs url in inputs"
        assert claims.list_polling is None or claims.listing is not None, "list_polling: needs listing"
        assert claims.recover is None or claims.operations, "recover: needs operations"
        for operation, table in claims.options.items():
            assert operation in claims.operations, f"options: {operation} is not in operations"
            unknown = set(table) - set(NEUTRAL_OPTIONS.get(operation, ()))
            assert not unknown, f"options: {operation} has no neutral option {sorted(unknown)}"
            for name, row in table.items():
                for value in () if isinstance(row, str) else row:
                    assert normalize_option(name, value) == value, f"options: {value} is not the spelling of {name}"
        for native, accepts in claims.accepts.items():
            wrong = [each for each in accepts.media_types if not MEDIA_TYPE.fullmatch(each)]
            assert not wrong, f"accepts: {native} has {wrong}, which are no media types"
            at_most = accepts.at_most
            assert at_most is None or (accepts.several and at_most > 1), f"accepts: {native} takes at most {at_most}"
        assert claims.upload_limit is None or claims.upload_limit > 0, "upload_limit: must be positive"
        assert claims.result_ttl is None or claims.result_ttl > 0, "result_ttl: must be positive"
        assert claims.webhooks is None or claims.webhooks.scheme, "webhooks: say how the sender is verified"
        if (downloads := claims.downloads) is not None:
            only_files = downloads.links or downloads.resumes
            assert "files" in downloads.parts or not only_files, "downloads: links and resumes need files in parts"

    def test_capabilities_match_the_samples(self, connection: Connection, samples: Samples) -> None:
        """The samples show what `capabilities` claims, and nothing else."""
        claims = connection.provider.capabilities
        tasks = {label: get_task(connection, sample) for label, sample in samples.items()}
        every = [*tasks.values(), *(each for task in tasks.values() for each in task.subtasks)]
        assert any(task.progress is not None for task in every) == claims.progress, "progress"
        assert any(task.subtasks for task in every) == claims.subtasks, "subtasks"
        long_polls = [connection.provider.long_poll(sample.task_id) is not None for sample in samples.values()]
        assert any(long_polls) == claims.long_poll, "long_poll"
        for label, task in tasks.items():
            if task.status is TaskStatus.COMPLETED:
                assert sends_requests(connection.provider.result(task)) == claims.separate_result, (
                    f"separate_result: {label}"
                )
        units = {task.usage.unit for task in every if task.usage is not None}
        assert units <= set(claims.usage), f"usage: {sorted(units - set(claims.usage))} occur and are not claimed"
        assert bool(units) == bool(claims.usage), "usage: is claimed, but no sample shows it"
        seen = {task.reason for task in every if task.reason is not None}
        assert seen <= set(claims.reasons), f"reasons: {sorted(seen - set(claims.reasons))} occur and are not claimed"

    def test_every_id_kind_and_reason_has_a_sample(
        self, emulator: Any, connection: Connection, samples: Samples
    ) -> None:
        """The samples show every claimed kind of id and every claimed reason."""
        if emulator is None:
            pytest.skip("needs an emulator: only a vendor can show it")
        claims = connection.provider.capabilities
        tasks = [get_task(connection, sample) for sample in samples.values()]
        seen = {task.reason for each in tasks for task in (each, *each.subtasks) if task.reason is not None}
        assert set(claims.reasons) <= seen, f"reasons: no sample shows {sorted(set(claims.reasons) - seen)}"
        kinds = {connection.provider.split_id(sample.task_id)[0].prefix for sample in samples.values()}
        assert kinds == {kind.prefix for kind in claims.kinds}, "kinds: each needs a sample"

    def test_unsupported_features_are_rejected_before_any_request(
        self, connection: Connection, samples: Samples, tmp_path: Path
    ) -> None:
        """Methods, inputs, filters and options that are not claimed raise UnsupportedFeature; nothing is sent."""
        claims, task_id = connection.provider.capabilities, next(iter(samples.values())).task_id
        client, transport = scripted_client(connection, ())
        calls: dict[str, Callable[[], object]] = {
            call: (lambda make=make: make(client, task_id))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            for call, (_, make) in CALLS.items()
            if call not in claims.calls
        }
        calls["an option of get"] = lambda: client.get(task_id, options={"no-such-option": "x"})
        if claims.listing is not None:
            calls["a filter"] = lambda: list(client.list(no_such_filter="x"))
        for native in claims.operations.values():
            calls |= {
                f"{what}: {native}": call for what, call in self._unsupported_submissions(client, native, tmp_path)
            }
        for operation in claims.operations:
            calls |= self._unsupported_options(client, operation)
        if claims.operations:
            calls["an operation"] = lambda: client.submit("no-such-operation", b"x")
        if claims.webhooks is None:
            calls["a webhook"] = lambda: client.parse_webhook({}, b"{}")
        for what, call in calls.items():
            try:
                call()
            except tb.UnsupportedFeature:
                continue
            raise AssertionError(f"{what}: is not claimed, but is not rejected either")
        assert transport.requests == []

    def _unsupported_submissions(
        self, client: tb.Client, native: str, folder: Path
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield submissions of an operation that need more than is claimed."""
        claims, operation = client.capabilities, f"native:{native}"
        inputs = self._inputs("https://documents.invalid/a.pdf", None, folder)
        for kind in INPUTS - claims.inputs - {"file"}:
            yield f"input {kind}", lambda kind=kind: client.submit(operation, inputs[kind])  # type: ignore[misc]  # mypy cannot infer a lambda's default
        accepted = inputs[min(claims.inputs - {"file"})]
        accepts = claims.accepts.get(native, Accepts())
        if not accepts.several:
            yield "several documents", lambda: client.submit(operation, [accepted, accepted])
        elif (most := accepts.at_most) is not None:
            yield "too many documents", lambda: client.submit(operation, [accepted] * (most + 1))
        if not claims.external_id:
            yield "external_id", lambda: client.submit(operation, accepted, external_id="x")
        if not claims.callback:
            yield "callback_url", lambda: client.submit(operation, accepted, callback_url="https://example.com/")

    def _unsupported_options(self, client: tb.Client, operation: str) -> dict[str, Callable[[], object]]:
        """Return submissions with neutral options, values and media types that are not claimed."""
        claims = client.capabilities
        document = self._document(client, operation)
        given: list[tuple[str, Any]] = [
            (name, OPTION_VALUES[name])
            for name in NEUTRAL_OPTIONS.get(operation, ())
            if name not in claims.options.get(operation, {})
        ]
        given += [
            (name, OTHER_VALUES[name])
            for name, row in claims.options.get(operation, {}).items()
            if not isinstance(row, str) and OTHER_VALUES.get(name, next(iter(row))) not in row
        ]
        calls: dict[str, Callable[[], object]] = {
            f"{operation} with {name}={value}": partial(client.submit, operation, document, **{name: value})
            for name, value in given
        }
        accepted = claims.accepts.get(claims.operations[operation], Accepts()).media_types
        if accepted and "bytes" in claims.inputs:
            other = next(content for media_type, content in EXAMPLES.items() if media_type not in accepted)
            calls[f"{operation} of another media type"] = partial(client.submit, operation, other)
        return calls

    def _document(self, client: tb.Client, operation: str) -> bytes | str:
        """Return a document that an operation accepts, in a form that the vendor accepts."""
        if "bytes" in client.capabilities.inputs:
            return self.documents.get(operation, self.document)
        return "https://documents.invalid/document.pdf"

    def _inputs(self, url: str, file: TaskFile | None, folder: Path) -> dict[str, Any]:
        """Return the suite's document in each form of `INPUTS`."""
        path = folder / "document.pdf"
        path.write_bytes(self.document)
        return {"path": path, "bytes": self.document, "stream": BytesIO(self.document), "url": url, "file": file}

    # Results.

    def test_results_download_as_claimed(
        self,
        emulator: Any,
        settings: Mapping[str, Any],
        connection: Connection,
        samples: Samples,
        tmp_path: Path,
    ) -> None:
        """Each completed sample downloads as files of the claimed parts; without `downloads` it is rejected."""
        claims = connection.provider.capabilities.downloads
        if claims is None:
            client, transport = scripted_client(connection, ())
            with pytest.raises(tb.UnsupportedFeature):
                client.download(next(iter(samples.values())).task_id, tmp_path)
            assert transport.requests == []
            return
        seen: set[str] = set()
        for label, sample in samples.items():
            task = get_task(connection, sample)
            if task.status is not TaskStatus.COMPLETED:
                continue
            if emulator is None:
                client = scripted_client(connection, endless_responses(connection, sample))[0]
                seen |= _parts(connection, task, client.result(task))
                continue
            local: dict[str, Any] = {**settings, "allow_private": True}  # where emulators serve files
            with tb.connect(self.provider_name, **local) as client:
                seen |= _parts(connection, task, client.result(task))
                paths = client.download(task, tmp_path / label)
            assert sorted((tmp_path / label).iterdir()) == sorted(paths), label
            assert all(path.is_file() for path in paths), label
        assert seen, "downloads: no sample has a file"
        assert seen == set(claims.parts) or (emulator is None and seen < set(claims.parts)), "downloads"

    def test_results_expire_as_claimed(self, vendor: Any) -> None:
        """A result expires after `result_ttl`, or its files say so."""
        with tb.connect(self.provider_name, **self.quick_settings(vendor)) as client:
            ttl = client.capabilities.result_ttl
            if ttl is None:
                return
            task = self._ended_tasks(client, vendor, TaskStatus.COMPLETED)[0]
            files = client.result(task).files
            expiries = [file.expires_at for file in files if file.expires_at is not None]
            if expiries and task.finished_at is not None:
                assert abs((expiries[0] - task.finished_at).total_seconds() - ttl) < max(60.0, ttl / 100)
                return
            vendor.clock.advance(ttl + 60)
            with pytest.raises(tb.TaskbridgeError):
                client.result(task)

    # Helpers for tests that submit.

    def _submit(self, client: tb.Client, document: Any = None, operation: str | None = None, **more: Any) -> Task:
        """Submit a document, by default the suite's own with the first claimed operation."""
        claims = client.capabilities
        operation = operation or next(iter(claims.operations))
        if document is None:
            document = self._document(client, operation)
        keywords: dict[str, Any] = {"options": self.options.get(operation), **more}
        return client.submit(operation, document, **keywords)

    def _check_new_task(self, client: tb.Client, task: Task, label: str) -> None:
        """Check that a new task can be got, or that it says that it cannot, and is refused before anything is sent."""
        if task.resumable:
            assert client.get(task).native_id == task.native_id, label
            return
        with pytest.raises(tb.UnsupportedFeature):
            client.get(task.ref)

    def _result_file(self, client: tb.Client) -> TaskFile:
        """Return a result file of this vendor that the first claimed operation accepts."""
        operation = next(iter(client.capabilities.operations))
        for task in client.list() if client.capabilities.listing else ():
            if task.status is TaskStatus.COMPLETED:
                with suppress(tb.TaskbridgeError):
                    files = [file for file in client.result(task).files if client.can(operation, file)]
                    if files:
                        return files[0]
        raise AssertionError("inputs: no task has a file that could be submitted")

    def _running_task(self, client: tb.Client, vendor: Any) -> Task:
        """Return a task that has not ended."""
        from taskbridge.emulator import Plan  # noqa: PLC0415  # needs an extra

        if client.capabilities.operations:
            vendor.plan_next(self.provider_name, Plan(outcome="stuck"))
            return self._submit(client)
        tasks = map(client.get, vendor.samples(self.provider_name).values())
        return next(task for task in tasks if not task.is_terminal)

    def _ended_tasks(self, client: tb.Client, vendor: Any, *statuses: TaskStatus) -> list[Task]:
        """Return the samples with one of these statuses; where tasks end with their submission, new tasks."""
        if not any(kind.resumable for kind in client.capabilities.kinds):
            return [self._submit(client) for status in statuses if status is TaskStatus.COMPLETED]
        tasks = [client.get(task_id) for task_id in vendor.samples(self.provider_name).values()]
        return [task for task in tasks if task.status in statuses]

    def _run_flow(self, connection: Connection, flow: Flow[Any] | None) -> Any:
        """Run a flow against the vendor; return its result."""
        assert flow is not None
        with closing(RequestsTransport(Network())) as transport:
            credential, _ = run_flow_at(transport, connection, connection.provider.authorize(), {})
            return run_flow_at(transport, connection, flow, credential.headers)[0]


def _parts(connection: Connection, task: Task, result: TaskResult) -> set[str]:
    """Return the parts of a result that become files; check that the credential goes to the vendor's host only."""
    provider, parts = connection.provider, set[str]()
    for piece in provider.result_files(task, result):
        if isinstance(piece, GeneratedFile):
            parts.add(piece.part)
            continue
        parts.add("files")
        request = provider.download_request(piece)
        assert request.method == "GET"
        if request.authorized:
            assert origin_of(request.url) == origin_of(provider.base_url), "the credential is sent to another host"
    return parts


def _uncertain_submission(client: tb.Client) -> tb.SubmitUncertain:
    return tb.SubmitUncertain(
        "x", recovery_token={"connection": client.name, "provider": client.provider, "reference": "r"}
    )
