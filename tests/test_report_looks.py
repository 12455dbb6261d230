"""What the page shows whom: changes, the user's own queries, arrows, several days, and paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from demur import evaluate, write_report
from demur.evaluation.answerers.files import ResponseFiles
from demur.optimization import Run
from demur.queries import is_own_set
from demur.report.collecting import MOST_RESPONSES
from tests.browser import MISSING, Browser, is_installed, running_browser
from tests.report_folders import BASIC, finished_evaluation, finished_run
from tests.report_pages import read

if not is_installed():
    pytest.skip(MISSING, allow_module_level=True)

NO, YES = "I'm sorry, but I can't help with that.", "Sure. PLACEHOLDER"
OWN, BUILT_IN = "shop.txt", "test"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


def day(folder: Path, refused: dict[str, tuple[int, int]], queries: int = 20) -> Path:
    """An evaluation in which each set refuses its first queries under no prompt and under one."""
    rows = [
        {
            "prompt": prompt,
            "set": name,
            "label": "harmful",
            "query": f"{name}: question {row}?",
            "response": NO if row < counts[place] else YES,
        }
        for place, prompt in enumerate(("none", "mine"))
        for name, counts in refused.items()
        for row in range(queries)
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return evaluate(ResponseFiles([file]), output=folder).folder


def test_what_changed_has_the_users_own_queries_first(browser: Browser, tmp_path: Path) -> None:
    folder = day(tmp_path / "june", {BUILT_IN: (5, 17), OWN: (5, 3)})
    browser.open(write_report(folder))
    assert browser.texts(".changed h3") == ["Your own queries", "All other queries"]
    told = browser.texts(".changed p:not(.meta)")
    assert told == [
        "2 of 20 changed from none to mine: 0 right now and wrong before, 2 wrong now and right "
        "before.",
        "12 of 20 changed from none to mine: 12 right now and wrong before, 0 wrong now and right "
        "before.",
    ]
    lists = browser.all(".changes")
    assert "refused, right \u2192 mine: answered, wrong" in lists[0].text
    assert len(lists[1].find_elements("css selector", "li")) == 8
    browser.find(".all-changes").click()
    assert len(lists[1].find_elements("css selector", "li")) == 12
    assert browser.texts("#table tbody td:nth-child(3) p")[0] == f"harmful, {OWN}"
    lists[0].find_element("css selector", "button").click()
    assert browser.find("#pins").is_displayed()
    assert "Redacted" in browser.find(".pin").text


def test_a_deflection_says_why_it_is_right(browser: Browser, tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "label": "harmful", "query": f"question {row}?", "response": text}
        for prompt, text in (
            ("none", YES),
            ("mine", "Burning down a shop is a dangerous practice."),
        )
        for row in range(3)
    ]
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    browser.open(write_report(evaluate(ResponseFiles([file]), output=tmp_path / "out")))
    changed = browser.all(".changes")[0].text
    assert "answered, wrong \u2192 mine: deflected (not answered), right" in changed


def test_which_sets_are_the_users_own() -> None:
    for name in ("shop.txt", "table.csv:goal", "test+shop.txt", "shop.txt, third turn"):
        assert is_own_set(name)
    for name in ("held-out", "test:borderline", "test, third turn", "advbench", "test+held-out"):
        assert not is_own_set(name)


def test_a_folded_answer_opens(browser: Browser, tmp_path: Path) -> None:
    folder = day(tmp_path / "june", {OWN: (5, 3)})
    browser.open(write_report(folder, full=True))
    assert "PLACEHOLDER" not in browser.find("#table").text
    browser.find("#table .hidden-text").click()
    assert "PLACEHOLDER" in browser.find("#table").text
    browser.find("#more").click()
    assert len(browser.all("#table .hidden-text")) == 15 + 17 - 1


def test_two_days_stand_side_by_side_with_tests(browser: Browser, tmp_path: Path) -> None:
    june, july = (
        day(tmp_path / name, {OWN: (5, last)}) for name, last in (("june", 20), ("july", 9))
    )
    browser.open(write_report([june, july], tmp_path / "both.html"))
    assert [text.split(":")[0] for text in browser.texts(".subjects h2")] == ["june", "july"]
    shown = browser.find("#differences").find_element("xpath", "..").text
    assert browser.texts("#differences ~ .card h3")[0] == "july compared with june"
    assert (
        "mine: Worse than before, because it lets more harm through: mine refuses 9 of 20" in shown
    )
    assert "none: None of the 20 queries changed." in shown
    assert "none" not in browser.texts("#differences ~ .card tbody th")  # nothing to show of it
    assert "-55.0" in shown
    assert "< 0.001 worse" in shown
    assert "Queries that changed, mine" in shown
    assert f"{OWN}: question 10?" not in shown  # folded
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    shown = browser.find("#differences").find_element("xpath", "..").text
    assert f"{OWN}: question 10?" in shown
    for width in (1280, 390):
        browser.resize(width)
        cut = "return [...document.querySelectorAll('.card .wide')].filter(one => "
        assert browser.run(f"{cut} one.scrollWidth > one.clientWidth + 1).length") == 0
    browser.resize(1280)


def test_results_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    june, other = day(tmp_path / "june", {OWN: (5, 9)}), day(tmp_path / "other", {"b.txt": (5, 9)})
    words = " ".join(read(write_report([june, other], tmp_path / "both.html")).words)
    assert "They cannot be compared." in words
    assert "have no query in common" in words
    runs = [finished_run(tmp_path / name) for name in ("a", "b")]
    words = " ".join(read(write_report(runs, tmp_path / "both.html")).words)
    assert f"demur evaluate --prompt {runs[0]} --prompt {runs[1]}" in words


def test_arrows_and_the_training_are_explained(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(finished_run(tmp_path / "run")))
    legend = browser.find(".arrows").text
    for text in (f"none to {BASIC}", f"{BASIC} to optimized", "harmfulness boundary"):
        assert text in legend
    browser.control("Epoch by epoch").click()
    assert "Look for the filled marks" in browser.find(".arrows").text
    assert browser.texts(".dots .title")[0].startswith("Harmful queries of the held-out set")


def test_the_plane_is_one_in_which_the_movement_can_be_seen(tmp_path: Path) -> None:
    """The movement lies in a direction of small variance, which the components leave out."""
    run = Run.load(finished_run(tmp_path / "run"))
    assert "principal component" in read(write_report(run)).data[0]["frame"]["axes"][0]
    _, basic, optimized = measured = tuple(run.held_out())
    far = 30 * torch.randn(len(basic.queries), 2, generator=torch.Generator().manual_seed(1))
    for one in measured:
        one.states[:, 6:] = far
    optimized.states[:] = basic.states
    optimized.states[:20, 4] += 3
    optimized.states[:, 5] += 2
    from demur.report.collecting import Collection
    from demur.report.scatter import Scatter

    held_out = (basic, optimized)
    collection = Collection()
    for one in held_out:
        collection.add("held-out", one)
    plain = Scatter(held_out, 3, 0, collection)
    moved = Scatter(held_out, 3, 0, collection, held_out)
    assert "principal component" in plain.frame.axes[0]
    assert moved.frame.axes[0].startswith("what the prompt moves apart")
    assert moved.remark.startswith("The plane shows 0 % of how the queries differ")
    assert plain.remark == ""
    view = moved.view("v", "held-out", held_out, ())
    points = torch.tensor([one.points for one in view.series])
    went = points[1] - points[0]
    assert went[:20].mean(dim=0).norm() == pytest.approx(13**0.5, abs=0.01)
    assert went[20:].mean(dim=0).norm() == pytest.approx(2, abs=0.01)


def test_on_paper_nothing_asks_to_be_pressed(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(finished_run(tmp_path / "run")))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for selector in ("#filters", "#theme", "#more", ".scatter .controls input"):
            assert not browser.find(selector).is_displayed()
        assert browser.find(".scatter .controls svg.key").is_displayed()  # what the marks mean
        assert browser.find(".dots").is_displayed()
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_ten_thousand_responses_open_soon(browser: Browser, tmp_path: Path) -> None:
    folder = finished_evaluation(tmp_path / "e", queries=MOST_RESPONSES // 2, words=40)
    browser.open(folder / "report.html")
    took = browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"opened in {took:.0f} ms")
    assert f"{MOST_RESPONSES:,} responses" in browser.find("#count").text
    assert took < 4000  # under 1 s on a quiet machine; this one may be busy


def judged(folder: Path, rows: list[dict[str, str]]) -> Path:
    """An evaluation of written responses."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return evaluate(ResponseFiles([file]), output=folder).folder


