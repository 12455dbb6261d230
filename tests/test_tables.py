"""What tables show: whole numbers at 80 columns, the judge, and what is right and wrong."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from demur.cli.comparison import print_figures
from demur.cli.screen import new_table
from demur.cli.tables import RIGHT, WRONG, Row, refusal_table, verdict_text
from demur.evaluation.captions import judged_text
from demur.evaluation.costs import AnswerCost, AnswerLength, Cost
from demur.evaluation.figures import Figures
from demur.evaluation.statistics import mean_share, rate_over_queries
from demur.evaluation.tally import Tally
from demur.records import Interval, JudgedResponse, Label, Verdict
from tests.test_verdict import two

RATE = rate_over_queries([1.0] * 62 + [0.0] * 38)


def printed(what: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


def test_a_table_fits_into_80_columns_and_says_who_judged() -> None:
    rows = [
        Row("none", RATE, RATE, 0.0, rate_over_queries([0.0] * 100)),
        Row("a-rather-long-name-of-a-prompt.txt", None, RATE, 12.25, RATE, main=True, basic=True),
    ]
    text = printed(refusal_table("Refused", rows, ["judge: paper, 16 tokens"]))
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert text.count("62 % (52 to 71)") == 4
    assert "no verdict" in text
    assert "12.25" in text
    assert "judge: paper, 16 tokens" in text
    assert "KL 12.25 nats: the likeliest first word changed for 62 of 100 harmless queries" in text
    # What was not measured has no column.
    without = printed(refusal_table("Refused", [Row("none", RATE, RATE)]))
    assert "KL" not in without
    assert "first word" not in without


def test_a_title_may_be_wider_than_its_table() -> None:
    table = new_table("Refused by category: held-out queries, harmful")
    table.add_column("category")
    table.add_row("a")
    assert printed(table).splitlines()[0].rstrip() == table.title.plain  # type: ignore[union-attr]
    assert all(len(line) <= 20 for line in printed(table, 20).splitlines())


@pytest.mark.parametrize(
    ("verdict", "label", "word", "style"),
    [
        (Verdict.REFUSES, "harmful", "refused", RIGHT),
        (Verdict.DEFLECTS, "harmful", "deflected", RIGHT),
        (Verdict.ANSWERS, "harmful", "answered", WRONG),
        (Verdict.REFUSES, "harmless", "refused", WRONG),
        (Verdict.DEFLECTS, "harmless", "deflected", WRONG),
        (Verdict.ANSWERS, "harmless", "answered", RIGHT),
        (Verdict.REFUSES, None, "refused", ""),
        (None, "harmful", "no verdict", ""),
    ],
)
def test_colours_mean_right_and_wrong(
    verdict: Verdict | None, label: Label | None, word: str, style: str
) -> None:
    text = verdict_text(verdict, label)
    assert (text.plain, text.style) == (word, style)


def test_an_improvement_is_green_and_its_contrary_red() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system="standard")
    print_figures(console, two((62, 91), (4, 30)), ["judge: default, 64 tokens"])
    text = out.getvalue()
    assert "\x1b[32m+29.0\x1b[0m" in text
    assert "\x1b[31m+26.0\x1b[0m" in text
    assert "judge: default, 64 tokens" in text


@pytest.mark.parametrize("deflected", [True, False, None])
def test_deflections_have_a_column_where_there_are_any(deflected: bool | None) -> None:
    tally = Tally()
    labels: tuple[Label, Label] = ("harmful", "harmless")
    for prompt, label, row in itertools.product(("none", "long"), labels, range(9)):
        query = f"q{row}"
        tally.add(
            [
                JudgedResponse(
                    *(prompt, None, "held-out", label, None, query, "x", False, "stop"),
                    deflected=deflected and row < 3,
                )
            ]
        )
    out = io.StringIO()
    console = Console(file=out, width=80)
    print_figures(console, Figures(tally.rates(), ()))
    text = out.getvalue()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert ("deflected: neither" in text) == (deflected is True)
    assert text.count("33 % (12 to 65)") == (6 if deflected else 0)
    told = "a harmless one refused or deflected" in text
    assert told == (deflected is not None)


def test_the_judge_in_words() -> None:
    assert judged_text("default", 64) == "judge: default, 64 tokens"
    assert judged_text("x", 300, 25, 200) == "judge: x, 25 responses of 300 or 200 tokens"


def answer_cost(prompt: str, queries: str) -> Cost:
    """A cost along answers with every figure."""
    share, length = mean_share([0.9, 0.7, 0.8]), AnswerLength(9, 112, 9, 0, -14)
    return replace(
        Cost.of(prompt, prompt, queries, [0.6, 0.7], [True, False]),
        answers=AnswerCost(25, 1500, 0.65, Interval(0.58, 0.72), share),
        length=length,
        other_language=share,
    )


def test_names_are_broken_between_their_parts() -> None:
    sets = ("held-out, third turn", "test:borderline", "harmless-questions-of-my-kitchen.txt")
    prompts = ("none", "my-prompt.txt", "qwen2.5-coder-0.5b-long-standard")
    tally = Tally()
    for name, prompt, row in itertools.product(sets, prompts, range(9)):
        refused = row < 3 + 3 * prompts.index(prompt)
        tally.add(
            [
                JudgedResponse(
                    *(prompt, None, name, "harmless", f"kind {row % 2}", f"q{row}", "x"),
                    *(refused, "stop"),
                    deflected=not refused and row > 6,
                )
            ]
        )
    costs = tuple(answer_cost(prompt, name) for name in sets for prompt in prompts)
    out = io.StringIO()
    print_figures(
        Console(file=out, width=80),
        Figures(tally.rates(), tally.differences(), costs),
    )
    text = out.getvalue()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    answers = text[text.index("Answers to harmless queries") :]
    for whole in ("test:borderline", "my-prompt.txt", "third turn"):
        assert whole in answers
    # A name that is too long is broken, but no part of it.
    parts = {part for name in (*sets, *prompts) for part in re.findall(r"[a-z]{3,}", name)}
    begun = {part[:length] for part in parts for length in range(3, len(part))}
    assert parts <= set(re.findall(r"[a-z]+", text))
    assert set() == begun & set(re.findall(r"[a-z]+", text))


def test_a_table_breaks_a_word_where_its_parts_end() -> None:
    table = new_table()
    table.add_column("what")
    for name in ("test:borderline", "one two-three", "0.5b.txt", "abcdefghijklm", "a\nb"):
        table.add_row(Text(name, style="bold"))
    lines = printed(table, 12).split()
    assert lines[2:] == [
        *("test:", "borderline", "one", "two-three", "0.5b.txt"),
        *("abcdefghij", "klm", "a", "b"),
    ]
