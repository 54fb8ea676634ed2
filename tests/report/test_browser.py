"""Pages in a real browser: nothing goes wrong, nothing leaves, tables sort and filter, a telephone shows all of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report.full import full_run

from certtrain.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PHONE = {"width": 390, "height": 844}
# Elements that reach over the right edge, though nothing around them scrolls; of charts, what is not clipped.
OVERFLOWING = """[...document.querySelectorAll("body *:not(svg *), svg text")]
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll"))
  .map(one => one.outerHTML.slice(0, 90))"""
# Pixels of the letters of all charts that are shown.
LETTERS = """[...document.querySelectorAll("svg.chart")].filter(one => one.checkVisibility()).flatMap(svg =>
  [...svg.querySelectorAll("text")].map(text => parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(full_run(tmp_path_factory.mktemp("run"), "pgpe", "deeppoly", 0, 9, a__long=["word"] * 40))


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens pages; afterwards, none of them may have complained or asked for anything but itself."""
    said: list[str] = []
    contexts = []

    def open_page(path: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        own = ("data:", path.as_uri())
        page.on("request", lambda request: request.url.startswith(own) or said.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def column(page: Any, name: str) -> list[str]:
    """Texts of a column of the settings that are shown."""
    cells = page.locator(f'[data-sortable] td[data-label="{name}"]')
    return [cell.inner_text() for cell in cells.all() if cell.is_visible()]


def test_settings_are_sorted_by_a_click(opened: Any, full_page: Path) -> None:
    page = opened(full_page)
    heading = page.locator("th", has=page.get_by_role("button", name="certified %", exact=True))
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    falling = column(page, "certified %")
    assert falling == sorted(falling, key=lambda text: -float(text.split()[0]))
    assert len(set(falling)) > 1
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, "certified %")] == sorted(
        float(t.split()[0]) for t in falling
    )
    page.get_by_role("button", name="relaxation", exact=True).click()
    assert column(page, "relaxation") == ["deeppoly"] * 3 + ["ibp"] * 3
    page.locator("th button", has_text="sigma").click()
    assert column(page, "pgpe.sigma") == ["0.1", "0.1", "0.01", "0.01", "–", "–"], "what has no value comes last"


def test_settings_are_filtered(opened: Any, full_page: Path) -> None:
    page = opened(full_page)
    count = page.locator(".count")
    assert count.inner_text() == "6 of 6"
    page.locator("label", has_text="method").locator("select[data-column]").select_option("pgpe")
    assert (count.inner_text(), column(page, "method")) == ("4 of 6", ["pgpe"] * 4)
    page.get_by_label("search").fill("IBP grad")
    assert count.inner_text() == "0 of 6", "both words, and the choice"
    page.get_by_label("search").fill("IBP")
    assert (count.inner_text(), column(page, "pgpe.sigma")) == ("2 of 6", ["0.01", "0.1"])


@pytest.mark.parametrize("name", ["full_page", "run_page"])
def test_a_telephone_shows_all_of_it(opened: Any, name: str, request: pytest.FixtureRequest) -> None:
    page = opened(request.getfixturevalue(name), viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(OVERFLOWING) == []
    assert page.locator("svg.chart").first.bounding_box()["width"] > 300, "charts use the width there is"
    assert min(page.evaluate(LETTERS)) > 8, "letters of charts can be read"


def test_a_telephone_shows_more_columns_when_asked(opened: Any, full_page: Path) -> None:
    page = opened(full_page, viewport=PHONE)
    assert column(page, "certified %") != []
    assert column(page, "by ibp %") == []
    page.get_by_label("all columns").check()
    assert len(column(page, "by ibp %")) == 6
    page.get_by_label("sort by").select_option(label="certified %, descending")
    assert column(page, "certified %")[0].startswith("55.00")


@pytest.mark.parametrize("name", ["full_page", "run_page"])
def test_dark_pages_are_dark_and_their_charts_are_seen(opened: Any, name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)

    def colors(scheme: str) -> tuple[str, str, str]:
        page = opened(path, color_scheme=scheme)
        read = "([one, what]) => getComputedStyle(document.querySelector(one))[what]"
        places = (("body", "backgroundColor"), ("body", "color"), ("svg.chart text", "fill"))
        return tuple(page.evaluate(read, list(place)) for place in places)

    light, dark = colors("light"), colors("dark")
    assert light[0] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert dark[1] == dark[2], "text of charts is as light as that of the page"
