"""A provider with a false capability fails: one false claim for each field, each caught by the test named beside it."""

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
from taskbridge.provider.capabilities import PLAIN_ID, Accepts, Capabilities, Downloads, IdKind, Webhooks
from taskbridge.provider.http import Request, Response
from taskbridge.provider.submission import Listing, ListPolling
from taskbridge.testing import Emulator, ProviderConformance
from taskbridge.testing.conformance.capabilities import EXAMPLES
from taskbridge.testing.conformance.samples import RecordedSamples, connection_of

CC, SD, SM, XA = "cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract"
METHODS = "test_capabilities_match_the_methods"
SAMPLES = "test_capabilities_match_the_samples"
COMPLETE = "test_every_id_kind_and_reason_has_a_sample"
CONSISTENT = "test_capabilities_are_consistent"
OPTIONS = "test_every_claimed_option_is_accepted"
ACCEPTS_PDF = Accepts(frozenset({"application/pdf"}))

FAILURES = (AssertionError, pytest.fail.Exception, tb.TaskbridgeError)


class CloudConvertSuite(ProviderConformance):
    provider = CC
    options = {"convert": {"output_format": "pdf"}}  # noqa: RUF012  # as users write it


class ScanDocumentsSuite(ProviderConformance):
    provider = SD
    document = EXAMPLES["image/png"]


SUITES = {CC: CloudConvertSuite, SD: ScanDocumentsSuite}


@dataclass
class Trial:
    """One emulated vendor, and a way to run the suite's tests by name."""

    provider: str
    vendor: Emulator
    folder: Path

    def run(self, name: str) -> None:
        kind = type("Suite", (SUITES.get(self.provider, ProviderConformance),), {"provider": self.provider})
        suite: Any = kind()
        settings = self.vendor.settings(self.provider)
        with tb.connect(self.provider, **suite.quick_settings(self.vendor)) as client:
            connection = connection_of(self.provider, settings)
            fixtures: dict[str, Callable[[], Any]] = {
                "connection": lambda: connection,
                "samples": lambda: RecordedSamples.of(self.provider, self.vendor).samples,
                "vendor": lambda: self.vendor,
                "emulator": lambda: self.vendor,
                "settings": lambda: settings,
                "client": lambda: client,
                "tmp_path": lambda: self.folder,
            }
            test = getattr(suite, name)
            if connection.credentials.current is None and "connection" in inspect.signature(test).parameters:
                connection.credentials.current = suite_credential(suite, connection)
            test(**{each: fixtures[each]() for each in inspect.signature(test).parameters})


def suite_credential(suite: Any, connection: Any) -> Any:
    return replace(suite._run_flow(connection, connection.provider.authorize()), expires_at=None)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Callable[[str], Trial]]:
    running: list[Emulator] = []

    def start(provider: str) -> Trial:
        emulator = Emulator(provider, speed=1000)
        emulator.start()
        running.append(emulator)
        return Trial(provider, emulator, tmp_path)

    yield start
    for emulator in running:
        emulator.stop()


ROWS_OF_JOBS = ListPolling(100, frozenset({"", "job"}), 5, numbered=True, whole_rows={"job": "https://acme.test/jobs"})
ROWS_WITHOUT_SOURCE = ListPolling(50, numbered=True, whole_rows={"": "the documentation"})

