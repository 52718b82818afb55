"""The page of the table4 suite on host and simulated phone, in a headless Chromium: used, looked at, and left alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finet_deploy.report import load_runs, render_html
from tests.report_runs import HOST, HOSTILE, PHONE, a_run

playwright = pytest.importorskip("playwright.sync_api", reason="needs the dev extra: playwright")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="needs the dev extra: axe-playwright-python"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
DESKTOP, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Opened:
    """A page of a browser with all that it said, asked for and threw."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "color_scheme": "light", **context})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.refused: dict[str, str] = {}
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on(
            "dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("requestfailed", lambda request: self.refused.update({request.url: request.failure}))
        self.url = file.as_uri()
        self.page.goto(self.url)

    def assert_quiet(self) -> None:
        """No word on the console, no error, no dialog, and no request but the one for the file."""
        assert self.said == []
        assert self.asked == [self.url]

    def column(self, table: str, title: str) -> list[str]:
        """The shown cells of a column, from top to bottom."""
        return self.page.evaluate(
            """([table, title]) => {
                const found = document.getElementById(table);
                const at = [...found.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim() === title);
                const rows = [...found.tBodies[0].rows].filter((row) => !row.hidden);
                return rows.map((row) => row.cells[at].dataset.v ?? row.cells[at].textContent.trim());
            }""",
            [table, title],
        )

    def header(self, table: str, title: str) -> Any:
        return self.page.locator(f"#{table} thead th").filter(has_text=title).first


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_html(load_runs([HOST, PHONE])), "utf-8")
    return path


@pytest.fixture(scope="module")
def shared(browser: Any, file: Path) -> Iterator[Opened]:
    opened = Opened(browser, file)
    yield opened
    opened.assert_quiet()
    opened.context.close()


@pytest.fixture
def opened(shared: Opened) -> Opened:
    """The page as it is when it is opened."""
    shared.page.reload()
    shared.asked[:] = [shared.url]
    return shared


def test_a_click_on_a_header_sorts_figures_by_value_and_again_the_other_way(opened):
    rate = opened.header("all-rows", "images/s")
    assert rate.get_attribute("aria-sort") == "none"
    rate.get_by_role("button").click()
    down = [float(value) for value in opened.column("all-rows", "images/s")]
    assert len(down) == 35 and down == sorted(down, reverse=True)
    assert rate.get_attribute("aria-sort") == "descending"
    rate.get_by_role("button").click()
    assert [float(value) for value in opened.column("all-rows", "images/s")] == down[::-1]
    assert rate.get_attribute("aria-sort") == "ascending"
    assert opened.page.get_by_role("status").inner_text() == "Sorted by images/s, ascending."
    for _ in range(2):  # where a figure is missing, the row stays last
        opened.header("all-rows", "p99, ms").get_by_role("button").click()
        times = opened.column("all-rows", "p99, ms")
        known = [float(value) for value in times if value != "–"]
        assert 2 < len(known) < 35 and times[len(known) :] == ["–"] * (35 - len(known))
        assert known in (sorted(known), sorted(known, reverse=True))
    opened.assert_quiet()