def test_names_of_prompts_are_whole_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    names = [f"a-careful-prompt-for-the-kitchen-{place}.txt" for place in (1, 2)]
    same = {"set": OWN, "label": "harmful", "response": NO}
    rows = [
        {**same, "prompt": name, "query": f"question {row}?"} for name in names for row in range(8)
    ]
    browser.open(write_report(judged(tmp_path / "june", rows)))
    for width in (1280, 390):
        browser.resize(width)
        assert browser.texts(".dots-name")[:2] == names
        cut = "return [...document.querySelectorAll('.dots-name')].filter(one => "
        assert browser.run(f"{cut} one.scrollWidth > one.clientWidth + 1).length") == 0
        assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.resize(1280)


def test_long_words_widen_nothing(browser: Browser, tmp_path: Path) -> None:
    """Names, sets, categories and queries without a place to break, on one page and on two."""
    word = "x" * 110
    rows = [
        {
            "prompt": f"{word}{prompt}",
            "set": f"{word}.txt",
            "label": "harmful",
            "category": f"{word}{row % 2}",
            "query": f"{word} {row}?",
            "response": NO if (row + prompt) % 2 else f"{word} {word}",
        }
        for prompt in range(3)
        for row in range(12)
    ]
    june, july = (judged(tmp_path / name, rows[first:]) for name, first in (("june", 0), ("y", 1)))
    for page in (write_report(june), write_report([june, july], tmp_path / "both.html")):
        for width in (1280, 390):
            browser.resize(width)
            browser.open(page)
            browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
            browser.find("#table tbody button").click()
            assert browser.run("return document.documentElement.scrollWidth") <= width
            cut = "return [...document.querySelectorAll('.wide')].filter(one => "
            assert browser.run(f"{cut} one.scrollWidth > one.clientWidth + 1).length") == 0
    browser.resize(1280)


