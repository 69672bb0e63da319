"""The part of the conformance suite that looks tasks up: flows, ids, words, refusals, secrets, both interfaces."""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge.models import TaskStatus
from taskbridge.provider.http import Response
from taskbridge.testing.checks import Watch, check_task, everything, within_limit
from taskbridge.testing.samples import (
    NEW_NUMBER,
    NEW_WORD,
    Recording,
    Sample,
    answered,
    client_of,
    connection_of,
    emulator_of,
    endless,
    rested,
    with_word,
)
from taskbridge.testing.transport import AsyncScriptedTransport

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge.models import Task
    from taskbridge.provider.capabilities import IdKind

__all__ = ["LookConformance", "look_up"]

CANARY: Final = "canary-7f3a9c51e2"
"""Stands in for every credential where the suite looks for leaks."""

# No vendor can have these as plain ids: they change the path, the header or the line, or are no text at all.
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

# What a broken vendor or a proxy before it sends with 200.
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


class LookConformance:
    """What every look-up keeps, against recorded answers; see `taskbridge.testing.conformance`."""

    provider: ClassVar[str]
    """Entry-point name of the provider."""
    status_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold the vendor's word, where replacing every equal value would not do."""

    # What the suite works with; override what your vendor has differently.

    @pytest.fixture(scope="class")
    @classmethod
    def emulator(cls) -> Iterator[Any]:
        """The vendor, emulated; None where nobody wrote an emulator."""
        emulator = emulator_of(cls.provider, speed=20)
        if emulator is None:
            yield None
            return
        with emulator:
            yield emulator

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls, emulator: Any) -> Recording | None:
        """What the emulator answers, asked once; None without an emulator."""
        return None if emulator is None else Recording.of(cls.provider, emulator)

    @pytest.fixture
    def settings(self, emulator: Any) -> Mapping[str, Any]:
        """Keywords for `taskbridge.connect`."""
        if emulator is None:
            raise NotImplementedError(f"{self.provider} has no emulator: override the fixture `settings`")
        return cast("Mapping[str, Any]", emulator.settings(self.provider))

    @pytest.fixture
    def samples(self, recording: Recording | None) -> Mapping[str, Sample]:
        """Tasks by label, with what the vendor answers; a completed and a failed one have to be among them."""
        if recording is None:
            raise NotImplementedError(f"{self.provider} has no emulator: override the fixture `samples`")
        return recording.samples

    @pytest.fixture
    def logins(self, recording: Recording | None) -> Sequence[Response]:
        """What the vendor answers to the requests of `authorize`; empty where it sends none."""
        return () if recording is None else recording.logins

    @pytest.fixture
    def connection(self, settings: Mapping[str, Any], logins: Sequence[Response]) -> Connection:
        """The connection under test, with its credential."""
        connection = connection_of(self.provider, settings)
        connection.credential = replace(answered(connection.provider.authorize(), logins), expires_at=None)
        return connection

    # Flows.

    def test_operations_are_flows_that_do_no_io_and_end(
        self, connection: Connection, samples: Mapping[str, Sample]
    ) -> None:
        """Each operation is a generator; between its requests it touches no socket and no file."""
        for label, sample in samples.items():

            def operate(sample: Sample = sample, label: str = label) -> None:
                flow = connection.provider.get(sample.task_id)
                assert hasattr(flow, "send"), f"{label}: get returned {type(flow).__name__}, which is no flow"
                answered(flow, sample.answers)

            operate()  # loads what it imports
            with Watch() as watch:
                within_limit(operate, label)
            assert watch.seen == [], f"{label}: a flow did I/O"

    def test_an_abandoned_flow_ends(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """A flow that is closed in the middle does not go on."""
        for sample in samples.values():
            flow = connection.provider.get(sample.task_id)
            next(flow)
            within_limit(flow.close, sample.task_id)

    # Ids.

    @pytest.mark.parametrize("task_id", IMPOSSIBLE_IDS, ids=lambda text: repr(text[:20]))
    def test_impossible_ids_are_refused_before_any_request(self, connection: Connection, task_id: str) -> None:
        """What cannot be an id is InvalidTaskId, and nothing is sent."""
        client, transport = client_of(connection, ())
        with pytest.raises(tb.InvalidTaskId):
            client.get(task_id)
        assert transport.requests == []

    def test_the_example_of_each_kind_is_an_id_of_that_kind(self, connection: Connection) -> None:
        """Messages show the examples, so they have to be right."""
        for kind in connection.provider.capabilities.kinds:
            assert kind.example, f"the kind {kind.prefix or kind.noun!r} has no example"
            assert connection.provider.split_id(kind.example)[0] is kind

    # Look-ups.

    def test_each_sample_gives_a_sound_task(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """A look-up of each sample gives a task that keeps the model's promises."""
        for label, sample in samples.items():
            task = look_up(connection, sample)
            assert task.id == sample.task_id, label
            assert task.provider == self.provider, label
            assert task.recognized, f"{label}: the provider does not know the word {task.native_status!r}"
            check_task(task, label)

    def test_the_samples_show_both_ends(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """A suite that never saw a completed and a failed task proves little."""
        seen = {look_up(connection, sample).status for sample in samples.values()}
        assert seen >= {TaskStatus.COMPLETED, TaskStatus.FAILED}

    def test_an_answer_about_another_task_is_noticed(
        self, connection: Connection, samples: Mapping[str, Sample]
    ) -> None:
        """An answer with another task's id is IdentityMismatch, once it came twice."""
        pairs = [pair for kind in connection.provider.capabilities.kinds for pair in _pairs(connection, kind, samples)]
        if not pairs:
            assert all(kind.identity is None for kind in connection.provider.capabilities.kinds) or len(samples) < 2
            pytest.skip("the vendor's answers do not say which task they are about")
        for asked, other in pairs:
            client, transport = client_of(connection, (*other.answers, *other.answers))
            with pytest.raises(tb.IdentityMismatch):
                client.get(asked.task_id)
            assert transport.left == 0

    def test_a_new_word_is_processing_and_not_recognised(
        self, connection: Connection, samples: Mapping[str, Sample]
    ) -> None:
        """A word that the vendor adds neither ends nor breaks anything; strict settings refuse it."""
        for label, sample in samples.items():
            word = look_up(connection, sample).native_status
            answers = tuple(with_word(answer, word, self.status_fields) for answer in sample.answers)
            task = look_up(connection, Sample(sample.task_id, answers))
            assert (task.status, task.recognized) == (TaskStatus.PROCESSING, False), label
            assert task.native_status in (NEW_WORD, str(NEW_NUMBER)), label
            check_task(task, label)

    @pytest.mark.parametrize(("what", "body"), UNREADABLE, ids=[what for what, _ in UNREADABLE])
    def test_an_unreadable_answer_is_a_contract_error(
        self, connection: Connection, samples: Mapping[str, Sample], what: str, body: bytes
    ) -> None:
        """No KeyError leaves a provider, and no task is made of nothing."""
        del what
        for sample in samples.values():
            client, transport = client_of(connection, lambda _: Response(200, {}, body))
            with pytest.raises(tb.ContractError) as caught:
                client.get(sample.task_id)
            assert "is broken" not in caught.value.message
            assert len(transport.requests) <= connection.retry.attempts

    # Refusals.

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
    def test_refusals_have_their_class(
        self, connection: Connection, samples: Mapping[str, Sample], status: int, kind: type[tb.TaskbridgeError]
    ) -> None:
        """A refused look-up raises by its status, also where its body is empty, and says nothing of the task."""
        sample = next(iter(samples.values()))
        for body in (b"", b"<html>", b"[]", b'{"message": null, "code": 7, "status": "completed"}'):
            client, _ = client_of(connection, lambda _, body=body: Response(status, {}, body))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            with pytest.raises(kind) as caught:
                client.get(sample.task_id)
            assert caught.value.http_status == status
            assert caught.value.ref == f"{connection.name}:{sample.task_id}"
            connection.resume()

    def test_redirects_are_not_followed(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """The credential goes to the vendor's host and to no other."""
        sample = next(iter(samples.values()))
        away = Response(302, {"location": "https://elsewhere.test/"})
        client, transport = client_of(connection, (away,))
        with pytest.raises(tb.UnexpectedRedirect):
            client.get(sample.task_id)
        assert len({urlsplit(request.url).netloc for request in transport.requests}) == 1

    def test_a_wrong_credential_is_an_authentication_error(
        self, emulator: Any, settings: Mapping[str, Any], samples: Mapping[str, Sample]
    ) -> None:
        """The vendor refuses a wrong credential, and the error says so without showing it."""
        if emulator is None:
            pytest.skip("only a vendor can refuse a credential; there is no emulator")
        wrong: dict[str, Any] = {**settings, **dict.fromkeys(_secret_keys(self.provider, settings), CANARY)}
        with tb.connect(self.provider, **wrong) as client, pytest.raises(tb.AuthenticationError) as caught:
            client.get(next(iter(samples.values())).task_id)
        assert CANARY not in everything(caught.value)

    # Secrets.

    def test_no_credential_is_shown(
        self,
        settings: Mapping[str, Any],
        samples: Mapping[str, Sample],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No repr, error, pickle or log line holds a credential, also where the vendor echoes it."""
        caplog.set_level(logging.DEBUG)
        keys = _secret_keys(self.provider, settings)
        assert keys, "the settings hold no SecretStr: how does the vendor know who is asking?"
        connection = connection_of(self.provider, {**settings, **dict.fromkeys(keys, CANARY)})
        connection.credential = None
        echo = json.dumps({"message": f"bad key {CANARY}", "code": CANARY, "title": CANARY, "error": CANARY}).encode()
        sample = next(iter(samples.values()))
        shown = [repr(connection), repr(connection.provider), repr(connection.provider.settings)]
        for status in (200, 400, 401, 403, 404, 422, 500):
            client, transport = client_of(connection, lambda _, status=status: Response(status, {}, echo))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            with pytest.raises(tb.TaskbridgeError) as caught:
                client.get(sample.task_id)
            shown += [repr(client), everything(caught.value), *(repr(request) for request in transport.requests)]
        assert CANARY not in "\n".join([*shown, caplog.text])

    def test_no_task_keeps_a_credential(
        self, connection: Connection, settings: Mapping[str, Any], samples: Mapping[str, Sample]
    ) -> None:
        """Where the vendor's answer repeats a credential, it is left out of all that is kept."""
        secrets = [str(settings[key]) for key in _secret_keys(self.provider, settings)]
        for label, sample in samples.items():
            task = look_up(connection, sample)
            kept = f"{task!r} {task.raw!r} {pickle.dumps(task)!r}"
            assert not [secret for secret in secrets if secret in kept], f"{label}: a credential is kept in the task"

    def test_settings_and_clients_are_not_pickled(self, connection: Connection) -> None:
        """What holds a credential refuses to be written down."""
        client, _ = client_of(connection, ())
        for each in (client, connection.provider.settings):
            with pytest.raises(TypeError):
                pickle.dumps(each)

    # Both interfaces.

    def test_both_interfaces_say_the_same(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        """`get`, `wait` and `result` send the same requests and give the same, synchronous or not."""
        for label, sample in samples.items():
            if not look_up(connection, sample).is_terminal:
                continue
            assert _synchronous(connection, sample) == asyncio.run(_asynchronous(connection, sample)), label


def _synchronous(connection: Connection, sample: Sample) -> list[object]:
    client, transport = client_of(connection, endless(connection, sample))
    said: list[object] = [client.get(sample.task_id), client.wait(sample.task_id)]
    try:
        said.append(client.result(sample.task_id))
    except tb.TaskbridgeError as error:
        said.append(everything(error))
    return [*said, [(r.method, r.url, dict(r.headers), r.body) for r in transport.requests]]


async def _asynchronous(connection: Connection, sample: Sample) -> list[object]:
    transport = AsyncScriptedTransport(endless(connection, sample))
    client = aio.Client(connection, clock=rested(connection), transport=transport)
    said: list[object] = [await client.get(sample.task_id), await client.wait(sample.task_id)]
    try:
        said.append(await client.result(sample.task_id))
    except tb.TaskbridgeError as error:
        said.append(everything(error))
    return [*said, [(r.method, r.url, dict(r.headers), r.body) for r in transport.requests]]


def _pairs(connection: Connection, kind: IdKind, samples: Mapping[str, Sample]) -> list[tuple[Sample, Sample]]:
    """A sample to ask for and another to answer with, of one kind and with different ids."""
    if kind.identity is None:
        return []
    same = [s for s in samples.values() if connection.provider.split_id(s.task_id)[0] is kind]
    return [(same[0], other) for other in same[1:2]]


def _secret_keys(provider: str, settings: Mapping[str, Any]) -> list[str]:
    fields = connection_of(provider, settings).provider.Settings.model_fields
    return [key for key in settings if key in fields and _is_secret(fields[key].annotation)]


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or annotation == SecretStr | None


def look_up(connection: Connection, sample: Sample) -> Task:
    """The task that a look-up of a sample gives."""
    client, _ = client_of(connection, sample.answers)
    return client.get(sample.task_id)
