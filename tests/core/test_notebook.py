"""Tables for notebooks: a vendor's text is escaped, and links to files are left out."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskbridge as tb
from taskbridge.notebook import outcomes_html, task_html

SEEN: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOSTILE: Final = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'
LINK: Final = "https://storage.test/file?signature=key-to-the-file"
TAGS: Final = frozenset({"div", "table", "tbody", "tr", "th", "td", "span", "strong", "code", "em", "br"})


class Page(HTMLParser):
    """Collects what a browser would render."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.rows = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.rows += tag == "tr"

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def task(**fields: object) -> tb.Task:
    values: dict[str, object] = {
        "provider": "acme",
        "connection": "invoices",
        "id": "t1",
        "native_id": "t1",
        "status": tb.TaskStatus.PROCESSING,
        "native_status": "working",
        "observed_at": SEEN,
    }
    return tb.Task.from_dict({**values, **fields})


def everywhere(words: str) -> tb.Task:
    """Return a failed task with the same untrusted text in every field that may hold some."""
    words = words or "x"
    return task(
        id=words,
        status="failed",
        native_status=words,
        recognized=False,
        operation=words,
        message=words,
        error={"code": words, "message": words, "details": {words: words}},
        external_id=words,
        parent_id=words,
        retry_of=words,
        subtasks=(task(operation=words, native_status=words, message=words),),
        raw={"link": LINK},
    )


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).map(lambda tail: HOSTILE + tail))
def test_a_vendors_text_is_never_markup(words: str) -> None:
    broken = tb.Outcome(tb.TaskRef.of("invoices", words), None, tb.ServerError(words))
    for html in (
        task_html(everywhere(words)),
        outcomes_html([tb.Outcome(everywhere(words).ref, everywhere(words)), broken]),
    ):
        page = Page(html)
        assert page.tags <= TAGS
        assert page.attributes <= {"style", "scope"}
        assert "<script" not in html


def test_a_task_shows_the_known_facts_and_no_link_to_a_file() -> None:
    result = tb.TaskResult(
        files=(tb.TaskFile(id="f1", name="out.pdf", url=LINK, size=2048, media_type="application/pdf"),),
        text="recognized",
        data={"total": 7},
    )
    done = task(status="completed", native_status="finished", message=f"see {LINK}", result=result, progress=1.0)
    page = Page(done._repr_html_())
    for shown in ("invoices:t1", "completed", "finished", "100%", "out.pdf (application/pdf, 2,048 bytes)"):
        assert shown in page.text
    for shown in ("10 characters of text", "structured data", "2026-11-22 12:00:00 UTC", "https://storage.test/file?…"):
        assert shown in page.text
    assert "key-to-the-file" not in done._repr_html_()


def test_outcomes_are_a_list_that_shows_how_many_tasks_ended_how() -> None:
    ended = [
        tb.Outcome(tb.TaskRef("invoices:t1"), task(status="completed")),
        tb.Outcome(tb.TaskRef("invoices:t2"), task(id="t2", status="failed", reason="cancelled")),
        tb.Outcome(tb.TaskRef("invoices:t3"), task(id="t3"), tb.WaitTimeout("stopped waiting")),
        tb.Outcome(tb.TaskRef("invoices:t4"), None, tb.TaskNotFound("no such task")),
    ]
    outcomes = tb.Outcomes(ended)
    assert outcomes == ended
    assert outcomes[1] is ended[1]
    assert isinstance(outcomes[:2], tb.Outcomes)
    assert pickle.loads(pickle.dumps(outcomes[:2])) == ended[:2]
    page = Page(outcomes._repr_html_())
    assert page.rows == 5
    for shown in ("4 tasks", "completed", "failed", "not finished", "unknown", "TaskNotFound: no such task"):
        assert shown in page.text


def test_a_vendors_word_is_not_shown_twice() -> None:
    gone = task(status="failed", native_status="Deleted", error={"code": "deleted"})
    assert Page(tb.Outcomes([tb.Outcome(gone.ref, gone)])._repr_html_()).text.casefold().count("deleted") == 1


@pytest.mark.parametrize(("count", "rows", "text"), [(0, 0, "0 tasks"), (1, 2, "1 task"), (250, 101, "and 150 more")])
def test_a_table_of_outcomes_has_at_most_a_hundred_rows(count: int, rows: int, text: str) -> None:
    page = Page(tb.Outcomes([tb.Outcome(tb.TaskRef("invoices:t1"), task())] * count)._repr_html_())
    assert (page.rows, text in page.text) == (rows, True)


def test_colors_are_readable_on_a_light_and_on_a_dark_page() -> None:
    html = everywhere("x")._repr_html_()
    assert "color:inherit" in html
    assert "<style" not in html  # some viewers strip style sheets
    assert "background:#c0262d;color:#fff" in html
