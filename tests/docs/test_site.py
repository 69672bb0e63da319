"""The documentation site builds without warnings, loads nothing from other hosts, and reads well in a browser."""

from __future__ import annotations

import functools
import html
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from taskbridge._config.registry import builtin_providers, load_provider

from ..browser import Browser, needs_chromium  # noqa: TID252  # beside this folder

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPTS: Final = ("build_site.py", "diagrams.py", "prose.py", "site_parts.py")

# What a page loads when it is opened, without the links that people follow.
LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source|embed|audio|video)\b[^>]*?\bsrc=[\"']?([^\"' >]+)"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|modulepreload|icon|dns-prefetch))"
    r"[^>]*?\bhref=[\"']?([^\"' >]+)"
)
IN_STYLES: Final = re.compile(r"(?:url\(|@import\s+)[\"']?([^\"')]+)")


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "docs" / "build_site.py"), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pages_of(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


# What fails a build.

CONFIG: Final = """\
[project]
site_name = "small"
nav = [{ "Home" = "index.md" }]
[project.extra.sources]
[project.plugins.mkdocstrings.handlers.python]
"""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("[a](missing.md) and [b](#missing)", ("page does not exist", "anchor does not exist")),
        ("[a](../missing.md)", ("../missing.md is not in the site",)),
        ("<!-- diagram: missing -->", ("KeyError: 'missing'",)),
        ("::: taskbridge.missing", ("taskbridge.missing",)),
    ],
)
def test_a_broken_link_diagram_or_directive_fails_the_build(
    lines: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in SCRIPTS:
        shutil.copy(ROOT / "docs" / name, docs)
    (docs / "zensical.toml").write_text(CONFIG, encoding="utf-8")
    (docs / "index.md").write_text(f"# A\n\n{lines}\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "build")
    assert done.returncode != 0
    for words in expected:
        assert words in done.stdout + done.stderr


# The content of the built pages.


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    loaded = {
        (path.name, found)
        for path in site.rglob("*.html")
        for match in LOADED.finditer(path.read_text(encoding="utf-8"))
        for found in match.groups()
        if found
    }
    loaded |= {
        (path.name, found)
        for path in (*site.rglob("*.css"), *site.rglob("*.svg"))
        for found in IN_STYLES.findall(path.read_text(encoding="utf-8"))
    }
    assert len(loaded) > 20
    assert {
        each for each in loaded if re.match(r"(?:[a-z]+:)?//", each[1]) and not each[1].startswith("data:")
    } == set()


@pytest.mark.parametrize("name", builtin_providers())
def test_every_status_of_a_vendor_is_in_its_diagram_and_in_the_description(name: str, site: Path) -> None:
    page = (site / "vendors" / f"{name}.html").read_text(encoding="utf-8")
    svg = re.search(r"<svg[^>]*role=\"?img.*?</svg>", page, re.DOTALL)
    assert svg is not None
    words = re.search(r"<desc[^>]*>(.*?)</desc>", svg[0], re.DOTALL)
    assert words is not None
    for word, (status, _) in vars(sys.modules[load_provider(name).__module__])["STATES"].items():
        assert f">{word}</text>" in svg[0]
        assert re.search(rf"(?:^|[ ,:;]){re.escape(word)}(?=[ ,])[^;]* becomes? {status}\b", words[1])


@pytest.mark.parametrize(
    "module", ["", ".aio", ".otel", ".progress", ".provider", ".store", ".testing"], ids=lambda name: name or "."
)
def test_every_public_name_is_in_the_reference(module: str, site: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    documented = set(re.findall(r"\bid=\"?(taskbridge[\w.]*)", pages))
    names = {
        f"taskbridge{module}.{name}"
        for name in import_module(f"taskbridge{module}").__all__
        if not isinstance(getattr(import_module(f"taskbridge{module}"), name), ModuleType)
    }
    assert names - documented == set()


def test_the_list_for_language_models_leads_to_pages_of_the_site(site: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert len(links) > 40
    assert [link for link in links if not (site / link).is_file()] == []


def test_pending_fragments_are_in_the_changelog(site: Path) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "changelog.html").read_text(encoding="utf-8")))
    for path in (ROOT / "changelog.d").glob("*.*.md"):
        fragment = re.sub(r"[`*]", "", path.read_text(encoding="utf-8"))
        assert " ".join(fragment.split()) in " ".join(page.split())


# In a browser.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class has the name
        del format, args


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class SiteBrowser(Browser):
    """Shows the pages of the site."""

    def __init__(self, address: str, profile: Path) -> None:
        super().__init__(profile)
        self.address = address
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.driver.execute_cdp_cmd(
            "Browser.grantPermissions",
            {"origin": address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
        )

    def show(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        super().show(f"{self.address}/{url}", width=width, dark=dark)

    def console_errors(self) -> list[str]:
        return self.messages("SEVERE")


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteBrowser]:
    opened = SiteBrowser(address, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.driver.quit()


TOO_WIDE: Final = """
const room = document.documentElement.clientWidth;
return document.documentElement.scrollWidth > room || document.body.scrollWidth > room
  ? [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > room + 1)
      .slice(0, 5).map(e => e.outerHTML.slice(0, 120))
  : [];
"""
REQUESTED: Final = "return performance.getEntriesByType('resource').map(e => e.name);"


@needs_chromium
def test_no_page_scrolls_sideways_on_a_phone_or_contacts_another_host(site: Path, browser: SiteBrowser) -> None:
    wide: dict[str, list[str]] = {}
    other_hosts: set[str] = set()
    for page in pages_of(site):
        browser.show(page, width=390)
        wide[page] = browser.run(TOO_WIDE)
        other_hosts |= {
            url for url in browser.run(REQUESTED) if not url.startswith((browser.address, "data:", "blob:"))
        }
    assert {page: found for page, found in wide.items() if found} == {}
    assert other_hosts == set()
    assert browser.console_errors() == []


ROWS: Final = """
return [...document.querySelectorAll(".md-typeset__scrollwrap")].map(wrap => ({
  scrolls: wrap.scrollWidth > wrap.clientWidth, overflow: getComputedStyle(wrap).overflowX,
  tallest: Math.max(...[...wrap.querySelectorAll("tr")].map(row => row.getBoundingClientRect().height))}));
"""


@needs_chromium
def test_wide_tables_scroll_inside_themselves_on_a_phone(browser: SiteBrowser) -> None:
    browser.show("performance.html", width=390)
    tables = browser.until(lambda: browser.run(ROWS))
    assert any(table["scrolls"] for table in tables)
    assert {table["overflow"] for table in tables} == {"auto"}
    assert max(table["tallest"] for table in tables) < 200  # no column is squeezed to one word per line


@needs_chromium
def test_the_copy_button_copies_a_whole_code_block(browser: SiteBrowser) -> None:
    browser.show("quickstart.html")
    block = browser.driver.find_element(By.CSS_SELECTOR, ".language-python.highlight")
    button = browser.until(lambda: block.find_elements(By.CSS_SELECTOR, "button.md-code__button"))[0]
    browser.run("arguments[0].scrollIntoView({block: 'center'})", block)
    ActionChains(browser.driver).move_to_element(block).move_to_element(button).click().perform()
    read = "const [done] = arguments; navigator.clipboard.readText().then(done, e => done(`not read: ${e}`))"
    copied = browser.until(lambda: browser.driver.execute_async_script(read))
    assert copied.strip() == block.find_element(By.TAG_NAME, "code").text.strip()
    assert copied.startswith("import taskbridge as tb\n")


FOUND: Final = """
const host = [...document.querySelectorAll("*")].find(e => e.shadowRoot?.querySelector("input[aria-label=Search]"));
return host && [...host.shadowRoot.querySelectorAll("a")].map(a => a.href);
"""


@needs_chromium
def test_search_finds_a_page_by_its_text(browser: SiteBrowser) -> None:
    browser.show("index.html")
    browser.until(lambda: browser.run(FOUND) is not None)
    browser.driver.find_element(By.CSS_SELECTOR, "button.md-search__button").click()
    browser.until(lambda: browser.run("return Boolean(document.activeElement.shadowRoot)"))
    ActionChains(browser.driver).send_keys("PreProcessingDownloadFailed").perform()
    # The results change with each letter that is typed.
    assert browser.until(lambda: any("/vendors/smartdocumentor.html" in link for link in browser.run(FOUND) or ()))


LIGHT: Final = """
const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
"""
PLOTTED: Final = """
return [...document.querySelectorAll("figure.tb-plot svg")].map(svg => { const under = light(ground(svg));
  const contrast = c => (Math.max(light(c), under) + 0.05) / (Math.min(light(c), under) + 0.05);
  return Math.min(...[...svg.querySelectorAll("text")].map(t => contrast(getComputedStyle(t).fill))); });
"""
DRAWN: Final = """
return JSON.stringify([...document.querySelectorAll("figure.tb-diagram svg")].map(svg => {
  const box = svg.getBoundingClientRect(), under = light(ground(svg));
  const contrast = c => (Math.max(light(c), under) + 0.05) / (Math.min(light(c), under) + 0.05);
  const all = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]), overlapping = [];
  const outside = all.filter(([, b]) => !b.width || b.left < box.left - 1 || b.right > box.right + 1 ||
    b.top < box.top - 1 || b.bottom > box.bottom + 1).map(([words]) => words);
  all.forEach(([a, p], i) => all.slice(i + 1).forEach(([b, q]) => { if (p.left < q.right - 1 && q.left < p.right - 1 &&
    p.top < q.bottom - 3 && q.top < p.bottom - 3) overlapping.push(a + " / " + b); }));
  return {width: box.width, height: box.height, outside, overlapping,
    texts: Math.min(...[...svg.querySelectorAll("text")].map(t => contrast(getComputedStyle(t).fill))),
    lines: Math.min(...[...svg.querySelectorAll("path, rect")].map(t => contrast(getComputedStyle(t).stroke)))};
}));
"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_diagrams_fit_and_are_readable_in_light_and_dark(
    width: int, *, dark: bool, site: Path, browser: SiteBrowser
) -> None:
    checked = 0
    for page in pages_of(site):
        if 'class="tb-diagram"' not in (site / page).read_text(encoding="utf-8"):
            continue
        browser.show(page, width=width, dark=dark)
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 128 * 3) == dark
        for drawing in json.loads(browser.run(LIGHT + DRAWN)):
            checked += 1
            assert drawing["width"] > 300
            assert drawing["height"] > 100
            assert drawing["outside"] == []
            assert drawing["overlapping"] == []
            assert drawing["texts"] >= 4.5  # WCAG 2.2, 1.4.3
            assert drawing["lines"] >= 3.0  # WCAG 2.2, 1.4.11
    assert checked >= 7


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_plots_are_readable_in_light_and_dark(*, dark: bool, browser: SiteBrowser) -> None:
    browser.show("performance.html", dark=dark)
    contrasts = browser.run(LIGHT + PLOTTED)
    assert len(contrasts) >= 5
    assert min(contrasts) >= 4.5
