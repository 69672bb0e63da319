"""`taskbridge serve` over HTTP: who may see the page, what it shows, and what it never shows."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, insert, select, update
from starlette.requests import Request

import taskbridge as tb
from taskbridge.errors import ConfigError
from taskbridge.provider.clock import SystemClock
from taskbridge.serve import Access, listen
from taskbridge.serve.texts import age_text, duration_text, number_text, safe, time_text
from taskbridge.serve.view import Filter, Overview
from taskbridge.store import Phase, State
from taskbridge.store.overview import watches_query
from taskbridge.store.schema import ACCOUNT, CURSOR, DELIVERY, EVENT, INTENT, WATCH
from taskbridge.testing import Emulator

from .conftest import PNG, until
from .postgresql import Cluster
from .served import Serve, Served

TOKEN: Final = "correct-horse-battery-staple"
HOSTILE: Final = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
LINK: Final = "https://files.example.com/bucket/secret-path?X-Amz-Signature=abcdef0123456789"


def make_uncertain(store: tb.Store, key: str, **values: Any) -> None:
    with store.database.writing() as opened:
        if not opened.execute(select(ACCOUNT.c.connection).where(ACCOUNT.c.connection == "scans")).all():
            opened.execute(insert(ACCOUNT).values(connection="scans", epoch=0, revision=1, position=0))
        row = {"connection": "scans", "key": key, "arguments": {"options": None}, "phase": "uncertain", "revision": 1}
        opened.execute(insert(INTENT).values({**row, "created_at": 0.0, "updated_at": 0.0, **values}))


def processing() -> dict[str, Any]:
    return tb.Task(
        provider="scan-documents",
        connection="scans",
        id="1",
        native_id="1",
        status=tb.TaskStatus.PROCESSING,
        observed_at=datetime.now(UTC),
    ).to_dict()


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


# Access.


def test_without_a_token_only_loopback_names_are_answered(serve: Serve) -> None:
    served = serve()
    for host in ("localhost", f"127.0.0.1:{served.port}", "[::1]:8700", "LOCALHOST:1"):
        assert served.request("/", Host=host)[0] == 200
    for path in ("/", "/metrics", "/live"):
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1"):
            assert served.request(path, Host=host)[0] == 403
    assert served.request("/login")[0] == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "host.example"])
def test_other_addresses_need_a_token_or_a_proxy(host: str) -> None:
    with pytest.raises(ConfigError, match="give a token"):
        Access(host)
    Access(host, TOKEN)
    Access(host, proxies=["192.0.2.9"])


def test_weak_tokens_and_wrong_proxies_are_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 16 characters"):
        Access("127.0.0.1", "short")
    with pytest.raises(ConfigError, match="no address or network"):
        Access("127.0.0.1", proxies=["not-an-address"])


def test_a_token_is_needed_for_everything_but_the_health(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", TOKEN))
    status, headers, _ = served.request("/")
    assert (status, headers["location"]) == (303, "/login")
    for path, method in (("/metrics", "GET"), ("/live", "GET"), ("/submissions/forget", "POST"), ("/logout", "POST")):
        assert served.request(path, method)[0] == 401
    assert served.request("/healthz")[0] == 200
    assert served.request("/metrics", Authorization="Bearer wrong")[0] == 401
    assert served.request("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.request("/metrics", Authorization=f"Basic {TOKEN}")[0] == 401


def log_in(served: Served) -> str:
    status, headers, _ = served.request("/login", "POST", {"token": TOKEN})
    assert (status, headers["location"]) == (303, "/")
    return headers["set-cookie"]


def test_a_login_gives_a_session_that_ends_with_its_signature(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", TOKEN))
    assert 'type="password"' in served.page("/login")
    status, headers, text = served.request("/login", "POST", {"token": "wrong"})
    assert (status, headers["set-cookie"]) == (401, None)
    assert "That is not the token." in text
    given = log_in(served)
    assert "HttpOnly" in given
    assert "SameSite=strict" in given
    assert "Secure" not in given
    assert TOKEN not in given
    cookie = given.partition(";")[0]
    page = served.page(Cookie=cookie)
    assert "Log out" in page
    assert TOKEN not in page
    name, _, value = cookie.partition("=")
    ends, _, signature = value.partition(".")
    for forged in (f"{int(ends) + 1}.{signature}", f"{ends}.", ends, "", f"{ends}.{'0' * 64}", f"x.{signature}"):
        assert served.request("/", Cookie=f"{name}={forged}")[0] == 303
    status, headers, _ = served.request("/logout", "POST", {"form_token": form_token(page)}, Cookie=cookie)
    assert status == 303
    assert "Max-Age=0" in headers["set-cookie"]


def test_a_login_from_another_site_is_refused(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", TOKEN))
    for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert served.request("/login", "POST", {"token": TOKEN}, **headers)[0] == 403
    assert served.request("/login", "POST", b"token=" + TOKEN.encode(), Content_Type="text/plain")[0] == 400
    assert served.request("/login", "POST", {"token": "x" * 9000})[0] == 400


def test_a_user_is_believed_from_a_trusted_proxy_only(serve: Serve) -> None:
    trusting, other = (
        serve(Access("127.0.0.1", proxies=["127.0.0.0/8"], names=["Tasks.example.com"])),
        serve(Access("127.0.0.1", proxies=["192.0.2.1"])),
    )
    assert trusting.request("/", X_Forwarded_User="ann", Host="tasks.example.com")[0] == 200
    assert trusting.request("/")[0] == 403  # the proxy's callers also come from a loopback address
    assert other.request("/", X_Forwarded_User="ann")[0] == 403
    assert other.request("/", X_Forwarded_User="ann", X_Forwarded_For="192.0.2.1")[0] == 403
    with_token = serve(Access("127.0.0.1", TOKEN, ["127.0.0.1"], ["tasks.example.com"]))
    _, headers, _ = with_token.request("/login", "POST", {"token": TOKEN}, X_Forwarded_Proto="https")
    assert "Secure" in headers["set-cookie"]


@pytest.mark.parametrize("proxy", ["127.0.0.1", "::1", "0.0.0.0/0", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_proxy_on_this_machine_needs_a_name(proxy: str, token: str | None) -> None:
    with pytest.raises(ConfigError, match="--host-name"):
        Access("127.0.0.1", token, [proxy])
    Access("127.0.0.1", token, [proxy], ["tasks.example.com"])
    for wrong in ("", "https://tasks.example.com", "tasks.example.com:443", "a/b", "[::1"):
        with pytest.raises(ConfigError, match="--host-name takes a name"):
            Access("127.0.0.1", token, [proxy], [wrong])


def test_a_site_with_a_name_that_points_here_cannot_name_a_user(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", proxies=["127.0.0.1"], names=["tasks.example.com"]))
    for path, method in (("/", "GET"), ("/metrics", "GET"), ("/live", "GET"), ("/submissions/forget", "POST")):
        for host in ("evil.example", f"evil.example:{served.port}", "tasks.example.com.evil.example", ""):
            assert served.request(path, method, X_Forwarded_User="ann", Host=host)[0] == 403
    for host in ("tasks.example.com", "TASKS.example.com:8443"):
        assert served.request("/", X_Forwarded_User="ann", Host=host)[0] == 200
    with_token = serve(Access("127.0.0.1", TOKEN, names=["tasks.example.com"]))
    assert with_token.request("/", Authorization=f"Bearer {TOKEN}", Host="tasks.example.com")[0] == 200
    assert with_token.request("/", Authorization=f"Bearer {TOKEN}")[0] == 200  # as Prometheus on this machine
    assert with_token.request("/", Authorization=f"Bearer {TOKEN}", Host="evil.example")[0] == 403
    assert with_token.request("/healthz", Host="10.0.0.7")[0] == 200


@pytest.mark.parametrize("proxy", ["192.0.2.9", "::ffff:192.0.2.9"])
def test_a_proxy_may_be_seen_as_a_mapped_address(proxy: str) -> None:
    access = Access("::", proxies=[proxy])
    for address, is_trusted in (("::ffff:192.0.2.9", True), ("::ffff:192.0.2.8", False), ("2001:db8::1", False)):
        scope = {"type": "http", "headers": [(b"x-forwarded-user", b"ann")], "client": (address, 1)}
        assert access.user_of(Request(scope)) == ("user ann" if is_trusted else None)


def test_a_proxy_that_changes_the_host_is_named(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", TOKEN))
    origin = "https://tasks.example.com"
    status, _, text = served.request("/login", "POST", {"token": TOKEN}, Origin=origin, Sec_Fetch_Site="same-origin")
    assert status == 403
    assert "the reverse proxy changes the header Host" in text
    assert "must pass it on unchanged" in text
    assert "changes" not in served.request("/login", "POST", {}, Origin=origin, Sec_Fetch_Site="cross-site")[2]
    assert served.request("/login", "POST", {"token": TOKEN}, Origin=origin, Host="tasks.example.com")[0] == 303


def test_a_request_that_names_two_users_is_refused(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", proxies=["127.0.0.1"], names=["tasks.example.com"]))
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.putrequest("GET", "/")
    for user in ("root", "ann"):
        connection.putheader("X-Forwarded-User", user)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 403
    assert "names two users" in response.read().decode()
    connection.close()


# What is shown.


def test_every_response_has_the_headers(serve: Serve) -> None:
    served = serve()
    for path in ("/", "/static/page.css", "/healthz", "/metrics", "/nothing"):
        _, headers, _ = served.request(path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["server"] is None
    assert served.request("/")[1]["cache-control"] == "no-store"


def test_the_page_loads_only_its_own_files_and_has_no_inline_code(serve: Serve, store: tb.Store) -> None:
    store.watch("scans:1")
    served = serve()
    page = served.page()
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 5
    for path in loaded:
        assert path.startswith("/static/")
        assert served.request(path)[0] == 200
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page) == []
    for path in ("/static/../view.py", "/static/%2e%2e/view.py", "/static/", "/static/missing"):
        assert served.request(path)[0] == 404


def test_hostile_words_are_text(serve: Serve, store: tb.Store) -> None:
    store.watch(f"scans:{HOSTILE}", meta={HOSTILE: HOSTILE})
    make_uncertain(store, HOSTILE, error=HOSTILE, input=f"/tmp/{HOSTILE}", operation=HOSTILE, meta={"a": HOSTILE})
    with store.database.writing() as opened:
        status = {"durations": {HOSTILE: 1.0}, "quantiles": {HOSTILE: [1, 2, 3, 4, 5]}, "outage_error": HOSTILE}
        opened.execute(update(ACCOUNT).values(problem=HOSTILE, owner=HOSTILE, status=status, status_at=0.0))
        row = {"connection": "scans", "position": 1, "updated_at": 0.0}
        opened.execute(insert(EVENT).values(connection="scans", position=1, key="k", kind="ended", body={}, at=0.0))
        opened.execute(insert(DELIVERY).values(**row, consumer=HOSTILE, ref=HOSTILE, attempts=3, error=HOSTILE))
        snapshot = {**processing(), "native_status": HOSTILE, "message": HOSTILE}
        opened.execute(update(WATCH).values(snapshot=snapshot))
    served = serve()
    for path in ("/", f"/?{urlencode({'q': HOSTILE, 'state': 'all', 'connection': HOSTILE})}", "/?state=all"):
        page = served.page(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)" in page
    assert served.page().count("&lt;script&gt;") > 10


def test_no_secret_and_no_link_to_a_document_is_shown(serve: Serve, store: tb.Store) -> None:
    store.watch("scans:1", meta={"from": LINK})
    make_uncertain(store, f"key {LINK}", error=f"GET {LINK} failed", input=LINK, meta={"link": LINK})
    make_uncertain(store, "held", phase="planned", error=f"cannot read {LINK}", input=LINK)
    make_uncertain(store, "newer", phase="refused", updated_at=2.0, error="the second")
    make_uncertain(store, "refused", phase="refused", error=f"cannot fetch {LINK}", input=LINK)
    with store.database.writing() as opened:
        opened.execute(update(ACCOUNT).values(problem=f"see {LINK}", status={"outage_error": LINK}))
    served = serve()
    for text in (served.page(), served.page("/metrics"), served.page("/?state=all")):
        for secret in ("secret-path", "X-Amz-Signature", "abcdef0123456789"):
            assert secret not in text
    page = unescape(served.page())
    assert "GET https://files.example.com/… failed" in page
    assert page.index("the second") < page.index("cannot fetch https://files.example.com/…")
    assert ">secret-path" not in page


def test_the_page_says_which_store_it_shows(serve: Serve, store: tb.Store) -> None:
    assert f'title="The store">{store.database.name}</p>' in serve().page()
    store.database.name = "postgresql://db.internal:5432/tasks"  # of PostgreSQL, which names no user and no password
    assert 'title="The store">postgresql://db.internal:5432/tasks</p>' in serve().page()


def test_texts_are_short_and_safe() -> None:
    assert safe("see https://user:pw@host.example:8080/a?b#c!") == "see https://host.example/…"
    assert safe("https://[broken") == "https:///…"
    for before in ("請求書", "_", "9", "é", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"):
        assert safe(f"{before}{LINK}") == f"{before}https://files.example.com/…"
    assert safe(json.dumps(LINK).replace("/", "\\/")) == '"https:\\/\\/files.example.com/…"'
    assert len(str(safe("h" * 300_000))) < 2000  # at once: not in a time that grows with the square of the length
    assert safe("line\x1b[31m\u202e") == "line\\x1b[31m\\u202e"
    assert safe(7) == 7
    assert [age_text(seconds) for seconds in (-5, 59, 60, 7_320, 180_000)] == [
        "under 1 min",
        "under 1 min",
        "1 min",
        "2 h 2 min",
        "2 d 2 h",
    ]
    assert [duration_text(seconds) for seconds in (0.42, 12, 210, 7_560)] == ["0.4 s", "12 s", "3.5 min", "2.1 h"]


def test_numbers_have_no_exponent() -> None:
    numbers = (0.0, 7.0, 999.7, 123.45, 0.00001, 0.12345, 1234.5, 1_234_567.0, 9.999, -2.5)
    shown = "0 7 999.7 123.45 0.00001 0.123 1,234.5 1,234,567 10 -2.5"
    assert " ".join(map(number_text, numbers)) == shown


def test_events_that_wait_for_an_earlier_one_do_not_count_as_failed(serve: Serve, store: tb.Store) -> None:
    make_uncertain(store, "INV-1")
    now = store.database.now()
    row = {"consumer": "billing", "connection": "scans", "ref": "scans:1", "updated_at": now}
    with store.database.writing() as opened:
        for position, attempts, next_at in ((1, 8, None), (2, 0, now - 60.0), (3, 2, now + 3600.0)):
            values: dict[str, Any] = {
                "position": position,
                "key": f"scans:{position}/1",
                "kind": "ended",
                "body": {},
                "at": now,
            }
            opened.execute(insert(EVENT).values(connection="scans", **values))
            values = {"position": position, "attempts": attempts, "next_at": next_at, "error": f"error {position}"}
            opened.execute(insert(DELIVERY).values(**row, **values))
    served = serve()
    page = served.page()
    assert "billing: 2 failed, 1 of them not tried again; 1 wait for an earlier event of their task." in page
    assert page.index("error 1") < page.index("error 3") < page.index("error 2")
    assert '<td data-label="Next attempt" class="t">waits</td>' in page
    assert metric(served, "taskbridge_store_retried_deliveries", consumer="billing") == 1
    assert metric(served, "taskbridge_store_dead_letters", consumer="billing") == 1


def test_tasks_are_searched_and_paged(serve: Serve, store: tb.Store) -> None:
    with store.begin() as tx:
        for number in range(120):
            tx.watch(f"scans:task_{number:03}", meta={"order": f"A-{number}"})
    served = serve()
    seen: list[str] = []
    path: str | None = "/?connection=scans"
    while path is not None:
        page = served.page(path)
        seen += re.findall(r'<th scope="row">(scans:task_\d+)', page)
        more = re.search(r'href="(/\?[^"#]*)#tasks" rel="next"', page)
        path = None if more is None else unescape(more[1])
    assert seen == [f"scans:task_{number:03}" for number in range(120)]
    assert "scans:task_077" in served.page("/?q=a-77")
    assert "scans:task_076" not in served.page("/?q=a-77")
    assert "No such task." in served.page("/?state=ended")
    for odd in (
        "after=x%20y&state=odd&q=%00",
        "after=nan%20%00&connection=%00",
        "after=inf%20y&q=%FF",
        "after=1e999%20y",
    ):
        assert served.request(f"/?{odd}")[0] == 200


def test_a_connection_that_is_not_configured_is_shown(serve: Serve, store: tb.Store, config: Path) -> None:
    store.watch("long-gone:1")
    page = serve(config=config).page()
    assert "long-gone" in page
    assert "not configured" in page
    assert "no owner yet" in page or "working" in page  # those of the configuration are shown too


def figures(page: str) -> dict[str, tuple[str, str, str]]:
    """The number, the kind and the link of each figure, by its name."""
    found = re.findall(r'<li class="(\w*)"><a href="([^"]*)"><b>([\d,]+)</b> ([^<]+)</a>', page)
    return {name: (number, kind, unescape(link)) for kind, link, number, name in found}


def test_open_tasks_of_a_connection_that_is_not_configured_are_a_problem(
    serve: Serve, store: tb.Store, config: Path
) -> None:
    store.watch("done:1")
    store.unwatch("done:1")
    assert figures(serve(config=config).page())["connections with problems"][:2] == ("0", "")
    store.watch("long-gone:1")
    assert figures(serve(config=config).page())["connections with problems"] == ("1", "warn", "#connections")


def test_tasks_that_were_given_up_are_counted_and_shown(serve: Serve, store: tb.Store) -> None:
    for name in ("kept", "lost", "late"):
        store.watch(f"scans:{name}")
    with store.database.writing() as opened:
        opened.execute(update(WATCH).where(WATCH.c.ref != "scans:kept").values(state="given_up", error="unknown"))
    served = serve()
    number, kind, link = figures(served.page())["given up"]
    assert (number, kind, link) == ("2", "warn", "/?state=given_up#tasks")
    shown = served.page(link.partition("#")[0])
    assert "scans:lost" in shown
    assert "scans:kept" not in shown


# The buttons.


def test_a_button_needs_the_form_of_the_page(serve: Serve, store: tb.Store) -> None:
    make_uncertain(store, "INV-1")
    served = serve()
    page = served.page()
    number = re.search(r'name="submission" value="(\d+)"', page)
    assert number is not None
    fields = {"submission": number[1], "form_token": form_token(page)}
    assert served.request("/submissions/forget", "POST", {**fields, "form_token": "0" * 64})[0] == 403
    assert served.request("/submissions/forget", "POST", {"submission": number[1]})[0] == 403
    assert served.request("/submissions/forget", "POST", fields, Sec_Fetch_Site="cross-site")[0] == 403
    assert served.request("/submissions/forget", "POST", fields, Origin="http://evil.example")[0] == 403
    assert served.request("/submissions/forget", "POST", fields, Host="evil.example")[0] == 403
    assert served.request("/submissions/forget")[0] == 405
    for wrong in ("", "x", "9" * 30, "-1", "²"):
        assert served.request("/submissions/forget", "POST", {**fields, "submission": wrong})[0] == 400
    assert served.request("/submissions/destroy", "POST", fields)[0] == 400
    assert [each.phase for each in store.submissions()] == ["uncertain"]
    status, headers, _ = served.request("/submissions/forget", "POST", fields, Origin=served.address)
    assert (status, headers["location"]) == (303, "/#attention")
    assert [each.phase for each in store.submissions()] == ["forgotten"]
    assert "INV-1" not in served.page()
    status, _, text = served.request("/submissions/resubmit", "POST", fields)
    assert status == 409
    assert "is forgotten" in text
    assert served.request("/submissions/forget", "POST", {**fields, "submission": "999"})[0] == 409


def test_a_resubmission_is_planned(serve: Serve, store: tb.Store) -> None:
    make_uncertain(store, "INV-1")
    served = serve()
    page = served.page()
    fields = {"submission": "1", "form_token": form_token(page)}
    assert served.request("/submissions/resubmit", "POST", fields)[0] == 303
    assert [each.phase for each in store.submissions()] == ["planned"]


# Live updates, metrics, health.


def read_events(served: Served, until_event: Callable[[str, str], bool], path: str = "/live") -> dict[str, str]:
    """Read server-sent events until one fulfills a condition."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        shown: dict[str, str] = {}
        name, lines = "", list[str]()
        while True:
            line = response.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                lines.append(line.removeprefix("data: "))
            elif not line and name:
                shown[name] = "\n".join(lines)
                if until_event(name, shown[name]):
                    return shown
                name, lines = "", []
    finally:
        connection.close()


