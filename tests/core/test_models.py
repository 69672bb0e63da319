"""The shared model: snapshots compare, hash and pickle; refs are text."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskbridge as tb

SEEN: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TASK: tb.Task = tb.Task(
    provider="acme",
    connection="invoices",
    id="t1",
    native_id="t1",
    status=tb.TaskStatus.PROCESSING,
    native_status="working",
    observed_at=SEEN,
    raw={"secret_link": "https://storage.test/?sig=abc"},
)

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True)
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)


def test_snapshots_that_say_the_same_are_equal_whenever_they_were_made() -> None:
    later = replace(TASK, observed_at=SEEN + timedelta(hours=1), raw={"trace": 7})
    assert later == TASK
    assert hash(later) == hash(TASK)


@pytest.mark.parametrize(
    "change",
    [
        {"status": tb.TaskStatus.COMPLETED},
        {"progress": 0.5},
        {"message": "page 2"},
        {"reason": tb.Reason.AWAITING_REVIEW},
        {"connection": "other"},
        {"recognized": False},
        {"subtasks": (TASK,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_snapshots_that_differ_in_a_field_are_not_equal(change: dict[str, object]) -> None:
    assert replace(TASK, **change) != TASK


def test_a_task_is_not_equal_to_anything_else() -> None:
    assert TASK != "invoices:t1"


def test_a_task_hashes_by_its_ref() -> None:
    assert hash(TASK) == hash("invoices:t1")


def test_a_task_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TASK.status = tb.TaskStatus.COMPLETED  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_task_pickles_with_what_it_does_not_compare() -> None:
    again: tb.Task = pickle.loads(pickle.dumps(TASK))
    assert (again, again.raw, again.observed_at) == (TASK, TASK.raw, TASK.observed_at)
    assert copy.deepcopy(TASK) == TASK


def test_links_and_raw_data_are_out_of_repr() -> None:
    result = tb.TaskResult(files=(tb.TaskFile(name="a.pdf", url="https://storage.test/?sig=abc"),), text="private")
    done = replace(TASK, status=tb.TaskStatus.COMPLETED, result=result)
    assert "sig=abc" not in repr(done)
    assert "private" not in repr(done)
    assert "a.pdf" in repr(done)


def test_a_task_prints_as_a_line_and_shows_what_is_known_of_it() -> None:
    assert str(TASK) == f"{TASK.ref}: {TASK.describe()}"
    assert repr(TASK).startswith(f"Task(connection={TASK.connection!r}, id={TASK.id!r}, status=")
    assert "None" not in repr(TASK)


def test_a_model_refuses_fields_that_it_does_not_have() -> None:
    with pytest.raises(tb.InvalidInput, match=r"TaskFile.from_dict: color: "):
        tb.TaskFile.from_dict({"name": "a", "color": "red"})


def test_only_completed_and_failed_are_terminal() -> None:
    assert [status for status in tb.TaskStatus if status.is_terminal] == [
        tb.TaskStatus.COMPLETED,
        tb.TaskStatus.FAILED,
    ]


def test_the_statuses_and_reasons_are_the_documented_ones() -> None:
    assert {*tb.TaskStatus} == {"pending", "processing", "completed", "failed"}
    assert {*tb.Reason} == {
        "awaiting_upload",
        "awaiting_review",
        "partial",
        "cancelled",
        "deleted",
        "expired",
        "dependency_failed",
        "integration_failed",
    }


def test_an_outcome_unwraps_to_its_task_or_raises() -> None:
    failed = replace(TASK, status=tb.TaskStatus.FAILED, error=tb.TaskFailure(code="E7", message="no text\x1b[31m"))
    assert tb.Outcome(TASK.ref, TASK).unwrap() is TASK
    with pytest.raises(tb.TaskFailed, match="no text") as caught:
        tb.Outcome(failed.ref, failed).unwrap()
    assert (caught.value.task, caught.value.vendor_code) == (failed, "E7")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(tb.TaskNotFound):
        tb.Outcome(TASK.ref, None, tb.TaskNotFound("gone")).unwrap()


@given(NAMES, IDS)
def test_a_ref_parses_back_to_itself(connection: str, task_id: str) -> None:
    ref = tb.TaskRef.of(connection, task_id)
    again = tb.TaskRef(str(ref))
    assert (again, again.connection, again.id) == (ref, connection, task_id)
    assert hash(ref) == hash(str(ref))
    assert ref == f"{connection}:{task_id}"


@given(NAMES, IDS)
def test_a_ref_pickles_as_a_ref(connection: str, task_id: str) -> None:
    again = pickle.loads(pickle.dumps(tb.TaskRef.of(connection, task_id)))
    assert type(again) is tb.TaskRef
    assert again == f"{connection}:{task_id}"


@given(st.lists(st.tuples(NAMES, IDS), max_size=4))
def test_refs_sort_as_text(pairs: list[tuple[str, str]]) -> None:
    refs = [tb.TaskRef.of(*pair) for pair in pairs]
    assert [str(ref) for ref in sorted(refs)] == sorted(f"{name}:{task_id}" for name, task_id in pairs)


@given(st.text(max_size=60))
def test_any_text_is_a_ref_or_an_invalid_id(text: str) -> None:
    try:
        ref = tb.TaskRef(text)
    except tb.InvalidTaskId:
        return
    assert (ref.connection, ref.id) == (text.partition(":")[0], text.partition(":")[2])


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":t1", "A:t1", "a b:t1", "-a:t1", "a", "a:t\n1", "a:t\x001", "a:\ud800"]
)
def test_what_is_no_ref_is_an_invalid_id(text: str) -> None:
    with pytest.raises(tb.InvalidTaskId):
        tb.TaskRef(text)


def test_a_ref_keeps_colons_and_slashes_of_the_id() -> None:
    assert tb.TaskRef("a:external/x:y/z").id == "external/x:y/z"
    assert repr(tb.TaskRef("a:t1")) == "TaskRef('a:t1')"
