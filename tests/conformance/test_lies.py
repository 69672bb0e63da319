"""A provider that lies about itself fails: one lie for each claim, each caught by the test named beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._config.registry import load_provider
from taskbridge.provider.base import no_requests
from taskbridge.provider.capabilities import PLAIN_ID, Capabilities, Downloads, IdKind, Webhooks
from taskbridge.provider.http import Request, Response
from taskbridge.provider.submission import Listing, ListPolling
from taskbridge.testing import Emulator, ProviderConformance
from taskbridge.testing.samples import Recording, connection_of

CC, SD, SM, XA = "cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract"
AGREE = "test_claims_and_methods_agree"
SHOWN = "test_what_the_provider_claims_is_true"
EVERY = "test_every_kind_and_reason_is_shown"
HOLD_TOGETHER = "test_the_claims_hold_together"

FAILURES = (AssertionError, pytest.fail.Exception, tb.TaskbridgeError)


class OfCloudConvert(ProviderConformance):
    provider = CC
    options = {"convert": {"output_format": "pdf"}}  # noqa: RUF012  # as users write it


@dataclass
class Trial:
    """One vendor, and the suite's tests to be called by name."""

    provider: str
    vendor: Emulator
    folder: Path

    def run(self, name: str) -> None:
        kind = type(
            "Suite", (OfCloudConvert if self.provider == CC else ProviderConformance,), {"provider": self.provider}
        )
        suite: Any = kind()
        settings = self.vendor.settings(self.provider)
        with tb.connect(self.provider, **suite.quick_settings(self.vendor)) as client:
            connection = connection_of(self.provider, settings)
            at_hand: dict[str, Callable[[], Any]] = {
                "connection": lambda: connection,
                "samples": lambda: Recording.of(self.provider, self.vendor).samples,
                "vendor": lambda: self.vendor,
                "emulator": lambda: self.vendor,
                "settings": lambda: settings,
                "connected": lambda: client,
                "tmp_path": lambda: self.folder,
            }
            test = getattr(suite, name)
            if connection.credential is None and "connection" in inspect.signature(test).parameters:
                connection.credential = suite_credential(suite, connection)
            test(**{each: at_hand[each]() for each in inspect.signature(test).parameters})


def suite_credential(suite: Any, connection: Any) -> Any:
    return replace(suite._driven(connection, connection.provider.authorize()), expires_at=None)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Callable[[str], Trial]]:
    running: list[Emulator] = []

    def begin(provider: str) -> Trial:
        emulator = Emulator(provider, speed=1000)
        emulator.start()
        running.append(emulator)
        return Trial(provider, emulator, tmp_path)

    yield begin
    for emulator in running:
        emulator.stop()


CLAIMS: list[tuple[str, dict[str, Any], str]] = [
    (SD, {"authentication": ""}, HOLD_TOGETHER),
    (SD, {"kinds": (IdKind(PLAIN_ID, example="task_1"), IdKind(PLAIN_ID, "job", example="job/1"))}, EVERY),
    (SD, {"progress": True}, SHOWN),
    (XA, {"progress": False}, SHOWN),
    (SD, {"long_poll": True}, AGREE),
    (CC, {"long_poll": False}, AGREE),
    (SD, {"result_apart": True}, SHOWN),
    (SM, {"result_apart": False}, SHOWN),
    (SD, {"subtasks": True}, SHOWN),
    (CC, {"subtasks": False}, SHOWN),
    (CC, {"reasons": (tb.Reason.CANCELLED,)}, SHOWN),
    (SD, {"reasons": (tb.Reason.PARTIAL,)}, EVERY),
    (SD, {"webhooks": None}, AGREE),
    (XA, {"webhooks": Webhooks(("done",), "a signature", signed_time=False)}, AGREE),
    (SD, {"webhooks": Webhooks(("task.other",), "svix", signed_time=True)}, "test_webhooks_are_as_claimed"),
    (SD, {"webhooks": Webhooks((), "svix", signed_time=False)}, "test_webhooks_are_as_claimed"),
    (CC, {"webhooks": Webhooks((), "HMAC", signed_time=True)}, "test_webhooks_are_as_claimed"),
    (CC, {"get_options": frozenset[str]()}, AGREE),
    (SD, {"get_options": frozenset({"include"})}, AGREE),
    (CC, {"bulk": None}, AGREE),
    (SD, {"bulk": ListPolling(50, frozenset({"job"}))}, "test_a_sweep_shows_what_goes_on_where_claimed"),
    (SD, {"bulk": ListPolling(2)}, "test_a_sweep_shows_what_goes_on_where_claimed"),
    (SD, {"downloads": Downloads(("files",))}, "test_what_is_claimed_comes_home"),
    (SM, {"downloads": Downloads(("files", "data"))}, "test_what_is_claimed_comes_home"),
    (SM, {"downloads": Downloads(("data",), links=True)}, HOLD_TOGETHER),
    (SD, {"operations": {"extract-text": "extract-words"}}, "test_every_claimed_operation_is_taken"),
    (SD, {"operations": {}}, AGREE),
    (SD, {"inputs": frozenset({"path", "paper"})}, HOLD_TOGETHER),
    (SM, {"inputs": frozenset({"url", "bytes"})}, "test_every_claimed_input_is_taken"),
    (XA, {"inputs": frozenset({"bytes", "file"})}, "test_every_claimed_input_is_taken"),
    (SM, {"inputs": frozenset({"url", "bytes"}), "fetches_urls": True}, "test_every_claimed_input_is_taken"),
    (SD, {"fetches_urls": False}, "test_every_claimed_input_is_taken"),
    (SD, {"many_inputs": frozenset({"extract-text"})}, "test_several_documents_are_taken_where_claimed"),
    (XA, {"cancel": True}, AGREE),
    (SD, {"retry": True}, AGREE),
    (SM, {"delete": True}, AGREE),
    (CC, {"restart": True}, AGREE),
    (CC, {"cancel": False}, AGREE),
    (CC, {"retry": False}, AGREE),
    (CC, {"delete": False}, AGREE),
    (SM, {"restart": False}, AGREE),
    (SD, {"listing": None}, HOLD_TOGETHER),
    (SD, {"listing": Listing(40)}, "test_a_page_is_as_long_as_claimed"),
    (SD, {"listing": Listing(60)}, "test_a_page_is_as_long_as_claimed"),
    (SD, {"listing": Listing(50, statuses=frozenset({tb.TaskStatus.FAILED}))}, "test_the_list_is_as_claimed"),
    (SD, {"listing": Listing(50, frozenset({"colour"}))}, "test_the_list_is_as_claimed"),
    (XA, {"recover": "luck"}, AGREE),
    (SD, {"recover": None}, AGREE),
    (CC, {"idempotency_key": True}, "test_an_order_sent_twice_is_done_once_where_claimed"),
    (SD, {"idempotency_key": True}, "test_an_order_sent_twice_is_done_once_where_claimed"),
    (SD, {"external_id": True}, "test_a_callers_own_id_is_kept_where_claimed"),
    (SM, {"callback": True}, "test_an_order_s_own_address_is_called_where_claimed"),
    (CC, {"result_ttl": 60.0}, "test_a_result_lives_as_long_as_claimed"),
    (SD, {"result_ttl": 60.0}, "test_a_result_lives_as_long_as_claimed"),
    (SD, {"upload_limit": 11 << 20}, "test_the_upload_limit_is_the_vendor_s"),
]