FALSE_CLAIMS: list[tuple[str, dict[str, Any], str]] = [
    (SD, {"authentication": ""}, CONSISTENT),
    (SD, {"kinds": (IdKind(PLAIN_ID, example="task_1"), IdKind(PLAIN_ID, "job", example="job/1"))}, COMPLETE),
    (SD, {"kinds": (IdKind(PLAIN_ID, example="task_1", resumable=False),)}, "test_tasks_end_with_submit_where_claimed"),
    (SD, {"progress": True}, SAMPLES),
    (XA, {"progress": False}, SAMPLES),
    (SD, {"long_poll": True}, METHODS),
    (CC, {"long_poll": False}, METHODS),
    (SD, {"separate_result": True}, SAMPLES),
    (SM, {"separate_result": False}, SAMPLES),
    (SD, {"subtasks": True}, SAMPLES),
    (CC, {"subtasks": False}, SAMPLES),
    (CC, {"reasons": (tb.Reason.CANCELLED,)}, SAMPLES),
    (SD, {"reasons": (tb.Reason.PARTIAL,)}, COMPLETE),
    (SD, {"webhooks": None}, METHODS),
    (XA, {"webhooks": Webhooks(("done",), "a signature", signed_time=False)}, METHODS),
    (SD, {"webhooks": Webhooks(("task.other",), "svix", signed_time=True)}, "test_webhooks_are_as_claimed"),
    (SD, {"webhooks": Webhooks((), "svix", signed_time=False)}, "test_webhooks_are_as_claimed"),
    (CC, {"webhooks": Webhooks((), "HMAC", signed_time=True)}, "test_webhooks_are_as_claimed"),
    (CC, {"get_options": frozenset[str]()}, METHODS),
    (SD, {"get_options": frozenset({"include"})}, METHODS),
    (CC, {"list_polling": None}, METHODS),
    (SD, {"list_polling": ListPolling(50, frozenset({"job"}))}, "test_list_polling_shows_running_tasks_where_claimed"),
    (SD, {"list_polling": ListPolling(2)}, "test_list_polling_shows_running_tasks_where_claimed"),
    (CC, {"list_polling": ROWS_OF_JOBS}, "test_list_rows_are_whole_where_claimed"),
    (SM, {"list_polling": ROWS_WITHOUT_SOURCE}, "test_list_rows_are_whole_where_claimed"),
    (SD, {"downloads": Downloads(("files",))}, "test_results_download_as_claimed"),
    (SM, {"downloads": Downloads(("files", "data"))}, "test_results_download_as_claimed"),
    (SM, {"downloads": Downloads(("data",), links=True)}, CONSISTENT),
    (SD, {"operations": {"extract-text": "extract-words"}}, "test_every_claimed_operation_is_accepted"),
    (SD, {"operations": {}}, METHODS),
    (SD, {"inputs": frozenset({"path", "paper"})}, CONSISTENT),
    (SM, {"inputs": frozenset({"url", "bytes"})}, "test_every_claimed_input_is_accepted"),
    (XA, {"inputs": frozenset({"bytes", "file"})}, "test_every_claimed_input_is_accepted"),
    (SM, {"inputs": frozenset({"url", "bytes"}), "fetches_urls": True}, "test_every_claimed_input_is_accepted"),
    (SD, {"fetches_urls": False}, "test_every_claimed_input_is_accepted"),
    (SD, {"accepts": {"extract-text": Accepts(several=True)}}, "test_several_documents_are_submitted_where_claimed"),
    (SD, {"accepts": {"extract-text": ACCEPTS_PDF}}, "test_every_claimed_media_type_is_accepted"),
    (SD, {"accepts": {"extract-text": Accepts(frozenset({"pdf"}))}}, CONSISTENT),
    (SD, {"accepts": {"extract-text": Accepts(at_most=3)}}, CONSISTENT),
    (SD, {"options": {"convert": {"to": {"gif": {"target_format": "image/gif"}}}}}, OPTIONS),
    (SD, {"options": {"extract-text": {"dpi": "dpi"}}}, CONSISTENT),
    (SD, {"options": {"convert": {"to": {"jpeg": {}}}}}, CONSISTENT),
    (XA, {"options": {"convert": {"to": "format"}}}, CONSISTENT),
    (XA, {"cancel": True}, METHODS),
    (SD, {"retry": True}, METHODS),
    (SM, {"delete": True}, METHODS),
    (CC, {"restart": True}, METHODS),
    (CC, {"cancel": False}, METHODS),
    (CC, {"retry": False}, METHODS),
    (CC, {"delete": False}, METHODS),
    (SM, {"restart": False}, METHODS),
    (SD, {"listing": None}, CONSISTENT),
    (SD, {"listing": Listing(40)}, "test_the_page_size_is_as_claimed"),
    (SD, {"listing": Listing(60)}, "test_the_page_size_is_as_claimed"),
    (SD, {"listing": Listing(50, statuses=frozenset({tb.TaskStatus.FAILED}))}, "test_listing_is_as_claimed"),
    (SD, {"listing": Listing(50, frozenset({"color"}))}, "test_listing_is_as_claimed"),
    (XA, {"recover": "luck"}, METHODS),
    (SD, {"recover": None}, METHODS),
    (CC, {"idempotency_key": True}, "test_a_repeated_submission_creates_one_task_where_claimed"),
    (SD, {"idempotency_key": True}, "test_a_repeated_submission_creates_one_task_where_claimed"),
    (SD, {"external_id": True}, "test_external_id_is_returned_where_claimed"),
    (SM, {"callback": True}, "test_callback_url_is_called_where_claimed"),
    (CC, {"result_ttl": 60.0}, "test_results_expire_as_claimed"),
    (SD, {"result_ttl": 60.0}, "test_results_expire_as_claimed"),
    (SD, {"result_once": True}, "test_results_are_read_once_where_claimed"),
    (SD, {"upload_limit": 11 << 20}, "test_the_upload_limit_is_as_claimed"),
    (CC, {"result_parts": {}}, "test_results_have_the_claimed_parts"),
    (CC, {"result_parts": {"extract-text": frozenset({"text", "pages"})}}, "test_results_have_the_claimed_parts"),
    (SD, {"usage": (tb.UsageUnit.PAGES,)}, SAMPLES),
    (CC, {"usage": ()}, SAMPLES),
    (CC, {"usage": (tb.UsageUnit.MINUTES,)}, SAMPLES),
    (SD, {"account": True}, METHODS),
    (CC, {"account": False}, METHODS),
    (SD, {"operation_list": True}, METHODS),
    (SD, {"webhook_management": True}, METHODS),
    (CC, {"webhook_management": False}, METHODS),
    (SD, {"delete_files": False}, METHODS),
    (SM, {"mark": False}, METHODS),
    (CC, {"mark": True}, METHODS),
    (CC, {"delete_files": True}, METHODS),
    (CC, {"operation_list": False}, METHODS),
]


