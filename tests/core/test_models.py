"""The shared model: snapshots compare, hash, pickle and convert to dictionaries; refs are text."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

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


def test_snapshots_with_the_same_facts_are_equal_whenever_they_were_taken() -> None:
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
def test_snapshots_that_differ_in_a_field_are_not_equal(change: dict[str, Any]) -> None:
    assert replace(TASK, **change) != TASK


def test_a_task_is_not_equal_to_anything_else() -> None:
    others: list[object] = ["invoices:t1", TASK.ref, None]
    assert TASK not in others


def test_a_task_hashes_by_its_ref() -> None:
    assert hash(TASK) == hash("invoices:t1")


def test_a_task_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TASK.status = tb.TaskStatus.COMPLETED  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # the test


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


def test_a_task_prints_as_one_line_and_its_repr_shows_the_known_fields() -> None:
    assert str(TASK) == f"{TASK.ref}: {TASK.describe()}"
    assert repr(TASK).startswith(f"Task(connection={TASK.connection!r}, id={TASK.id!r}, status=")
    assert "None" not in repr(TASK)


def test_a_completion_list_shows_nothing_of_pydantic() -> None:
    for model in (TASK, tb.TaskFile(), tb.TaskResult(), tb.TaskFailure()):
        names = {name for name in dir(model) if not name.startswith("_")}
        assert names.isdisjoint({"dict", "json", "copy", "construct", "parse_obj", "parse_raw", "schema", "validate"})
        assert not [name for name in names if name.startswith("model_")]
        assert not hasattr(model, "__dict__")


# Dictionaries.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TIMES = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the time zone
NUMBERS = st.integers(-(2**53), 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
FILES = st.builds(
    tb.TaskFile,
    id=st.none() | TEXT,
    name=st.none() | TEXT,
    url=st.none() | TEXT,
    size=st.none() | st.integers(0, 2**40),
    media_type=st.none() | TEXT,
    expires_at=st.none() | TIMES,
    properties=st.none() | OBJECTS,
)
RESULTS = st.builds(tb.TaskResult, files=st.lists(FILES, max_size=2).map(tuple), text=st.none() | TEXT, data=JSON)
FAILURES = st.builds(tb.TaskFailure, code=st.none() | TEXT, message=st.none() | TEXT, details=JSON)


def tasks(subtasks: st.SearchStrategy[tuple[tb.Task, ...]]) -> st.SearchStrategy[tb.Task]:
    """Any tasks, with the given subtasks."""
    return st.builds(
        tb.Task,
        provider=TEXT,
        connection=NAMES,
        id=IDS,
        native_id=TEXT | NUMBERS,
        status=st.sampled_from(tb.TaskStatus),
        native_status=st.none() | TEXT,
        recognized=st.booleans(),
        reason=st.none() | st.sampled_from(tb.Reason),
        operation=st.none() | TEXT,
        progress=st.none() | st.floats(0, 1),
        message=st.none() | TEXT,
        created_at=st.none() | TIMES,
        started_at=st.none() | TIMES,
        updated_at=st.none() | TIMES,
        finished_at=st.none() | TIMES,
        observed_at=TIMES,
        result=st.none() | RESULTS,
        error=st.none() | FAILURES,
        subtasks=subtasks,
        external_id=st.none() | TEXT,
        parent_id=st.none() | TEXT,
        retry_of=st.none() | TEXT,
        restarts=st.none() | st.integers(0, 9),
        raw=OBJECTS,
    )


SCHEMA = tb.Task.json_schema()
TASKS = tasks(st.lists(tasks(st.just(())), max_size=2).map(tuple))


@given(TASKS)
def test_a_task_survives_the_way_through_json(task: tb.Task) -> None:
    again = tb.Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert (again, again.raw, again.observed_at) == (task, task.raw, task.observed_at)
    assert [part.raw for part in again.subtasks] == [part.raw for part in task.subtasks]
    assert (type(again.native_id), type(again.status)) == (type(task.native_id), tb.TaskStatus)
    assert again.observed_at.tzinfo is UTC


@given(TASKS)
def test_the_schema_describes_what_to_dict_returns(task: tb.Task) -> None:
    assert problems_of(task.to_dict(), SCHEMA) == []


def problems_of(value: Any, schema: Mapping[str, Any], at: str = "task") -> list[str]:
    """Validate a value against the keywords of JSON Schema that the schemas of the models use."""
    if "$ref" in schema:
        return problems_of(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], at)
    if "anyOf" in schema:
        options = [problems_of(value, option, at) for option in schema["anyOf"]]
        return [] if [] in options else options[0]
    kinds: dict[str | None, Any] = {
        None: object,
        "array": list,
        "boolean": bool,
        "integer": int,
        "null": type(None),
        "number": (int, float),
        "object": dict,
        "string": str,
    }
    if not isinstance(value, kinds[schema.get("type")]):
        return [f"{at} is a {type(value).__name__}, not a {schema['type']}"]
    found = [] if value in schema.get("enum", [value]) else [f"{at} is not one of {schema['enum']}"]
    if schema.get("format") == "date-time":
        found += [] if datetime.fromisoformat(value).tzinfo else [f"{at} has no time zone"]
    for number, item in enumerate(value if "items" in schema else ()):
        found += problems_of(item, schema["items"], f"{at}.{number}")
    if "properties" in schema:
        assert schema["additionalProperties"] is False
        found += [f"{at} lacks {name}" for name in schema["required"] if name not in value]
        found += [f"{at} has {name}" for name in value if name not in schema["properties"]]
        for name, rule in schema["properties"].items():
            found += problems_of(value[name], rule, f"{at}.{name}") if name in value else []
    return found


def test_the_schema_refuses_other_dictionaries() -> None:
    for change in ({"status": "done"}, {"progress": "half"}, {"color": "red"}, {"result": {"files": [{"size": 1}]}}):
        assert problems_of({**TASK.to_dict(), **change}, SCHEMA) != []


def test_the_schema_describes_each_field() -> None:
    for model in (tb.Task, tb.TaskFile, tb.TaskResult, tb.TaskFailure):
        schema = model.json_schema()
        properties = (schema.get("$defs", {}).get(model.__name__) or schema)["properties"]
        assert {each["description"].partition(": ")[0] for each in properties.values()} <= {"Normalized", "Verbatim"}
        assert properties.keys() == {each.name for each in fields(model)}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"color": "red"}, "color"),
        ({"status": "done"}, "status"),
        ({"progress": "half"}, "progress"),
        ({"id": 7}, "id"),
        ({"native_id": None}, "native_id"),
        ({"observed_at": None}, "observed_at"),
        ({"observed_at": "2026-11-22T12:00:00"}, "observed_at"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"raw": "text"}, "raw"),
        ({"result": {"files": [{"name": "a", "color": "red"}]}}, "result.files.0.color"),
        ({"result": {"files": [{"expires_at": "2026-11-22T12:00:00"}]}}, "result.files.0.expires_at"),
        ({"subtasks": [{"id": "t2"}]}, "subtasks.0.provider"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dictionary_that_is_not_a_task_is_an_invalid_input_that_names_the_field(
    change: dict[str, object], place: str
) -> None:
    with pytest.raises(tb.InvalidInput, match=rf"^Task\.from_dict: {re.escape(place)}[.:]") as caught:
        tb.Task.from_dict({**TASK.to_dict(), **change})
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_invalid_input_does_not_show_the_values() -> None:
    with pytest.raises(tb.InvalidInput) as caught:
        tb.TaskFile.from_dict({"size": "https://storage.test/?sig=abc", "url": 7})
    assert "sig=abc" not in str(caught.value)
    assert "size: " in str(caught.value)
    assert "url: " in str(caught.value)


def test_a_missing_field_is_an_invalid_input_unless_it_has_a_default() -> None:
    with pytest.raises(tb.InvalidInput, match="connection: "):
        tb.Task.from_dict({key: value for key, value in TASK.to_dict().items() if key != "connection"})
    short = ("provider", "connection", "id", "native_id", "status", "observed_at")
    assert tb.Task.from_dict({key: TASK.to_dict()[key] for key in short}) == replace(TASK, native_status=None)


def test_times_of_other_zones_become_utc() -> None:
    file = tb.TaskFile.from_dict({"expires_at": "2026-11-22T14:00:00+02:00"})
    assert (file.expires_at, file.to_dict()["expires_at"]) == (SEEN, "2026-11-22T12:00:00Z")


def test_every_time_of_a_dictionary_is_iso_text_in_utc() -> None:
    assert TASK.to_dict()["observed_at"] == "2026-11-22T12:00:00Z"


# Statuses, outcomes and refs.


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
def test_text_that_is_not_a_ref_is_an_invalid_id(text: str) -> None:
    with pytest.raises(tb.InvalidTaskId):
        tb.TaskRef(text)


def test_a_ref_keeps_colons_and_slashes_of_the_id() -> None:
    assert tb.TaskRef("a:external/x:y/z").id == "external/x:y/z"
    assert repr(tb.TaskRef("a:t1")) == "TaskRef('a:t1')"


def test_a_dictionary_can_be_encoded_even_with_lone_surrogates() -> None:
    odd = "a\ud800b"
    file = tb.TaskFile(name=odd, expires_at=SEEN, properties={odd: (odd, 1)})
    result = tb.TaskResult(files=(file,), text=odd, data={odd: 1, "a\udfffb": [odd], "n": float("inf")})
    task = replace(TASK, result=result, message=odd, raw={odd: {}}, subtasks=(replace(TASK, message=odd),))
    document = task.to_dict()
    json.dumps(document, ensure_ascii=False).encode()
    assert document["result"]["data"] == {"a?b": 1, "a?b?": ["a?b"], "n": None}
    assert tb.Task.from_dict(document).result.files[0].expires_at == SEEN  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    changed = {"result", "message", "raw", "subtasks"}
    assert {key for key, value in TASK.to_dict().items() if document[key] != value} <= changed