def test_there_is_a_lie_about_every_claim() -> None:
    assert {claim for _, lie, _ in CLAIMS for claim in lie} == {field.name for field in fields(Capabilities)}


@pytest.mark.parametrize(
    ("provider", "lie", "test"), CLAIMS, ids=[f"{p}-{'-'.join(c)}-{n}" for n, (p, c, _) in enumerate(CLAIMS)]
)
def test_a_false_claim_is_caught(
    provider: str, lie: dict[str, Any], test: str, trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_provider(provider)
    patience = "taskbridge.testing.stage.PATIENCE"
    monkeypatch.setattr(kind, "capabilities", replace(kind.capabilities, **lie))
    monkeypatch.setattr(patience, 0.3)
    started = trial(provider)
    with pytest.raises(FAILURES):
        started.run(test)


def shows(self: Any, task_id: str) -> Any:
    return self.get(task_id)


def finds_nothing(_self: Any, _clue: Any) -> Any:
    return no_requests(None)


def asks_for_nothing(_self: Any, _prefixes: Any, _now: Any, _age: Any) -> Any:
    return ()


def shows_and_is_silent(self: Any, task_id: str) -> Any:
    yield from self.get(task_id)


submit_aloud = load_provider(CC).submit


def keeps_quiet(self: Any, order: Any) -> Generator[Request, Response, tb.Task]:
    flow = submit_aloud(self, order)
    try:
        request = next(flow)
        while True:
            request = flow.send((yield replace(request, starts_work=False)))
    except StopIteration as end:
        made: tb.Task = end.value
        return made


# Method that is written, but does not do what it says -> the test that notices.
IDLE: list[tuple[str, str, Callable[..., Any], str]] = [
    (CC, "cancel", shows, "test_cancel_stops_a_task_where_claimed"),
    (CC, "retry", shows, "test_retry_makes_a_new_task_where_claimed"),
    (CC, "delete", shows_and_is_silent, "test_delete_removes_a_task_where_claimed"),
    (SM, "restart", shows, "test_restart_begins_anew_where_claimed"),
    (CC, "long_poll", shows, "test_a_held_line_answers_at_the_end_where_claimed"),
    (CC, "recover", finds_nothing, "test_an_order_in_doubt_is_found_where_claimed"),
    (CC, "submit", keeps_quiet, "test_an_order_is_announced_before_it_leaves"),
    (CC, "sweep", asks_for_nothing, "test_a_sweep_shows_what_goes_on_where_claimed"),
]


@pytest.mark.parametrize("row", IDLE, ids=[row[1] for row in IDLE])
def test_a_method_that_does_nothing_is_caught(
    row: tuple[str, str, Callable[..., Any], str], trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, method, idle, test = row
    monkeypatch.setattr(load_provider(provider), method, idle)
    with pytest.raises(FAILURES):
        trial(provider).run(test)


def test_a_proof_that_proves_nothing_is_caught(trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    def nods(*_: object) -> None:
        pass

    monkeypatch.setattr("taskbridge._engine.webhooks.verify_hex_hmac", nods)
    with pytest.raises(FAILURES):
        trial(CC).run("test_webhooks_are_as_claimed")


@pytest.mark.parametrize("provider", [CC, SM])
def test_the_same_trial_without_a_lie_passes(provider: str, trial: Callable[[str], Trial]) -> None:
    started = trial(provider)
    for name in sorted(
        {test for owner, _, test in CLAIMS if owner == provider} - {"test_a_result_lives_as_long_as_claimed"}
    ):
        started.run(name)
