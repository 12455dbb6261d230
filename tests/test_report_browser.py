"""The report in a real browser: it does what it says, asks for nothing, and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demur import write_report
from tests.browser import MISSING, Browser, is_installed, running_browser
from tests.report_folders import BASIC, COUNT, finished_evaluation, finished_run

if not is_installed():
    pytest.skip(MISSING, allow_module_level=True)

ENTER, ESCAPE, TAB, RIGHT = (
    "\ue007",
    "\ue00c",
    "\ue004",
    "\ue014",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([finished_run(tmp_path_factory.mktemp("reports") / "run")])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, run: Path) -> Iterator[Browser]:
    """The report of the hostile run; whatever is done with it, nothing of it may run."""
    browser.errors()
    browser.requests()
    browser.resize(1280)
    browser.open(run)
    yield browser
    assert browser.errors() == []
    assert browser.requests() == [run.resolve().as_uri()]
    assert browser.run("return window.hacked") is None


def marks(page: Browser) -> int:
    return len(page.all(".plot .mark"))


def test_it_opens_and_fits_a_desk_and_a_phone(page: Browser) -> None:
    assert marks(page) == 3 * 2 * COUNT
    assert page.find("#count").text == (
        "200 responses (120 to held-out queries, 80 to training queries), those whose verdict "
        "changes first"
    )
    for width in (1280, 390):
        page.resize(width)
        assert page.run("return document.documentElement.scrollWidth") <= width
        plot = page.find(".plot svg").rect
        assert 250 < plot["width"] <= width


def test_the_chart_shows_the_rates_and_no_table_is_cut(page: Browser) -> None:
    for width in (1280, 390):
        page.resize(width)
        dots = page.all(".dots circle")
        shown = [one.text for one in page.all(".dots-value") if one.text]
        assert len(dots) == len(shown) == 6  # three prompts on the queries of both labels
        for place, text in enumerate(shown):
            axis = page.all(".dots-row svg")[place].rect
            dot = dots[place].rect
            found = (dot["x"] + dot["width"] / 2 - axis["x"]) / axis["width"]
            assert abs(100 * found - float(text.split()[0])) < 1.5
        page.run("for (const one of document.querySelectorAll('details')) one.open = true")
        cut = "return [...document.querySelectorAll('.card .wide')].filter(one => "
        assert page.run(f"{cut} one.scrollWidth > one.clientWidth + 1).length") == 0


def test_toggles_hide_conditions_and_labels(page: Browser) -> None:
    page.control("optimized").click()
    assert marks(page) == 2 * 2 * COUNT
    page.control("harmless (hollow)").click()
    assert marks(page) == 2 * COUNT
    page.control("optimized").click()
    assert marks(page) == 3 * COUNT


def test_views_colours_and_the_training(page: Browser) -> None:
    page.control("Training queries").click()
    assert marks(page) == 2 * 2 * COUNT
    page.control("refusal probability").click()
    fills = page.run("return [...document.querySelectorAll('.plot .mark')].map(m => m.style.fill)")
    assert len(set(fills)) == 2  # refused and answered
    page.control("Epoch by epoch").click()
    assert marks(page) == 2 * COUNT
    slider = page.find(".training input")
    places = []
    for name in (f"before: {BASIC}", "after epoch 1", "during epoch 2"):
        assert page.find(".training output").text == name
        places.append(page.find(".plot .mark").get_attribute("transform"))
        slider.send_keys(RIGHT)
    assert len(set(places)) == 3
    legend = page.find(".arrows").text
    assert "harmfulness boundary, harmful right of it" in legend
    assert "refusal boundary, refused right of it" in legend
    assert not page.all(".plot .mark.rated")  # no responses were sampled during the second epoch


def test_hover_shows_the_query_and_click_pins_its_responses(page: Browser) -> None:
    from selenium.webdriver import ActionChains

    mark = page.all(".plot .mark.harmful")[5]
    ActionChains(page.driver).move_to_element(mark).perform()
    tip = page.find(".tip")
    assert tip.is_displayed()
    assert "<script>window.hacked = 1</script>" in tip.text
    assert "optimized: refusal probability" in tip.text
    ActionChains(page.driver).click().perform()
    assert page.find("#pins").is_displayed()
    titles = page.texts(".pin h4")
    assert [title.split(":")[0] for title in titles] == ["none", BASIC, "optimized"]
    assert any("answer" in text for text in page.texts(".pin .text"))
    page.find(".pin button").click()
    assert not page.find("#pins").is_displayed()


def test_search_and_filters(page: Browser) -> None:
    page.find("#search").send_keys("ANSWER 17 optimized")
    # The answer numbered 17, and the one to the query numbered 17.
    assert page.find("#count").text == "2 of 200 responses"
    assert page.texts("#table tbody td:nth-child(2)") == ["optimized"] * 2
    page.find("#search").clear()
    page.find("#search").send_keys(" ")
    choose(page, "prompt", "optimized")
    choose(page, "label", "harmful")
    for label, outcomes in (("harmful", ("wrong", "right")), ("harmless", ("right", "wrong"))):
        choose(page, "label", label)
        for verdict, outcome in zip(("answered", "refused"), outcomes, strict=True):
            choose(page, "verdict", verdict)
            chips = page.all("#table tbody .chip")
            assert chips
            assert {chip.get_attribute("class") for chip in chips} == {f"chip {outcome}"}
            assert {chip.text for chip in chips} == {f"{verdict}, {outcome}"}
    choose(page, "label", "harmful")
    choose(page, "verdict", "answered")
    assert page.find("#count").text == "2 of 200 responses"
    assert {text.split()[0] for text in page.texts("#table tbody .chip")} == {"answered,"}
    choose(page, "use", "training")
    assert page.find("#count").text == "0 of 200 responses"


def choose(page: Browser, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.find(f"#filter-{name}")).select_by_value(value)


def test_what_changed_comes_first_and_more_comes_when_asked(page: Browser) -> None:
    rows = page.texts("#table tbody tr")
    assert len(rows) == 20
    assert all("changes" in row for row in rows)
    page.find("#more").click()
    assert len(page.all("#table tbody tr")) == 40


def test_sets_and_uses_are_no_categories(browser: Browser, tmp_path: Path) -> None:
    sets = ("test:ordinary", "test:borderline")
    path = write_report([finished_run(tmp_path / "run", harmless_sets=sets)])
    browser.open(path)
    for name, values in (
        ("use", ["held-out", "training"]),
        ("set", ["borderline", "ordinary"]),
        ("label", ["harmful", "harmless"]),
    ):
        found = browser.texts(f"#filter-{name} option")
        assert found == ["all", *values]
    assert not browser.all("#filter-category")  # there is one alone
    choose(browser, "set", "borderline")
    metas = set(browser.texts("#table td:nth-child(3) .meta"))
    assert metas == {"harmless, borderline, held-out"}
    assert ":borderline" not in browser.find("#responses").text
    titles = browser.texts(".dots .title, summary")
    assert "Answers to ordinary and borderline queries of the test set" in titles
    assert any(one.startswith("Borderline queries of the test set") for one in titles)


def test_what_changed_between_any_two_prompts(page: Browser) -> None:
    from selenium.webdriver.support.ui import Select

    assert "from <i>mine.txt to optimized" in page.find(".changed p").text
    Select(page.find(".compared-from")).select_by_value("0")
    assert "from none to optimized" in page.find(".changed p").text
    Select(page.find(".compared-to")).select_by_value("0")
    assert page.find(".changed p").text == "None of 40 changed from none to none."


def test_tables_are_folded_on_the_screen_and_not_on_paper(page: Browser) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    rows = page.all("details.card tbody tr")
    assert rows
    assert not any(one.is_displayed() for one in rows)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = "return [...document.querySelectorAll('details.card tbody tr')].every(one =>"
        WebDriverWait(page.driver, 5).until(
            lambda _: page.run(f"{shown} one.checkVisibility({{contentVisibilityAuto: true}}))")
        )
        assert not page.find(".settings").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_theme(page: Browser) -> None:
    def paper() -> str:
        return str(page.run("return getComputedStyle(document.body).backgroundColor"))

    button = page.find("#theme")
    seen = [paper()]
    for name in ("light", "dark"):
        button.click()
        assert button.text == f"Theme: {name}"
        seen.append(paper())
    assert seen[1] != seen[2]
    button.click()
    assert paper() == seen[0]


def test_the_keyboard_reaches_everything(page: Browser) -> None:
    """Tab goes through all controls in their order; the plot is walked with arrows."""
    page.run("document.body.focus()")
    reached = []
    for _ in range(30):
        page.keys(TAB)
        reached.append(
            page.run(
                "const e = document.activeElement;"
                "return e.id || e.dataset.control || e.getAttribute('role') || e.tagName"
            )
        )
        if reached[-1] == "filter-changed":
            break
    for wanted in ("theme", "application", "search", "filter-verdict", "scatter-0-view-0"):
        assert wanted in reached
    plot = page.find(".plot svg")
    plot.send_keys(RIGHT, RIGHT, RIGHT)
    assert page.find(".tip").is_displayed()
    first = page.find(".tip").text
    page.keys(RIGHT)
    assert page.find(".tip").text != first
    page.keys(ESCAPE)
    assert not page.find(".tip").is_displayed()
    page.keys(RIGHT, ENTER)
    assert len(page.all(".pin")) == 1
    page.find(".pin button").send_keys(ENTER)
    assert page.run("return document.activeElement.getAttribute('role')") == "application"


def test_hostile_names_categories_and_responses_run_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    folders = [finished_run(tmp_path / "r"), finished_evaluation(tmp_path / "e")]
    path = write_report(folders, tmp_path / "all.html")
    browser.errors()
    browser.requests()
    browser.open(path)
    browser.find("#table tbody button").click()
    while browser.find("#more").is_displayed():
        browser.find("#more").click()
    assert len(browser.all("#table tbody tr")) == 260
    assert browser.all("#table script, #table img, #table iframe, .pin img, .card b") == []
    assert browser.run("return window.hacked") is None
    assert browser.errors() == []
    assert browser.requests() == [path.resolve().as_uri()]


def test_of_five_thousand_responses_only_what_is_seen_is_built(
    browser: Browser, tmp_path: Path
) -> None:
    folder = finished_evaluation(tmp_path / "e", queries=1000, prompts=5, words=60)
    browser.open(folder / "report.html")
    assert "5,000 responses" in browser.find("#count").text
    assert len(browser.all("#table tbody tr")) == 20
