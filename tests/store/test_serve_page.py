"""The page of `serve` in headless Chromium: it fits, is readable, obeys its own policy, and is live."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from selenium.webdriver.common.by import By
from sqlalchemy import insert, update

import taskbridge as tb
from taskbridge.events import PollReason
from taskbridge.models import TaskRef
from taskbridge.serve import Access
from taskbridge.store import AccountStatus
from taskbridge.store.reports import to_json
from taskbridge.store.schema import ACCOUNT, DELIVERY, EVENT

from ..browser import Browser, needs_chromium  # noqa: TID252  # beside this folder
from .served import Serve, Served
from .test_serve import HOSTILE, TOKEN, make_uncertain

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.driver.quit()


@pytest.fixture
def served(serve: Serve, store: tb.Store) -> Served:
    """A server whose store has a row of everything, some of it hostile or long."""
    now = datetime.now(UTC)
    with store.begin() as tx:
        for number in range(60):
            tx.watch(f"scans:task_{number:03}", meta={"order": number, "note": HOSTILE})
        tx.watch("scans:" + "0123456789abcdef" * 20, meta={"long": "x" * 500}, until=now + timedelta(hours=1))
    make_uncertain(store, "INV-1", error="no response after 30 s", input="/data/in/" + "very-long-name" * 12 + ".pdf")
    make_uncertain(
        store, "INV-2", phase="planned", error="the file cannot be read here: no such file", input="/data/x.pdf"
    )
    status = AccountStatus(
        watched=61,
        rate=2.0,
        limit=10.0,
        demand=31.0,
        requests={"poll": 123_456, "submit": 61},
        slowed_down=7,
        mean_delay=3.25,
        durations={"convert": 42.0, "extract-text": 300.0, "ocr": 3.0},
        quantiles={"convert": (10.0, 21.0, 40.0, 60.0, 90.0), "extract-text": (60.0, 200.0, 290.0, 400.0, 7_000.0)},
        usage={"credits": 1234.5, "pages": 88.0},
        next_polls={TaskRef("scans:task_000"): (now, PollReason.LEARNED)},
    )
    failed = {"connection": "scans", "position": 1, "ref": "scans:task_9", "consumer": "billing", "attempts": 8}
    with store.database.writing() as opened:
        opened.execute(
            update(ACCOUNT).values(
                owner="process 1 on a-machine-with-a-rather-long-name.example.internal",
                owner_since=now.timestamp(),
                status=to_json(status),
                status_at=now.timestamp(),
            )
        )
        opened.execute(insert(EVENT).values(connection="scans", position=1, key="k", kind="ended", body={}, at=0.0))
        opened.execute(insert(DELIVERY).values(**failed, error="HTTP 500 " * 40, updated_at=0.0))
    return serve()


OVERFLOW: Final = """
const room = document.documentElement.clientWidth;
return document.documentElement.scrollWidth > room
  ? [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > room + 1)
      .slice(0, 5).map(e => e.outerHTML.slice(0, 160))
  : [];
"""
CONTRAST: Final = """
const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
const seen = [...document.querySelectorAll("body *")].filter(e => e.getClientRects().length &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
return seen.map(e => { const a = light(e.closest("svg") ? getComputedStyle(e).fill : getComputedStyle(e).color);
  const b = light(ground(e)); return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 120)]; })
  .filter(([contrast]) => contrast < 4.5);
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_is_readable(width: int, *, dark: bool, served: Served, browser: Browser) -> None:
    browser.messages()
    browser.show(served.address, width=width, dark=dark)
    browser.until(lambda: browser.text("#live") == "live")
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(each) for each in ground.removeprefix("rgb(").removesuffix(")").split(",")) < 3 * 128) == dark
    assert browser.run(OVERFLOW) == []
    browser.run("document.querySelectorAll('summary').forEach(each => each.click())")
    assert browser.run(OVERFLOW) == []
    assert browser.run(CONTRAST) == []  # WCAG 2.2, 1.4.3
    assert len(browser.run("return [...document.querySelectorAll('svg.plot:not(.axis)')].map(e => e.clientWidth)")) == 2
    assert browser.text("#connections .badge.warn") == "15.5 times too slow"
    assert browser.messages() == []
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(loaded) >= 4
    assert all(each.startswith(f"{served.address}/") for each in loaded)


def test_changes_appear_without_a_reload(served: Served, store: tb.Store, browser: Browser) -> None:
    browser.messages()
    browser.show(f"{served.address}/?q=fresh")
    browser.until(lambda: browser.text("#live") == "live")
    browser.run("window.isSamePage = true")
    browser.run("document.querySelector('input[type=search]').value = 'half typed'")
    assert "No such task." in browser.text("#tasks")
    store.watch("scans:fresh")
    browser.until(lambda: "scans:fresh" in browser.text("#tasks"))
    assert browser.run("return window.isSamePage")
    assert browser.run("return document.querySelector('input[type=search]').value") == "half typed"
    assert browser.messages() == []


def test_a_decision_stays_open_while_the_page_changes_and_is_carried_out(
    served: Served, store: tb.Store, browser: Browser
) -> None:
    browser.messages()
    browser.show(served.address)
    browser.until(lambda: browser.text("#live") == "live")

    forget = '#attention details:has(form[action$="/forget"])'
    browser.click(f"{forget} summary")
    make_uncertain(store, "INV-3")
    browser.until(lambda: "2 uncertain" in browser.text("#summary"))
    assert browser.run(f"return document.querySelector('{forget}').open")
    browser.click(f"{forget} button")
    browser.until(lambda: {each.key: each.phase for each in store.submissions()}["INV-1"] == "forgotten")
    browser.until(lambda: "INV-3" in browser.text("#attention"))
    assert "INV-1" not in browser.text("#attention")
    assert browser.messages() == []


def test_it_says_when_it_is_not_live(served: Served, browser: Browser) -> None:
    browser.show(served.address)
    browser.until(lambda: browser.text("#live") == "live")
    served.stop()
    browser.until(lambda: browser.text("#live") == "not live")


def test_logging_in_and_out(serve: Serve, browser: Browser) -> None:
    served = serve(Access("127.0.0.1", TOKEN))
    browser.show(served.address, width=390)
    browser.driver.find_element(By.NAME, "token").send_keys(TOKEN)
    browser.click("button")
    browser.until(lambda: browser.text("#live") == "live")
    assert TOKEN not in browser.driver.page_source
    browser.click("header button")
    browser.until(lambda: browser.driver.find_elements(By.NAME, "token"))