def test_changes_are_sent_as_they_happen(serve: Serve, store: tb.Store) -> None:
    store.watch("scans:first")
    served = serve()
    added = threading.Event()

    def is_shown(name: str, html: str) -> bool:
        if name == "tasks" and not added.is_set():
            assert "scans:first" in html
            store.watch("scans:second")
            added.set()
        return name == "tasks" and "scans:second" in html

    shown = read_events(served, is_shown)
    assert set(shown) >= {"summary", "connections", "attention", "groups", "tasks", "notice"}


def test_a_filtered_page_gets_filtered_updates(serve: Serve, store: tb.Store) -> None:
    store.watch("scans:first")
    store.watch("scans:second")
    shown = read_events(serve(), lambda name, _: name == "tasks", "/live?q=second")
    assert "scans:second" in shown["tasks"]
    assert "scans:first" not in shown["tasks"]


def metric(served: Served, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(served.page("/metrics"))
    samples = [each for family in families for each in family.samples if each.name == name and each.labels == labels]
    return samples[0].value if samples else None


def test_metrics_say_what_the_store_has(serve: Serve, store: tb.Store, config: Path, emulator: Emulator) -> None:
    store.watch(f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}")
    make_uncertain(store, "INV-1")
    served = serve(config=config)

    until(lambda: metric(served, "taskbridge_store_requests_total", connection="cloudconvert", kind="poll"))
    assert metric(served, "taskbridge_store_watches", connection="cloudconvert", state="open") == 1
    assert metric(served, "taskbridge_store_submissions", connection="scans", phase="uncertain") == 1
    assert metric(served, "taskbridge_store_owned_here", connection="cloudconvert") == 1
    assert metric(served, "taskbridge_store_owned_here", connection="scans") == 0
    assert metric(served, "taskbridge_store_owner_silent", connection="scans") == 1
    assert metric(served, "taskbridge_store_owner_silent", connection="cloudconvert") == 0
    assert metric(served, "taskbridge_store_outage", connection="cloudconvert") == 0
    assert metric(served, "taskbridge_store_account_refused", connection="cloudconvert") == 0


def test_a_phase_without_submissions_is_a_metric_of_zero(serve: Serve, store: tb.Store) -> None:
    store.watch("scans:1")
    served = serve()
    for phase in Phase:
        assert metric(served, "taskbridge_store_submissions", connection="scans", phase=phase.value) == 0
    for state in State:
        found = metric(served, "taskbridge_store_watches", connection="scans", state=state.value)
        assert found == (state is State.OPEN)


def test_a_connection_and_a_consumer_without_rows_have_metrics(serve: Serve, store: tb.Store, config: Path) -> None:
    store.watch(tb.Task.from_dict({**processing(), "status": "failed", "resumable": False}))
    next(iter(store.events("billing"))).ack()
    served = serve(config=config)
    assert metric(served, "taskbridge_store_submissions", connection="cloudconvert", phase="refused") == 0
    assert metric(served, "taskbridge_store_dead_letters", consumer="billing") == 0
    assert metric(served, "taskbridge_store_retried_deliveries", consumer="billing") == 0


class Ahead(SystemClock):
    """The clock of a database that is days ahead of this machine's."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=5)


def test_times_are_compared_with_the_clock_of_the_store(tmp_path: Path) -> None:
    clock = Ahead()
    with tb.Store(tmp_path / "taskbridge.db", clock=clock) as store:
        store.watch("scans:1")
        now = store.database.now()
        values: dict[str, Any] = {"owner": "process 1", "owner_since": now, "status": {}, "status_at": now}
        values["paused_until"] = now + 0.1
        with store.database.writing() as opened:
            opened.execute(update(ACCOUNT).values(**values))
        served = Served(store, Access("127.0.0.1"), None, [])
        try:
            until(lambda: store.database.now() > now + 0.1)
            page = served.page()
            assert 'taskbridge_store_owner_silent{connection="scans"} 0.0' in served.page("/metrics")
        finally:
            served.stop()
    assert ">working<" in page  # neither silent nor paused
    assert "under 1 min" in page
    at = datetime(2030, 5, 1, 12, 30, tzinfo=UTC)
    assert [time_text(at, at), time_text(at, at - timedelta(days=1))] == ["12:30:00", "2030-05-01 12:30:00"]


def test_events_that_never_were_are_not_unread(serve: Serve, store: tb.Store) -> None:
    for name in ("a", "b", "c"):
        store.watch(tb.Task.from_dict({**processing(), "id": name, "status": "failed", "resumable": False}))
    next(iter(store.events("billing"))).ack()
    store.adopt()  # leaves a gap
    assert 'taskbridge_store_unread_events{consumer="billing"} 2.0' in serve().page("/metrics")


def test_a_store_that_cannot_be_read_is_unhealthy(
    serve: Serve, store: tb.Store, request: pytest.FixtureRequest
) -> None:
    served = serve()
    assert served.request("/healthz")[::2] == (200, '{"status":"ok"}')
    with store.database.writing() as opened:
        opened.exec_driver_sql("ALTER TABLE taskbridge_account RENAME TO away")
    status, _, text = served.request("/")
    assert status == 503
    assert "cannot be used" in text
    files = store.database.files(())
    if not files:
        postgres: Cluster = request.getfixturevalue("postgres")
        postgres.stop()  # the next test starts it again
    else:
        files[0].write_bytes(b"no database" * 1000)
        store.close()
    assert served.request("/healthz")[::2] == (503, '{"status":"the store cannot be read"}')


# The work.


def test_it_works_on_the_store(serve: Serve, store: tb.Store, config: Path, emulator: Emulator, tmp_path: Path) -> None:
    del emulator
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    store.submit("scan-documents", "extract-text", path, key="INV-1", meta={"order": 7})
    served = serve(config=config)
    until(lambda: store.find(state="ended"))
    assert "this server" in served.page()
    assert "works on cloudconvert, scan-documents" in until(lambda: served.reports)[0]


def test_a_second_server_stands_by_and_takes_over(
    serve: Serve, store: tb.Store, config: Path, emulator: Emulator
) -> None:
    del emulator
    first = serve(config=config)
    until(lambda: first.reports)
    second = serve(config=config)
    until(lambda: len(second.reports) == 2)
    assert re.fullmatch(r"stands by for cloudconvert, which belongs to process \d+ on .+", second.reports[0])
    first.stop()
    until(lambda: "works on cloudconvert, scan-documents" in second.reports)
    owner = store.accounts()[0].owner
    assert owner is not None
    assert f"this server<small>{owner}</small>" in second.page()


def test_a_new_configuration_is_read_and_a_wrong_one_refused(serve: Serve, config: Path, emulator: Emulator) -> None:
    del emulator
    served = serve(config=config)
    until(lambda: served.reports)
    good = config.read_text(encoding="utf-8")
    config.write_text("[connections.broken\n", encoding="utf-8")
    served.call("reload")
    until(lambda: any(each.startswith("the configuration stays as it was") for each in served.reports))
    assert "The configuration was not changed" in served.page()
    assert "this server" in until(lambda: "this server" in (page := served.page()) and page)
    renamed = good.replace("connections.cloudconvert", "connections.renamed").replace(
        'default = "cloudconvert"', 'default = "renamed"'
    )
    config.write_text(renamed, encoding="utf-8")
    served.call("reload")
    until(lambda: "works on renamed, scan-documents" in served.reports)
    page = served.page()
    assert "The configuration was not changed" not in page
    assert "not configured" in page  # the old name


def test_a_configuration_that_cannot_be_used_ends_the_server(serve: Serve, config: Path) -> None:
    config.write_text("[connections.broken\n", encoding="utf-8")
    served = serve(config=config)
    until(lambda: served.failure)
    assert isinstance(served.failure, ConfigError)


def test_a_port_in_use_is_reported() -> None:
    with listen("127.0.0.1", 0) as bound, pytest.raises(ConfigError, match="is in use"):
        listen("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot be used"):
        listen("192.0.2.1", 1)


def test_the_health_is_json(serve: Serve) -> None:
    assert json.loads(serve().page("/healthz")) == {"status": "ok"}


class Counting:
    """A job that runs until it is stopped, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.has_ended = False
        self._failure = failure
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        if self._failure is not None:
            raise self._failure
        await self._stopping.wait()
        self.has_ended = True

    def stop(self) -> None:
        self._stopping.set()


def test_other_jobs_run_beside_it_and_end_with_it(serve: Serve) -> None:
    job = Counting()
    served = serve(jobs=[job])
    assert served.request("/")[0] == 200
    assert not job.has_ended
    served.stop()
    assert job.has_ended


def test_a_job_that_fails_ends_the_server(serve: Serve) -> None:
    served = serve(jobs=[Counting(), Counting(ConfigError("no such queue"))])
    until(lambda: served.failure)
    assert str(served.failure) == "no such queue"


# A large store, whose queries take long.


class SlowSearch:
    """Holds up each search for tasks until it is let go, and counts them."""

    def __init__(self, store: tb.Store) -> None:
        self.count = 0
        self.has_begun, self._go_on = threading.Event(), threading.Event()
        event.listen(store.database.engine, "before_cursor_execute", self._hold_up)

    def _hold_up(self, *given: Any) -> None:
        statement = given[2]
        if "taskbridge_watch" in statement and "LIMIT" in statement and "count(" not in statement:
            self.count += 1
            self.has_begun.set()
            assert self._go_on.wait(30)

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture
def slow_search(store: tb.Store) -> Iterator[SlowSearch]:
    made = SlowSearch(store)
    yield made
    made.let_go()


def test_a_long_search_holds_up_neither_the_health_nor_the_end(
    serve: Serve, store: tb.Store, slow_search: SlowSearch
) -> None:
    store.watch("scans:1")
    served = serve()
    pages = [http.client.HTTPConnection("127.0.0.1", served.port, timeout=20) for _ in range(4)]
    for number, each in enumerate(pages):
        each.request("GET", f"/live?q={number}")
    assert slow_search.has_begun.wait(20)
    assert served.request("/healthz")[0] == 200
    assert served.request("/metrics")[0] == 200
    began = monotonic()
    served.stop()
    assert monotonic() - began < 10
    for each in pages:
        each.close()


def test_pages_with_the_same_filter_share_a_search(store: tb.Store, slow_search: SlowSearch) -> None:
    store.watch("scans:1")

    async def find() -> list[int]:
        overview = Overview(store)
        pages = [asyncio.ensure_future(overview.find(Filter(text="1"))) for _ in range(10)]
        await asyncio.to_thread(slow_search.has_begun.wait, 20)
        slow_search.let_go()
        found = [len((await each).watches) for each in pages]
        overview.close()
        return found

    assert asyncio.run(find()) == [1] * 10
    assert slow_search.count == 1


@pytest.mark.parametrize("state", ["open", None])
def test_the_oldest_tasks_are_found_without_sorting_all(state: str | None, tmp_path: Path) -> None:
    with tb.Store(tmp_path / "taskbridge.db") as store, store.database.reading() as opened:
        query = watches_query(state=state, after=(1.0, "scans:1"), limit=51)
        text = str(query.compile(opened, compile_kwargs={"literal_binds": True}))
        plan = " ".join(row[3] for row in opened.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "USING INDEX" in plan
    assert "TEMP B-TREE" not in plan


def test_unread_events_are_counted_up_to_a_number(serve: Serve, store: tb.Store) -> None:
    def event_at(position: int) -> dict[str, Any]:
        key = f"scans:{position}/1"
        return {"connection": "scans", "position": position, "key": key, "kind": "ended", "body": {}, "at": 0.0}

    make_uncertain(store, "INV-1")
    with store.database.writing() as opened:
        opened.execute(insert(EVENT), [event_at(number) for number in range(1, 10_003)])
        for consumer, position in (("all", 0), ("some", 1), ("few", 10_000), ("none", 10_002)):
            opened.execute(insert(CURSOR).values(consumer=consumer, connection="scans", position=position))
    served = serve()
    assert "all more than 10,000, few 2, some more than 10,000." in served.page()
    metrics = served.page("/metrics")
    assert 'taskbridge_store_unread_events{consumer="all"} 10000.0' in metrics
    assert 'taskbridge_store_unread_events{consumer="few"} 2.0' in metrics
    assert 'taskbridge_store_unread_events{consumer="none"} 0.0' in metrics


# Callers that send nothing.


def is_closed_by_server(opened: socket.socket) -> bool:
    opened.settimeout(20)
    try:
        while opened.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /"]
)
def test_a_connection_without_a_request_is_closed(sent: bytes, serve: Serve) -> None:
    served = serve(head_time=0.3)
    with socket.create_connection(("127.0.0.1", served.port)) as opened:
        opened.sendall(sent)
        assert is_closed_by_server(opened)


def test_a_page_that_is_open_outlasts_the_time_for_a_request(serve: Serve, store: tb.Store) -> None:
    served = serve(head_time=0.3)
    later = threading.Timer(1.0, store.watch, ["scans:1"])

    def is_shown(name: str, html: str) -> bool:
        if name == "notice":  # the page is open
            later.start()
        return "scans:1" in html

    read_events(served, is_shown)
    later.join()


@pytest.mark.slow
@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2048, reason="too few open files are allowed")
def test_idle_connections_do_not_keep_others_out(serve: Serve) -> None:
    served = serve(head_time=2.0)
    with ExitStack() as stack:
        for _ in range(505):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        until(lambda: served.request("/healthz")[0] == 200)


@pytest.mark.slow
def test_a_form_that_does_not_arrive_is_given_up(serve: Serve) -> None:
    served = serve(Access("127.0.0.1", TOKEN), head_time=0.3)
    kind = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as opened:
        opened.sendall(b"POST /login HTTP/1.1\r\nHost: a\r\n" + kind + b"\r\ntoken=")
        assert is_closed_by_server(opened)
