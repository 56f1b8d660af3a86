"""The status page, in a browser: it shows the models, follows the server, asks for the token, and takes nothing for markup."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serve_parts import Running, images, serving, write


def test_what_the_page_asks_for(tmp_path: Path) -> None:
    write(tmp_path / "small.cosparse")
    with serving(tmp_path) as server:
        server.infer(images(2))
        status, got, headers = server.ask("GET", "/status")
        assert (status, got["ready"], headers["cache-control"]) == (200, True, "no-store")
        (model,) = got["models"]
        assert (model["name"], model["version"], model["threads"]) == ("small", "1", 1)
        assert "conv1" in model["plan"]
        assert sum(row["count"] for row in model["latencies"]) == 1
        for path in ("/", "/status.js", "/status.css"):
            status, _, headers = server.ask("GET", path)
            assert status == 200
            assert "default-src 'none'" in headers["content-security-policy"]


def look(server: Running, token: str = "") -> tuple[str, list[str], int, bytes]:
    """The page's text, what it said in the console, points of its plots, and a picture."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        pytest.skip("no Chromium on the path")
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 700, "height": 800})
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/")
        if token:
            page.wait_for_selector("#token", timeout=20_000)
            page.fill("#token", token)
            page.click("#ask button")
        page.wait_for_selector("section svg", timeout=20_000)
        page.click("summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        text = page.inner_text("body")
        points = page.evaluate("[...document.querySelectorAll('polyline')].reduce((n, p) => n + p.points.numberOfItems, 0)")
        picture = page.screenshot()
        browser.close()
    return text, messages, points, picture


def test_a_browser_shows_models_plan_and_latencies(tmp_path: Path) -> None:
    write(tmp_path / "good.cosparse")
    (tmp_path / "bad.cosparse").write_bytes(b"<img src=x onerror=alert(1)>")
    with serving(tmp_path) as server:
        server.infer(images(1), "good")
        text, messages, points, picture = look(server)
    assert not messages
    assert "not ready" in text
    assert "bad 1: UNAVAILABLE" in text
    assert "good, version 1" in text
    assert "conv1" in text
    assert points >= 2
    assert len(picture) > 5000


def test_with_a_token_the_page_asks_for_it(tmp_path: Path) -> None:
    write(tmp_path / "good.cosparse")
    with serving(tmp_path, token="secret") as server:
        text, messages, _, _ = look(server, "secret")
    assert "good, version 1" in text
    assert all("401" in message for message in messages)  # the browser's own note of the first answer