def test_the_keyboard_alone_reaches_the_figures_and_sorts_by_name(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"
    page.keyboard.press("Enter")
    for _ in range(4):  # past the box that scrolls, to the table's first header
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            break
    assert page.evaluate("document.activeElement.closest('th').textContent") == "network"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    names = opened.column("group-1-executorch", "network")
    assert names == sorted(names) and len(names) == 7
    page.keyboard.press("Space")
    assert opened.column("group-1-executorch", "network") == names[::-1]
    assert opened.header("group-1-executorch", "network").get_attribute("aria-sort") == "descending"
    opened.assert_quiet()


def test_filters_by_name_device_and_runtime_hide_what_does_not_fit_and_say_how_much_is_left(opened):
    page = opened.page
    status = page.get_by_role("status")
    assert status.inner_text() == "35 of 35 rows shown."
    page.get_by_label("Network contains", exact=True).fill("MOBILENET")
    assert set(opened.column("all-rows", "network")) == {"MobileNetV2 1.0", "MobileNetV3-Large"}
    assert status.inner_text() == "10 of 35 rows shown."
    page.get_by_label("Runtime", exact=True).select_option(label="ONNX Runtime")
    assert status.inner_text() == "4 of 35 rows shown."
    assert not page.locator("#group-1-executorch").is_visible()
    page.get_by_label("Device", exact=True).select_option("host")
    assert status.inner_text() == "2 of 35 rows shown."
    assert opened.column("all-rows", "device") == ["host", "host"]
    visible = [table for table in page.locator("#throughput table").all() if table.is_visible()]
    assert len(visible) == 1  # of the host in ONNX Runtime; what is emulated is hidden as a whole
    page.get_by_role("button", name="Clear filters").click()
    assert status.inner_text() == "35 of 35 rows shown."
    page.get_by_label("Visits", exact=True).select_option("invalid")
    assert opened.column("all-rows", "network") == []
    opened.assert_quiet()


def test_every_plot_is_drawn_and_the_axis_of_speed_is_chosen(opened):
    page = opened.page
    drawn = page.evaluate(
        """() => [...document.querySelectorAll("svg.plot")].map((plot) => ({
            name: plot.querySelector("title").textContent,
            named: plot.getAttribute("aria-labelledby").split(" ").every((id) => document.getElementById(id)),
            marks: plot.querySelectorAll("path, circle, rect").length,
            shown: plot.getClientRects().length > 0,
            overflow: [...plot.querySelectorAll("text")].filter((text) => {
                const box = text.getBBox(), frame = plot.viewBox.baseVal;
                return box.x < -1 || box.x + box.width > frame.width + 1 || box.y + box.height > frame.height + 1;
            }).map((text) => text.textContent),
        }))"""
    )
    assert len(drawn) == 5 * (1 + 3) + 5 * 2 + 2  # a group; a table of a run; a run
    assert all(plot["named"] and plot["marks"] >= 2 for plot in drawn)
    assert [plot["overflow"] for plot in drawn if plot["overflow"]] == []
    assert sum(plot["shown"] for plot in drawn) == len(drawn) - 5 * 2
    for axis in ("parameters", "accuracy", "multiply-adds"):
        page.get_by_label("Images per second against", exact=True).select_option(axis)
        captions = [one.inner_text() for one in page.locator("#versus figcaption").all() if one.is_visible()]
        assert len(captions) == 5 and all(f"against {axis}" in caption for caption in captions)
    opened.assert_quiet()


def test_light_and_dark_follow_the_system_and_the_readers_choice(browser, file):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = Opened(browser, file), Opened(browser, file, color_scheme="dark")
    colours = [one.page.evaluate(ground) for one in (light, dark)]
    assert colours == ["rgb(246, 247, 249)", "rgb(15, 20, 26)"]
    dark.page.get_by_label("Colours", exact=True).select_option("light")
    light.page.get_by_label("Colours", exact=True).select_option("dark")
    assert [one.page.evaluate(ground) for one in (dark, light)] == colours
    label = "getComputedStyle(document.querySelector('svg.plot text.t')).fill"
    assert light.page.evaluate(label) == "rgb(232, 237, 243)"
    for one in (light, dark):
        one.assert_quiet()
        one.context.close()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_it_without_scrolling_the_page_sideways(browser, file, width):
    opened = Opened(browser, file, viewport={"width": width, "height": 844})
    page = opened.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.evaluate(
        """() => [...document.querySelectorAll("table")].filter((table) => table.getClientRects().length)
            .map((table) => table.closest(".scroll"))
            .map((box) => [box.tabIndex, getComputedStyle(box).overflowX, box.getBoundingClientRect().right])"""
    )
    assert all(box[:2] == [0, "auto"] and box[2] <= width for box in boxes)
    opened.assert_quiet()
    opened.context.close()


LOOKS = {
    "desktop-light": {},
    "desktop-dark": {"color_scheme": "dark"},
    "phone-light": {"viewport": NARROW},
}


@pytest.mark.parametrize("look", LOOKS)
def test_no_serious_fault_of_accessibility_and_a_picture_of_each_look(browser, file, look):
    opened = Opened(browser, file, **LOOKS[look])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=SCREENSHOTS / f"report-{look}.png", full_page=True)
    opened.page.evaluate("document.querySelector('details').open = true")
    found = axe.Axe().run(opened.page).response
    faults = [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found["violations"]
    ]
    assert faults == []
    passed = {one["id"] for one in found["passes"]}
    assert {"color-contrast", "label", "select-name", "svg-img-alt", "scrollable-region-focusable"} <= passed
    opened.assert_quiet()
    opened.context.close()


def test_hostile_names_are_shown_and_do_nothing(browser, tmp_path):
    path = tmp_path / "hostile.html"
    runs = [a_run((text, f"{text} peer"), suite=text) for text in HOSTILE]
    path.write_text(render_html(runs), "utf-8")
    opened = Opened(browser, path)
    page = opened.page
    page.get_by_label("Network contains", exact=True).fill("onerror")
    opened.header("all-rows", "network").get_by_role("button").click()
    page.get_by_label("Network contains", exact=True).fill("")
    for cell in page.locator("#all-rows tbody th").all()[:8]:
        cell.hover()
    assert page.title().startswith("Measured throughput: </script><script>")
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, object, embed, link, base, a:not([href^='#'])").count() == 0
    assert HOSTILE[1] in opened.column("all-rows", "network")
    assert "{{ 7 * 191 }}{% raw %}" in opened.column("all-rows", "network")
    opened.assert_quiet()
    opened.context.close()


def test_the_policy_stops_a_script_that_got_in_and_anything_that_reaches_out(browser, file, tmp_path):
    """The second wall: were a name ever printed without escaping, nothing of it would run or be fetched."""
    path = tmp_path / "broken.html"
    attack = "<script>document.title='owned'</script><img src='https://example.invalid/x.png'>"
    path.write_text(file.read_text("utf-8").replace("<main", f"{attack}<main", 1), "utf-8")
    opened = Opened(browser, path)
    assert opened.page.title().startswith("Measured throughput")
    assert len([line for line in opened.said if "Content Security Policy" in line]) >= 2
    opened.page.evaluate("fetch('https://example.invalid/fetched').catch(() => 0)")
    assert opened.refused == {"https://example.invalid/x.png": "csp"}
    assert "https://example.invalid/fetched" not in opened.asked
    opened.context.close()


def test_without_scripts_all_figures_and_plots_are_there_and_no_dead_control(browser, file):
    opened = Opened(browser, file, java_script_enabled=False)
    page = opened.page
    assert not page.locator("#filters").is_visible()
    assert page.locator("#all-rows tbody tr").count() == 35
    assert page.locator("th button").count() == 0
    assert all(plot.is_visible() for plot in page.locator("svg.plot").all())
    opened.assert_quiet()
    opened.context.close()
