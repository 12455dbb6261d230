"""What results show in a notebook: tables, data frames and figures."""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from demur import (
    ChatModel,
    Comparison,
    DemurError,
    Robustness,
    attack,
    check,
    compare_evaluations,
    evaluate,
)
from demur.queries import QuerySet
from tests.tiny import save_tiny_model

HARMFUL = QuerySet("<b>bad</b>", "harmful", tuple(f"w7 w{row} ?" for row in range(12)))
HARMLESS = QuerySet("good", "harmless", tuple(f"w8 w{row} ?" for row in range(12)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return ChatModel.load(
        save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"), dtype="float32"
    )


@pytest.fixture(scope="module")
def comparison(model: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    place = tmp_path_factory.mktemp("work")
    return measured(model, place / "evaluation")


def measured(model: ChatModel, place: Path, seed: int = 0) -> Comparison:
    text = place.parent / "mine.txt"
    text.write_text("w1 w2 .")
    return evaluate(
        model,
        prompts=["none", str(text)],
        harmful=HARMFUL,
        harmless=HARMLESS,
        tokens=4,
        seed=seed,
        output=place,
    )


class Cells(HTMLParser):
    """The cells of tables, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1].append(data)


def test_a_comparison_is_a_table(comparison: Comparison) -> None:
    found = Cells(comparison._repr_html_())
    assert found.rows[0][:3] == ["queries", "prompt", "refused"]
    assert len(found.rows) == 5
    assert found.rows[1][0] == "<b>bad</b>, harmful (12)"  # text, never markup
    assert "b" not in found.tags
    rates = comparison.rates[1]
    assert rates.label == "harmful"
    assert found.rows[2][1:3] == [rates.prompt, str(rates.refused)]
    # The verdict comes first, and what only some want to read is folded.
    shown = comparison._repr_html_()
    (verdict,) = comparison.verdicts
    assert shown.startswith(f"<p><strong>{escape(str(verdict))}</strong></p>")
    folded = shown[shown.index("<details>") :]
    assert escape(str(comparison.differences[0])) in folded
    assert "points on 12 queries" in folded


def test_a_console_shows_what_is_printed(comparison: Comparison) -> None:
    assert repr(comparison) == str(comparison)
    assert "Rate(" not in repr(comparison)


def test_a_gate_is_a_table(comparison: Comparison) -> None:
    found = check(comparison.folder, require=["harmful>=98%", "harmless<=98%"])
    shown = found._repr_html_()
    assert shown.startswith(f"<p><strong>{escape(found.sentence)}</strong></p>")
    rows = Cells(shown).rows
    assert rows[0] == ["result", "check", "on", "measured"]
    assert rows[1:] == [[one.status, one.name, one.about, one.found] for one in found.checks]
    assert {escape(one.advice) for one in found.checks if one.advice}
    assert all(escape(one.advice) in shown for one in found.checks)
    assert repr(found) == str(found)


def test_two_days_are_a_table(comparison: Comparison, model: ChatModel, tmp_path: Path) -> None:
    later = measured(model, tmp_path / "later", seed=1)
    found = compare_evaluations(comparison, later)
    shown = found._repr_html_()
    rows = Cells(shown).rows
    groups = [group for one in found.prompts for group in one.groups]
    assert len(rows) == 1 + len(groups) >= 5
    for row, group in zip(rows[1:], groups, strict=True):
        assert row[1] == group.title
        assert row[3] == f"{100 * group.before.value:.1f} %"
        assert row[-1] == group.told
    assert all(escape(one.verdict.sentence) in shown for one in found.prompts)
    assert repr(found) == str(found)


def test_a_comparison_is_a_data_frame(comparison: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = comparison.to_pandas()
    assert list(frame["prompt"]) == [rates.prompt for rates in comparison.rates]
    assert list(frame["label"]) == ["harmful"] * 2 + ["harmless"] * 2
    for place, rates in enumerate(comparison.rates):
        assert rates.refused is not None
        assert frame["refused"][place] == rates.refused.value
        assert frame["refused_low"][place] == rates.refused.interval.low
    assert frame["complied_harmfully"].isna().all()


def test_without_pandas_the_extra_is_named(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(DemurError, match=r"run `pip install 'demur\[notebook\]'`"):
        comparison.to_pandas()


def test_a_comparison_is_a_figure(comparison: Comparison, tmp_path: Path) -> None:
    plot = comparison.plot()
    axes = plot.figure.axes[0]
    assert [one.get_text() for one in axes.get_yticklabels()] == [
        "<b>bad</b>, harmful",
        "good, harmless",
    ]
    lines: list[Any] = [line.get_xdata() for line in axes.get_lines()]
    points = {tuple(line) for line in lines if len(line) == 2}
    for prompt in {rates.prompt for rates in comparison.rates}:
        found = [rates.refused for rates in comparison.rates if rates.prompt == prompt]
        assert tuple(100 * one.value for one in found if one is not None) in points
    assert plot._repr_png_().startswith(b"\x89PNG")
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        plot.save(str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(DemurError, match=r"end it in \.png, \.svg or \.pdf"):
        plot.save(str(tmp_path / "a.bmp"))


def test_attacks_are_a_table(model: ChatModel, tmp_path: Path) -> None:
    found: Robustness = attack(
        model,
        prompts=["none"],
        attacks=["prefill", "base64"],
        harmful=HARMFUL,
        limit=6,
        tokens=4,
        output=tmp_path / "attacks",
    )
    rows = Cells(found._repr_html_()).rows
    assert [row[0] for row in rows] == ["attack", "no attack", "prefill", "base64 *"]
    assert rows[2][1] == str(found.success("prefill", "none"))
    assert len(found.plot().figure.axes[0].get_yticklabels()) == 3
