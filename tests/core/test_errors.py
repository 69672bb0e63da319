"""The errors: the tree in the docstring is true; errors pickle, and show their fields and nothing else."""

from __future__ import annotations

import inspect
import pickle
import re
from datetime import UTC, datetime
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskbridge as tb
from taskbridge import errors
from taskbridge.errors import TaskbridgeError, printable

CLASSES: list[type[TaskbridgeError]] = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, TaskbridgeError) and each.__module__ == errors.__name__
]
TASK: tb.Task = tb.Task(
    provider="acme",
    connection="acme",
    id="t1",
    native_id="t1",
    status=tb.TaskStatus.FAILED,
    observed_at=datetime(2026, 11, 22, tzinfo=UTC),
    raw={"field": "raw-canary"},
)
OWN: dict[str, dict[str, Any]] = {
    "TaskFailed": {"task": TASK},
    "WaitTimeout": {"task": TASK, "last_error": errors.ServerError("down")},
    "SubmitUncertain": {"recovery_token": {"external_id": "INV-7"}},
    "WebhookRejected": {"answer": 413},
}


def build(kind: type[TaskbridgeError], **context: Any) -> TaskbridgeError:
    return kind("what happened", **OWN.get(kind.__name__, {}), **context)


def drawn() -> dict[str, str]:
    """Return each class and its base, as drawn in the docstring."""
    found: dict[str, str] = {}
    group = "TaskbridgeError"
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r"    [├└]─ (.*)", line)
        rest = re.match(r"    [│ ]    (.*)", line)
        if branch:
            name = branch[1].split()[0]
            group = name if name[0].isupper() else "TaskbridgeError"
            if name[0].isupper():
                found[name] = "TaskbridgeError"
        elif rest:
            found.update(dict.fromkeys(re.findall(r"[A-Z]\w+", rest[1]), group))
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert drawn() == {each.__name__: each.__bases__[0].__name__ for each in CLASSES if each is not TaskbridgeError}


def test_every_error_is_public() -> None:
    assert {each.__name__ for each in CLASSES} == set(errors.__all__)
    assert {each.__name__ for each in CLASSES} <= set(dir(tb))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_pickles_with_all_its_fields(kind: type[TaskbridgeError]) -> None:
    error = build(kind, provider="acme", connection="c", ref="c:t1", http_status=418, vendor_code="X", retry_after=2.5)
    again: TaskbridgeError = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args == ("what happened",)
    assert {k: v for k, v in vars(again).items() if k != "last_error"} == {
        k: v for k, v in vars(error).items() if k != "last_error"
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_shows_its_fields_and_nothing_else(kind: type[TaskbridgeError]) -> None:
    error = build(kind, ref="c:t1", http_status=418, vendor_code="X7", request_id="r9", raw={"key": "raw-canary"})
    assert str(error) == "c:t1: what happened (HTTP 418, code X7, request r9)"
    assert "raw-canary" not in repr(error)
    assert str(build(kind)) == "what happened"


def test_an_error_names_the_most_specific_place() -> None:
    error = TaskbridgeError("no", provider="acme")
    assert str(error) == "acme: no"
    assert str(error.about(connection="invoices")) == "invoices: no"
    assert str(error.about(ref="invoices:t1", connection="other")) == "invoices:t1: no"
    assert error.connection == "invoices"


def test_a_copy_of_an_error_does_not_share_its_traceback() -> None:
    error = errors.RateLimited("slow down", retry_after=3.0)
    again = error.again(ref="c:t2")
    assert again is not error
    assert (type(again), again.message, again.retry_after, again.ref) == (errors.RateLimited, "slow down", 3.0, "c:t2")
    assert error.ref is None
    assert again.__traceback__ is None


def test_only_temporary_errors_are_retryable() -> None:
    retryable = {each.__name__ for each in CLASSES if build(each).retryable}
    assert retryable == {
        "RateLimited",
        "ServerError",
        "TransportError",
        "ConnectFailed",
        "DeadlineExceeded",
        "TruncatedResponse",
        "CircuitOpen",
        "WaitTimeout",
    }


def test_timeouts_are_timeout_errors_and_invalid_ids_are_value_errors() -> None:
    assert issubclass(tb.WaitTimeout, TimeoutError)
    assert issubclass(tb.DeadlineExceeded, TimeoutError)
    assert issubclass(tb.InvalidTaskId, ValueError)


def test_only_errors_from_before_the_first_byte_are_unwritten() -> None:
    unwritten = {each.__name__ for each in CLASSES if issubclass(each, errors.TransportError) and not each.written}
    assert unwritten == {"ConnectFailed", "TlsError", "CircuitOpen"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("nul\0", "nul␀"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b", "a\\u2028b"),
        ("\u200b", "\\u200b"),
        ("ümläut 文書 🙂", "ümläut 文書 🙂"),
    ],
)
def test_untrusted_text_is_made_safe_to_show(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(), max_size=200), st.integers(1, 50))
def test_printable_text_can_be_printed_and_encoded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert all(c.isprintable() or category(c) == "Zs" for c in shown.replace("␀", ""))
    shown.encode()
    if len(text) > limit:
        assert shown.endswith("…")


def test_long_text_is_clipped() -> None:
    assert len(printable("x" * 1_000_000)) == 2048
