"""The page in a real browser: it opens from disk, asks for nothing, runs nothing that rows hold, sorts and filters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted_rows import HOSTILE, launches

from reports.cli import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
QUIET += ["--disable-component-update", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
ROWS: list[dict[str, Any]] = [
    {"arm": "16x8", "images_per_s": 900.0, "epoch_time_s": 7.0},
    {"arm": "64x2", "images_per_s": 1000.0, "epoch_time_s": 30.0},
    {"arm": "128x1", "images_per_s": 800.0, "epoch_time_s": 200.0},
    {"arm": HOSTILE, "images_per_s": 10.0, "epoch_time_s": None},
    {"arm": "16x16", "status": "oom", "error": "out", "images_per_s": None, "epoch_time_s": None},
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield browser
        browser.close()


def opened_in(browser: Any, file: Path) -> tuple[Any, dict[str, list[str]]]:
    """(the page, what the browser noted: requests, console messages, errors)."""
    noted: dict[str, list[str]] = {"request": [], "console": [], "pageerror": []}
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.on("request", lambda request: noted["request"].append(request.url))
    page.on("console", lambda message: noted["console"].append(message.text))
    page.on("pageerror", lambda error: noted["pageerror"].append(str(error)))
    page.goto(file.as_uri())
    return page, noted


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, list[str]]]:
    """The page of a run."""
    folder: Path = tmp_path_factory.mktemp("run")
    launches(folder, *ROWS)
    main(["page", str(folder)])
    return opened_in(browser, folder / "report.html")


def arms(page: Any) -> list[str]:
    """Of the rows shown, from above."""
    cells = page.locator(".trials tbody tr:not([hidden]) th").all_inner_texts()
    return [cell.split()[0] for cell in cells]


def test_it_opens_from_disk_and_draws_its_charts(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, noted = opened
    assert page.locator(".experiment h2").inner_text() == "resnet20_accumulation"
    assert page.locator("figure").count() == 6
    for figure in page.locator("figure").all():
        assert figure.locator("svg").count() == 2
        box = figure.locator("svg:visible").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 60
        assert figure.locator("svg:visible [aria-roledescription][aria-label]").count() >= 4
    assert noted == {"request": [page.url], "console": [], "pageerror": []}


def test_nothing_that_rows_hold_is_run(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    assert page.title().startswith("resbench: ")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1


def test_a_head_sorts_by_click_and_by_keyboard(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    assert arms(page)[:3] == ["64x2", "16x8", "128x1"]
    head = page.locator(".trials thead button", has_text="epoch s")
    head.click()
    assert arms(page)[:3] == ["128x1", "64x2", "16x8"]
    assert page.locator(".trials th[aria-sort=descending]").inner_text().split()[:2] == ["epoch", "s"]
    head.press("Enter")
    assert arms(page)[:3] == ["16x8", "64x2", "128x1"]
    assert len(arms(page)) == 5  # those with an empty cell are last
    page.locator(".trials thead button", has_text="images/s").click()
    assert arms(page)[:3] == ["64x2", "16x8", "128x1"]


def test_the_filter_leaves_what_has_all_words(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    box = page.get_by_label("Filter")
    box.fill("oom")
    assert arms(page) == ["16x16"]
    assert page.locator("output").inner_text() == "1 of 5 trials"
    box.fill("")
    assert len(arms(page)) == 5
    assert page.locator("output").inner_text() == "5 trials"


def test_the_status_filter_goes_with_the_other(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    status = page.get_by_label("Status")
    assert status.locator("option").all_inner_texts() == ["all", "ok", "oom"]
    status.select_option("ok")
    assert page.locator("output").inner_text() == "4 of 5 trials"
    page.get_by_label("Filter").fill("64x2")
    assert arms(page) == ["64x2"]
    page.get_by_label("Filter").fill("")
    status.select_option("")
    assert len(arms(page)) == 5


def test_a_mark_says_its_figures_under_the_pointer(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    page.locator('.wide [aria-label^="64x2: 1000 images/s"]').first.hover()
    assert page.locator("#tip").inner_text() == "64x2: 1000 images/s, 1.5 GiB"
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.locator("h1").hover()
    page.locator(".wide + .narrow + p + details summary").first.press("Enter")
    assert page.locator("li", has_text="64x2: 1000 images/s, 1.5 GiB").is_visible()


def test_it_turns_dark_and_back(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) != light
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(background) == light
    page.emulate_media(color_scheme="dark")
    page.reload()
    assert page.evaluate(background) != light


def test_a_phone_need_not_scroll_sideways(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for figure in page.locator("figure").all():
        box = figure.locator("svg:visible").bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
        # Drawn for a phone, letters are about as large as they were meant.
        assert box["width"] > 0.85 * float(figure.locator("svg:visible").get_attribute("width"))


def test_printed_it_shows_its_tables_and_no_tools(opened: tuple[Any, dict[str, list[str]]]) -> None:
    page, _ = opened
    page.emulate_media(media="print")
    assert page.locator(".trials").is_visible()
    assert page.locator(".glance").is_visible()
    assert not page.get_by_label("Filter").is_visible()


def test_the_page_of_a_history_leads_from_a_change_to_its_folded_chart(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("ruptures", reason="the extra `history` is not installed")
    from reports.history import change_points
    from reports.history import page as history_page
    from reports.history.run_points import Point

    points = [Point(0.01 * (1.1 if n >= 10 else 1), f"2026-01-{n + 1:02}T00:00", f"c{n}") for n in range(20)]
    trials = [f"{HOSTILE} {number}" for number in range(history_page.UNFOLDED + 1)]
    found = [
        change_points.series(trial, "", "step_time_p50_s", points[: 20 if trial == trials[5] else 9], 0.02)
        for trial in trials
    ]
    history_page.write(found, HOSTILE, 0.02, tmp_path / "history.html")
    page, noted = opened_in(browser, tmp_path / "history.html")
    assert page.locator("output").inner_text() == "1 change point"
    page.locator("details.trial[open] summary").first.click()
    assert not page.locator("#c6 svg").is_visible()
    page.locator(".changes a").click()
    assert page.locator("#c6 svg").is_visible()
    page.locator('#c6 [aria-label*="commit c3: 10"]').hover()
    assert page.locator("#tip").inner_text() == "2026-01-04 00:00, commit c3: 10"
    page.get_by_label("Filter").fill("c11")
    assert page.locator("output").inner_text() == "0 of 1 change point"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#c6 svg").bounding_box()["width"] > 0.85 * history_page.WIDTH
    assert page.locator("img").count() == 0
    assert [len(noted[kind]) for kind in ("console", "pageerror")] == [0, 0]
    assert {request.partition("#")[0] for request in noted["request"]} == {page.url.partition("#")[0]}
