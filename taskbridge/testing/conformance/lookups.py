"""The part of the conformance suite about status requests: flows, ids, statuses, errors, secrets, sync and async."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.defaults import override_defaults
from taskbridge.models import TaskStatus
from taskbridge.provider.http import Request, Response
from taskbridge.testing.conformance.checks import check_task, error_content, run_within_limit, watch_io
from taskbridge.testing.conformance.samples import (
    UNKNOWN_STATUSES,
    RecordedSamples,
    Sample,
    Samples,
    connection_of,
    endless_responses,
    find_emulator,
    reset_connection,
    run_flow,
    scripted_client,
    takes_more,
    with_unknown_status,
)
from taskbridge.testing.transport import AsyncScriptedTransport, ScriptedTransport

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.emulator.vendor import VendorEmulator
    from taskbridge.models import Task
    from taskbridge.provider.base import Provider
    from taskbridge.provider.capabilities import IdKind

CANARY: Final = "canary-7f3a9c51e2"
"""Replaces every credential in the tests that search for leaks."""

# No vendor can have these as plain ids: they change the path, inject a header or a line, or are not valid text.
IMPOSSIBLE_IDS: Final[tuple[str, ...]] = (
    "",
    ".",
    "..",
    "../../admin",
    "t1\r\nX-Injected: yes",
    "t1\n",
    "t\x001",
    "t\ud800",
    "a" * 10_000,
)

# Bodies that a broken vendor or a proxy in front of it sends with 200.
UNREADABLE: Final[tuple[tuple[str, bytes], ...]] = (
    ("nothing", b""),
    ("blanks", b" \n"),
    ("a web page", b"<!doctype html><html><head><title>Back soon</title></head></html>"),
    ("a list", b"[]"),
    ("null", b"null"),
    ("a text", b'"completed"'),
    ("a number", b"42"),
    ("an empty object", b"{}"),
    ("a cut body", b'{"id": "t1", "stat'),
    ("another shape", b'{"message": "no", "code": "OOPS"}'),
)


class LookupConformance:
    """What is true of every status request, tested with recorded responses; see `taskbridge.testing.conformance`."""

    provider: ClassVar[str | type[Provider[Any]]]
    """Entry-point name of the provider, or its class, which then needs no distribution."""
    emulator_class: ClassVar[type[VendorEmulator] | None] = None
    """Emulator of the vendor; None for the installed one of the provider's name."""
    provider_name: ClassVar[str]
    """The provider's name, set by the suite."""
    status_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that contain the vendor's status, if replacing every equal value would be wrong."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Set the provider's name."""
        super().__init_subclass__(**keywords)
        provider = getattr(cls, "provider", None)
        if provider is not None:
            cls.provider_name = provider if isinstance(provider, str) else provider.name

    # Fixtures; override those that differ for your vendor.

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def provider_in_use(cls) -> Iterator[None]:
        """Make the name of a provider that was given as a class stand for it."""
        given = {} if isinstance(cls.provider, str) else {cls.provider_name: cls.provider}
        with override_defaults(providers=given):
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def emulator(cls) -> Iterator[Any]:
        """The emulated vendor; None if there is no emulator."""
        emulator = find_emulator(cls.provider_name, 20, cls.emulator_class)
        if emulator is None:
            yield None
            return
        with emulator:
            yield emulator

    @pytest.fixture(scope="class")
    @classmethod
    def recorded_samples(cls, emulator: Any) -> RecordedSamples | None:
        """The emulator's responses, recorded once; None without an emulator."""
        return None if emulator is None else RecordedSamples.of(cls.provider_name, emulator)

    @pytest.fixture
    def settings(self, emulator: Any) -> Mapping[str, Any]:
        """Keywords for `taskbridge.connect`."""
        if emulator is None:
            raise NotImplementedError(f"{self.provider_name} has no emulator: override the fixture `settings`")
        return cast("Mapping[str, Any]", emulator.settings(self.provider_name))

    @pytest.fixture
    def samples(self, recorded_samples: RecordedSamples | None, connection: Connection) -> Samples:
        """Tasks by label, with the vendor's responses; they must include a completed and a failed task."""
        if recorded_samples is None:
            raise NotImplementedError(f"{self.provider_name} has no emulator: override the fixture `samples`")
        if not any(kind.resumable for kind in connection.provider.capabilities.kinds):
            pytest.skip("its tasks end with their submission, so that there are no status requests")
        return recorded_samples.samples

    @pytest.fixture
    def login_responses(self, recorded_samples: RecordedSamples | None) -> Sequence[Response]:
        """The vendor's responses to the requests of `authorize`; empty if it sends none."""
        return () if recorded_samples is None else recorded_samples.login_responses

    @pytest.fixture
    def connection(self, settings: Mapping[str, Any], login_responses: Sequence[Response]) -> Connection:
        """The connection under test, with its credential."""
        connection = connection_of(self.provider_name, settings)
        connection.credentials.current = replace(
            run_flow(connection.provider.authorize(), login_responses), expires_at=None
        )
        return connection

    # Flows.

    def test_flows_do_no_io_and_end(self, connection: Connection, samples: Samples) -> None:
        """`get` is a generator that opens no socket and no file between its requests, and ends."""
        for label, sample in samples.items():

            def operate(sample: Sample = sample, label: str = label) -> None:
                flow = connection.provider.get(sample.task_id)
                assert hasattr(flow, "send"), f"{label}: get returned {type(flow).__name__}, which is not a flow"
                run_flow(flow, sample.responses)

            operate()  # once before, because imports open files
            with watch_io() as seen:
                run_within_limit(operate, label)
            assert seen == [], f"{label}: a flow did I/O"

    def test_a_closed_flow_ends(self, connection: Connection, samples: Samples) -> None:
        """A flow that is closed before its end stops."""
        for sample in samples.values():
            flow = connection.provider.get(sample.task_id)
            next(flow)
            run_within_limit(flow.close, sample.task_id)

    def test_a_signature_changes_nothing_but_headers_and_query(self, connection: Connection, samples: Samples) -> None:
        """`sign` does no I/O, and the signed request asks the same host for the same."""
        for label, sample in samples.items():
            flow = connection.provider.get(sample.task_id)
            request, signed = next(flow), list[Request]()
            flow.close()

            def operate(request: Request = request, signed: list[Request] = signed) -> None:
                signed.append(connection.provider.sign(request, connection.clock.now()))

            operate()  # once before, because imports open files
            with watch_io() as seen:
                run_within_limit(operate, label)
            assert seen == [], f"{label}: sign did I/O"
            for each in signed:
                before, after = urlsplit(request.url), urlsplit(each.url)
                assert (after.scheme, after.netloc, after.path) == (before.scheme, before.netloc, before.path), label
                assert replace(each, url="", headers={}) == replace(request, url="", headers={}), label

    # Ids.

    @pytest.mark.parametrize("task_id", IMPOSSIBLE_IDS, ids=lambda text: repr(text[:20]))
    def test_impossible_ids_are_rejected_before_any_request(self, connection: Connection, task_id: str) -> None:
        """A text that cannot be an id raises InvalidTaskId, and nothing is sent."""
        client, transport = scripted_client(connection, ())
        with pytest.raises(tb.InvalidTaskId):
            client.get(task_id)
        assert transport.requests == []

    def test_the_example_of_each_id_kind_has_that_kind(self, connection: Connection) -> None:
        """Messages show the examples, so they must be right."""
        for kind in connection.provider.capabilities.kinds:
            assert kind.example, f"the kind {kind.prefix or kind.noun!r} has no example"
            assert connection.provider.split_id(kind.example)[0] is kind

    # Status requests.

    def test_each_sample_becomes_a_valid_task(self, connection: Connection, samples: Samples) -> None:
        """`get` returns a valid task for each sample."""
        for label, sample in samples.items():
            task = get_task(connection, sample)
            assert task.id == sample.task_id, label
            assert task.provider == self.provider_name, label
            assert task.recognized, f"{label}: the provider does not recognize the status {task.native_status!r}"
            check_task(task, label)

    def test_the_samples_include_a_completed_and_a_failed_task(self, connection: Connection, samples: Samples) -> None:
        """The samples include a completed and a failed task."""
        seen = {get_task(connection, sample).status for sample in samples.values()}
        assert seen >= {TaskStatus.COMPLETED, TaskStatus.FAILED}

    def test_a_response_about_another_task_is_detected(self, connection: Connection, samples: Samples) -> None:
        """A response with another task's id raises IdentityMismatch, once it was received twice."""
        pairs = [pair for kind in connection.provider.capabilities.kinds for pair in _pairs(connection, kind, samples)]
        if not pairs:
            assert all(kind.identity is None for kind in connection.provider.capabilities.kinds) or len(samples) < 2
            pytest.skip("the vendor's responses do not contain the task's id")
        for requested, other in pairs:
            mixed_up = Sample(requested.task_id, other.responses)
            client, transport = scripted_client(connection, endless_responses(connection, mixed_up))
            with pytest.raises(tb.IdentityMismatch):
                client.get(requested.task_id)
            urls = [request.url for request in transport.requests]  # a result that is read once is not sent twice
            assert urls.count(urls[0]) > 1

    def test_an_unknown_status_is_processing_and_not_recognized(self, connection: Connection, samples: Samples) -> None:
        """A status that the vendor adds later is `processing` with `recognized=False`."""
        for label, changed in self._with_unknown_statuses(connection, samples):
            task = get_task(connection, changed)
            assert (task.status, task.recognized) == (TaskStatus.PROCESSING, False), label
            assert task.native_status in UNKNOWN_STATUSES, label
            check_task(task, label)

    @pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
    def test_the_setting_states_maps_an_unknown_status(
        self, connection: Connection, samples: Samples, status: TaskStatus
    ) -> None:
        """A user can map a status that the vendor adds later, without a new version of the provider."""
        own = dict.fromkeys(UNKNOWN_STATUSES, (status, None))
        seen = 0
        for label, changed in self._with_unknown_statuses(connection, samples):
            connection.provider.states = own
            flow = connection.provider.get(changed.task_id)
            reads_more = takes_more(flow, changed.responses)
            task = None if reads_more else get_task(connection, changed)
            connection.provider.states = {}
            if task is None:  # now that it has ended, the result is read, which the sample does not have
                continue
            seen += 1
            assert (task.status, task.recognized) == (status, True), (
                f"{label}: the status is not read through `Provider.state`, which knows the setting `states`"
            )
            assert (task.error is not None) == (status is TaskStatus.FAILED), label
        assert seen, "each sample needs a further request"

    def _with_unknown_statuses(self, connection: Connection, samples: Samples) -> list[tuple[str, Sample]]:
        """Return the samples with an unknown status; a response without JSON, such as a redirect, has none."""
        changed: list[tuple[str, Sample]] = []
        for label, sample in samples.items():
            word = get_task(connection, sample).native_status
            responses = tuple(with_unknown_status(each, word, self.status_fields) for each in sample.responses)
            if any(_said(new) != _said(old) for new, old in zip(responses, sample.responses, strict=True)):
                changed.append((label, Sample(sample.task_id, responses)))
        assert changed, "no sample has its status in a response: set `status_fields`"
        return changed

    @pytest.mark.parametrize(("what", "body"), UNREADABLE, ids=[what for what, _ in UNREADABLE])
    def test_an_unreadable_response_is_a_contract_error(
        self, connection: Connection, samples: Samples, what: str, body: bytes
    ) -> None:
        """A body that cannot be read raises ContractError: never a KeyError, never a task without data."""
        del what
        for sample in samples.values():
            client, transport = scripted_client(connection, lambda _: Response(200, {}, body))
            with pytest.raises(tb.ContractError) as caught:
                client.get(sample.task_id)
            assert "is broken" not in caught.value.message
            assert len(transport.requests) <= connection.retry.attempts

    # Errors.

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, tb.ApiError),
            (401, tb.AuthenticationError),
            (403, tb.ApiError),
            (404, tb.TaskNotFound),
            (429, tb.RateLimited),
            (500, tb.ServerError),
            (503, tb.ServerError),
            (302, tb.UnexpectedRedirect),
            (307, tb.UnexpectedRedirect),
            (206, tb.MalformedResponse),
        ],
    )
    def test_http_errors_raise_the_matching_class(
        self, connection: Connection, samples: Samples, status: int, kind: type[tb.TaskbridgeError]
    ) -> None:
        """Each HTTP status raises its class, even if the body is empty or misleading."""
        sample = next(iter(samples.values()))
        for body in (b"", b"<html>", b"[]", b'{"message": null, "code": 7, "status": "completed"}'):
            client, _ = scripted_client(connection, lambda _, body=body: Response(status, {}, body))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            with pytest.raises(kind) as caught:
                client.get(sample.task_id)
            assert caught.value.http_status == status
            assert caught.value.ref == f"{connection.name}:{sample.task_id}"
            connection.credentials.refusal = None

    def test_redirects_are_not_followed(self, connection: Connection, samples: Samples) -> None:
        """The credential is sent to the vendor's host only."""
        sample = next(iter(samples.values()))
        away = Response(302, {"location": "https://elsewhere.test/"})
        client, transport = scripted_client(connection, (away,))
        with pytest.raises(tb.UnexpectedRedirect):
            client.get(sample.task_id)
        assert len({urlsplit(request.url).netloc for request in transport.requests}) == 1

    def test_a_wrong_credential_is_an_authentication_error(
        self, emulator: Any, settings: Mapping[str, Any], samples: Samples
    ) -> None:
        """A rejected credential raises AuthenticationError, which does not show it."""
        if emulator is None:
            pytest.skip("needs an emulator: only a vendor can reject a credential")
        wrong: dict[str, Any] = {**settings, **dict.fromkeys(_secret_keys(self.provider_name, settings), CANARY)}
        with tb.connect(self.provider_name, **wrong) as client, pytest.raises(tb.AuthenticationError) as caught:
            client.get(next(iter(samples.values())).task_id)
        assert CANARY not in error_content(caught.value)

    # Secrets.

    def test_no_credential_is_exposed(
        self,
        settings: Mapping[str, Any],
        samples: Samples,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No repr, error, pickle or log line contains a credential, even if the vendor echoes it."""
        caplog.set_level(logging.DEBUG)
        keys = _secret_keys(self.provider_name, settings)
        assert keys, "the settings contain no SecretStr: how are requests authenticated?"
        connection = connection_of(self.provider_name, {**settings, **dict.fromkeys(keys, CANARY)})
        connection.credentials.current = None
        echo = json.dumps({"message": f"bad key {CANARY}", "code": CANARY, "title": CANARY, "error": CANARY}).encode()
        sample = next(iter(samples.values()))
        shown = [repr(connection), repr(connection.provider), repr(connection.provider.settings)]
        for status in (200, 400, 401, 403, 404, 422, 500):
            client, transport = scripted_client(connection, lambda _, status=status: Response(status, {}, echo))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            with pytest.raises(tb.TaskbridgeError) as caught:
                client.get(sample.task_id)
            shown += [repr(client), error_content(caught.value), *(repr(request) for request in transport.requests)]
        assert CANARY not in "\n".join([*shown, caplog.text])

    def test_no_task_contains_a_credential(
        self, connection: Connection, settings: Mapping[str, Any], samples: Samples
    ) -> None:
        """A credential that the vendor's response repeats is not in the task."""
        secrets = [str(settings[key]) for key in _secret_keys(self.provider_name, settings)]
        for label, sample in samples.items():
            task = get_task(connection, sample)
            content = f"{task!r} {task.raw!r} {pickle.dumps(task)!r}"
            assert not [secret for secret in secrets if secret in content], f"{label}: the task contains a credential"

    def test_settings_and_clients_cannot_be_pickled(self, connection: Connection) -> None:
        """Objects that contain a credential cannot be pickled."""
        client, _ = scripted_client(connection, ())
        for each in (client, connection.provider.settings):
            with pytest.raises(TypeError):
                pickle.dumps(each)

    # Sync and async.

    def test_sync_and_async_agree(self, connection: Connection, samples: Samples) -> None:
        """`get`, `wait` and `result` send the same requests and return the same, synchronous or not."""
        for label, sample in samples.items():
            if not get_task(connection, sample).is_terminal:
                continue
            assert _run_sync(connection, sample) == _run_async(connection, sample), label


def _run_sync(connection: Connection, sample: Sample) -> list[object]:
    client, transport = scripted_client(connection, endless_responses(connection, sample))
    return _outcomes(lambda verb: getattr(client, verb)(sample.task_id), transport)


def _run_async(connection: Connection, sample: Sample) -> list[object]:
    transport = AsyncScriptedTransport(endless_responses(connection, sample))
    client = aio.Client(connection, clock=reset_connection(connection), transport=transport)
    with asyncio.Runner() as runner:
        return _outcomes(lambda verb: runner.run(getattr(client, verb)(sample.task_id)), transport)


def _outcomes(call: Callable[[str], object], transport: ScriptedTransport | AsyncScriptedTransport) -> list[object]:
    returned = [call("get"), call("wait")]
    try:
        returned.append(call("result"))
    except tb.TaskbridgeError as error:
        returned.append(error_content(error))
    return [*returned, [(r.method, r.url, dict(r.headers), r.body) for r in transport.requests]]


def _pairs(connection: Connection, kind: IdKind, samples: Samples) -> list[tuple[Sample, Sample]]:
    """Return a sample to request and another to respond with, of one kind and with different ids."""
    if kind.identity is None:
        return []
    same = [s for s in samples.values() if connection.provider.split_id(s.task_id)[0] is kind]
    return [(same[0], other) for other in same[1:2]]


def _secret_keys(provider: str, settings: Mapping[str, Any]) -> list[str]:
    fields = connection_of(provider, settings).provider.Settings.model_fields
    return [key for key in settings if key in fields and _is_secret(fields[key].annotation)]


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or annotation == SecretStr | None


def _said(response: Response) -> tuple[object, ...]:
    return response.status, response.headers, response.body


def get_task(connection: Connection, sample: Sample) -> Task:
    """Return the task that `client.get` returns for a sample."""
    client, _ = scripted_client(connection, sample.responses)
    return client.get(sample.task_id)