def test_every_capability_has_a_false_claim() -> None:
    assert {field for _, claim, _ in FALSE_CLAIMS for field in claim} == {field.name for field in fields(Capabilities)}


@pytest.mark.parametrize(
    ("provider", "claim", "test"),
    FALSE_CLAIMS,
    ids=[f"{p}-{'-'.join(c)}-{n}" for n, (p, c, _) in enumerate(FALSE_CLAIMS)],
)
def test_a_false_claim_is_caught(
    provider: str, claim: dict[str, Any], test: str, trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = load_provider(provider)
    limit = "taskbridge.testing.conformance.servers.WAIT_LIMIT"
    monkeypatch.setattr(kind, "capabilities", replace(kind.capabilities, **claim))
    monkeypatch.setattr(limit, 0.3)
    vendor = trial(provider)
    with pytest.raises(FAILURES):
        vendor.run(test)


def get_instead(self: Any, task_id: str) -> Any:
    return self.get(task_id)


def find_nothing(_self: Any, _token: Any) -> Any:
    return no_requests(None)


def no_queries(_self: Any, _prefixes: Any, _now: Any, _age: Any) -> Any:
    return ()


def get_and_return_none(self: Any, task_id: str) -> Any:
    yield from self.get(task_id)


list_page = load_provider(SD).list_page


def list_without_results(self: Any, query: Any, cursor: Any) -> Any:
    page = yield from list_page(self, query, cursor)
    return replace(page, tasks=tuple(replace(task, result=None) for task in page.tasks))


def sign_elsewhere(_self: Any, request: Request, _now: Any) -> Request:
    return replace(request, url=request.url.replace("/v2/", "/v3/"))


submit = load_provider(CC).submit


def submit_unmarked(self: Any, submission: Any) -> Generator[Request, Response, tb.Task]:
    flow = submit(self, submission)
    try:
        request = next(flow)
        while True:
            request = flow.send((yield replace(request, starts_work=False)))
    except StopIteration as end:
        task: tb.Task = end.value
        return task


# Methods that do not do what they claim, and the test that catches them.
FALSE_METHODS: list[tuple[str, str, Callable[..., Any], str]] = [
    (CC, "cancel", get_instead, "test_cancel_stops_a_task_where_claimed"),
    (CC, "retry", get_instead, "test_retry_creates_a_new_task_where_claimed"),
    (CC, "delete", get_and_return_none, "test_delete_removes_a_task_where_claimed"),
    (SM, "restart", get_instead, "test_restart_resets_the_task_where_claimed"),
    (CC, "long_poll", get_instead, "test_a_long_poll_returns_when_the_task_ends_where_claimed"),
    (CC, "recover", find_nothing, "test_recover_finds_an_uncertain_submission_where_claimed"),
    (CC, "submit", submit_unmarked, "test_before_submit_runs_before_work_starts"),
    (CC, "sign", sign_elsewhere, "test_a_signature_changes_nothing_but_headers_and_query"),
    (CC, "list_queries", no_queries, "test_list_polling_shows_running_tasks_where_claimed"),
    (CC, "list_queries", no_queries, "test_list_rows_are_whole_where_claimed"),
    (SD, "list_page", list_without_results, "test_list_rows_are_whole_where_claimed"),
]


@pytest.mark.parametrize("row", FALSE_METHODS, ids=[row[1] for row in FALSE_METHODS])
def test_a_method_that_does_not_do_what_it_claims_is_caught(
    row: tuple[str, str, Callable[..., Any], str], trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, method, replacement, test = row
    monkeypatch.setattr(load_provider(provider), method, replacement)
    with pytest.raises(FAILURES):
        trial(provider).run(test)


def test_a_signature_check_that_accepts_everything_is_caught(
    trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept(*_: object) -> None:
        pass

    monkeypatch.setattr("taskbridge._engine.webhooks.verify_hex_hmac", accept)
    with pytest.raises(FAILURES):
        trial(CC).run("test_webhooks_are_as_claimed")


@pytest.mark.parametrize("provider", [CC, SM])
def test_the_same_tests_pass_without_a_false_claim(provider: str, trial: Callable[[str], Trial]) -> None:
    vendor = trial(provider)
    for name in sorted(
        {test for owner, _, test in FALSE_CLAIMS if owner == provider} - {"test_results_expire_as_claimed"}
    ):
        vendor.run(name)
