"""The report page: well-formed, self-contained, nothing in it that a name could smuggle in, and whole on a phone's screen."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_results import EVIL, bench_result, figures, sweep_result

from cosparse.bench.html import figure, render
from cosparse.bench.svg import printable
from cosparse.errors import Error

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def text() -> str:
    return render([bench_result(), bench_result(batch=16), sweep_result()])


def test_the_page_is_well_formed_and_has_every_picture(text: str) -> None:
    page = Page(text)
    labels = [value for key, value in page.attributes if key == "aria-label"]
    first = ["Latency of each candidate", "Distribution of call times", "Roofline", "Time of each layer"]
    assert labels == [*first, *first, "Latency over density", "Latency of each candidate"]
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)


def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert "://" not in text
    assert all(value.startswith("#") for key, value in page.attributes if key in ("href", "src"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_names_stay_text(text: str) -> None:
    """In the title, in tables and inside the pictures; a page that dropped them would pass the rest of this test, so they must be seen."""
    page = Page(text)
    assert "<script>" not in text
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 3
    pictures = "".join("".join(ElementTree.fromstring(svg).itertext()) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert printable(f"{EVIL} 0") in pictures


def test_the_headline_is_the_result() -> None:
    assert "2.00×" in Page(render([bench_result()])).text
    wrong = bench_result(check={"max_abs_err": None, "tolerance": 1e-4, "passed": False}, speedup=None, realised=None, layers=[])
    wrong["engine"] = dict.fromkeys(wrong["engine"]) | {"samples_ms": []}
    shown = Page(render([wrong])).text
    assert "Outputs differ" in shown
    assert "2.00×" not in shown


def test_a_result_without_plots_data_is_a_page_too() -> None:
    """No samples, no roofline figures, no layers, no peers: as an older result has it."""
    result = bench_result(layers=[], peers={}, fastest_peer=None, speedup=None, realised=None)
    result["machine"] = {key: value for key, value in result["machine"].items() if key not in ("peak_gflops", "bandwidth_gbs")}
    result["engine"] = {key: value for key, value in figures(1.0).items() if key != "samples_ms"}
    assert "1.00 ms" in Page(render([result])).text


def test_no_result_is_refused() -> None:
    with pytest.raises(Error, match="report: expected at least one result"):
        render([])


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (0, "0"), (0.012345, "0.0123"), (1.5, "1.50"), (1234.6, "1,235")])
def test_figures(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_labels_are_short_and_printable() -> None:
    assert printable("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    assert len(printable("x" * 1000)) == 30


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_whole(text: str, tmp_path: Path, width: int, scheme: str) -> None:
    """No sideways scrolling of the page, no request, no message in the console, every picture as wide as its frame."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        pytest.skip("no Chromium on the path")
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        requests, messages = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        widths = page.evaluate(
            "[...document.querySelectorAll('svg')].map(s => [s.clientWidth, s.clientHeight, s.parentElement.clientWidth])"
        )
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        picture = page.screenshot(full_page=True)
        browser.close()
    assert requests == [file.as_uri()]
    assert messages == []
    assert widths
    assert all(0.85 * frame < across <= frame and high > 80 for across, high, frame in widths)
    red = int(re.findall(r"\d+", background)[0])
    assert (red > 200) == (scheme == "light")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