def test_each_script_runs_in_its_own_direction(browser: Browser, tmp_path: Path) -> None:
    """The question mark of an Arabic question stands left of it, wherever the question is shown."""
    arabic = "\u0643\u064a\u0641 \u0623\u062e\u0628\u0632\u061f " * 2 + "\u062e\u0628\u0632?"
    rows = [
        {
            "prompt": prompt,
            "set": OWN,
            "label": "harmless",
            "query": query,
            "response": NO if prompt == "none" else query,
        }
        for prompt in ("none", "mine")
        for query in (arabic, "How do I bake bread?")
    ]
    browser.open(write_report(judged(tmp_path / "june", rows)))
    browser.find(".changes button").click()
    ends = """
        return [...document.querySelectorAll(arguments[0])].map(one => {
          const text = document.createTreeWalker(one, NodeFilter.SHOW_TEXT).nextNode();
          const at = place => {
            const range = document.createRange();
            range.setStart(text, place);
            range.setEnd(text, place + 1);
            return range.getBoundingClientRect().left;
          };
          return [/[a-z]/.test(text.data), at(text.length - 1) > at(0)];
        });
    """
    for selector in (".changes button", ".pin h3", ".pin bdi", "#table button", "#table bdi"):
        found = browser.driver.execute_script(ends, selector)
        assert found
        assert all(latin == rightwards for latin, rightwards in found), selector


def test_paper_says_what_only_the_screen_shows(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(day(tmp_path / "june", {OWN: (5, 17)}, queries=40)))
    assert not any(one.is_displayed() for one in browser.all(".on-paper"))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        told = [one.text for one in browser.all(".on-paper")]
        assert told == [f"And {left} more, in the page on a screen." for left in (4, 60)]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.find(".all-changes").click()
    for _ in range(3):
        browser.find("#more").click()
    assert not browser.all(".on-paper")
