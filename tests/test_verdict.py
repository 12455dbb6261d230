"""The one sentence: better or not, by how much, at what cost, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from demur.evaluation.changes import least_queries, needed_queries
from demur.evaluation.costs import Cost
from demur.evaluation.figures import Difference, Figures
from demur.evaluation.tally import Tally
from demur.evaluation.verdict import Verdict, verdict, verdicts
from demur.optimization.next_step import next_step
from demur.records import NO_PROMPT, Harm, Interval, JudgedResponse, Label, Rate

Refused = Mapping[tuple[str, str, Label], Sequence[bool | None]]
"""For each prompt, set and label the verdict on the response to each query."""


def figures(
    refused: Refused,
    harm: Mapping[str, Sequence[Harm]] | None = None,
    costs: Sequence[Cost] = (),
) -> Figures:
    """The figures that an evaluation with such verdicts has."""
    tally = Tally(harm_judged=harm is not None)
    for (prompt, name, label), verdicts_of in refused.items():
        unsafe = (harm or {}).get(prompt) if label == "harmful" else None
        tally.add(
            JudgedResponse(
                prompt=prompt,
                condition=None,
                set=name,
                label=label,
                category=None,
                query=f"{label} {row}",
                response="one\ntwo\nthree",
                refused=one,
                end="stop",
                harm=None if unsafe is None else unsafe[row],
            )
            for row, one in enumerate(verdicts_of)
        )
    return Figures(tally.rates(), tally.differences(), tuple(costs))


def first(count: int, of: int = 100) -> list[bool]:
    """Verdicts that refuse the first queries."""
    return [row < count for row in range(of)]


def two(
    harmful: tuple[int, int] | None, harmless: tuple[int, int] | None, of: int = 100
) -> Figures:
    """Refused queries under `long` and `optimized`."""
    refused: dict[tuple[str, str, Label], Sequence[bool | None]] = {}
    sides: list[tuple[Label, tuple[int, int] | None]] = [
        ("harmful", harmful),
        ("harmless", harmless),
    ]
    for label, counts in sides:
        if counts is not None:
            refused["long", "held-out", label] = first(counts[0], of)
            refused["optimized", "held-out", label] = first(counts[1], of)
    return figures(refused)


def of(comparison: Figures, *, held_out: bool = False) -> Verdict:
    return verdict(comparison, "long", "optimized", held_out=held_out)


def test_a_better_prompt_with_its_cost_needs_no_advice() -> None:
    changed = [row < 8 for row in range(100)]
    cost = Cost.of("optimized", "x", "held-out", [0.1] * 100, changed)
    other = Cost.of("long", "y", "held-out", [0.5] * 100, [True] * 100)
    found = of(replace(two((62, 91), (4, 3)), costs=(other, cost)))
    assert found.kind == "better"
    assert found.advice == ""
    assert str(found) == (
        "Better than long: optimized refuses 91 of 100 harmful queries instead of 62, and 3 of 100 "
        "harmless queries instead of 4 (within chance); the likeliest first word changed for 8 of "
        "100 harmless queries."
    )


@pytest.mark.parametrize(
    ("harmful", "harmless", "kind", "opening", "advice"),
    [
        ((62, 91), (4, 4), "better", "Better than long: optimized refuses 91", ""),
        ((90, 91), (20, 2), "better", "Better than long: ", ""),
        ((62, 91), (4, 30), "mixed", "Mixed, because more of both are refused", "--harmless"),
        (
            (62, 62),
            (4, 30),
            "worse",
            "Worse than long, because it refuses more harmless",
            "--harmless",
        ),
        ((91, 62), (4, 4), "harmful", "Worse than long, because it lets more harm", "keep long"),
        ((91, 62), (30, 4), "harmful", "Worse than long, because it lets more harm", "--harmful"),
        ((91, 62), (4, 30), "harmful", "Worse than long, because it lets more harm", "keep long"),
        ((62, 62), (4, 4), "no difference", "Not shown to be better than long", "--method"),
        ((62, 61), (4, 5), "no difference", "Not shown to be better than long", "--method"),
    ],
)
def test_what_is_worst_is_said_first(
    harmful: tuple[int, int], harmless: tuple[int, int], kind: str, opening: str, advice: str
) -> None:
    found = of(two(harmful, harmless))
    assert found.kind == kind
    assert found.sentence.startswith(opening)
    assert advice in found.advice
    assert bool(found.advice) == (kind != "better")


def test_the_worse_side_comes_first() -> None:
    sentence = of(two((62, 62), (4, 30))).sentence
    assert "optimized refuses 30 of 100 harmless queries instead of 4, and 62 of 100" in sentence


def test_a_difference_that_more_queries_would_show_asks_for_them() -> None:
    found = of(two((10, 13), (1, 1), of=20))
    assert found.kind == "no difference"
    assert "13 of 20 harmful queries instead of 10 (within chance)" in found.sentence
    # p = 0.25 on 20 queries: z 1.15 must become 1.96.
    assert found.advice.startswith("measure on at least 60 harmful queries, of your own or")
    assert "(--harmful)" in found.advice
    found = of(two((10, 13), (1, 1), of=20), held_out=True)
    assert "(--held-out-harmful)" in found.advice


def test_so_few_queries_that_nothing_could_be_told() -> None:
    found = of(two((0, 5), (0, 0), of=5))
    assert found.kind == "unknown"
    assert found.sentence.startswith("Too few queries to tell: optimized refuses 5 of 5 harmful")
    assert found.advice.startswith("measure on at least 20 harmful queries")
    # Six that all change are more than chance, but six harmless ones may hide a cost.
    found = of(two((0, 6), (0, 0), of=6))
    assert found.sentence.startswith("Too few harmless queries to tell: optimized refuses 6 of 6")
    assert (least_queries(1), least_queries(3)) == (6, 7)


def test_no_prompt_is_called_the_model_without_one() -> None:
    rates: dict[tuple[str, str, Label], Sequence[bool | None]] = {}
    for label in ("harmful", "harmless"):
        rates["before", "s", label] = first(40)
        rates[NO_PROMPT, "s", label] = first(30)
    sentence = verdict(figures(rates), "before", NO_PROMPT).sentence
    assert (
        ": the model without a prompt refuses 30 of 100 harmful queries instead of 40" in sentence
    )


@pytest.mark.parametrize("others", [0, 1, 4])
def test_other_prompts_in_the_table_do_not_change_whether_there_are_too_few(others: int) -> None:
    names = ["long", "optimized", *(f"other {number}" for number in range(others))]
    refused: dict[tuple[str, str, Label], Sequence[bool | None]] = {}
    for name in names:
        refused[name, "s", "harmful"] = first(1 if name == "optimized" else 3, 7)
        refused[name, "s", "harmless"] = first(1, 7)
    found = of(figures(refused))
    assert found.sentence.startswith("Too few queries to tell: optimized refuses 1 of 7")


def test_too_few_queries_of_one_label() -> None:
    few = figures(
        {
            ("long", "s", "harmful"): first(10),
            ("optimized", "s", "harmful"): first(80),
            ("long", "s", "harmless"): first(0, 3),
            ("optimized", "s", "harmless"): first(3, 3),
        }
    )
    found = of(few)
    assert found.kind == "unknown"
    assert found.sentence.startswith("Too few harmless queries to tell: optimized refuses 80 of")


@pytest.mark.parametrize(
    ("harmful", "harmless", "kind", "said", "advice"),
    [
        ((10, 90), None, "unknown", "Only harmful queries were measured", "measure harmless"),
        (None, (40, 2), "unknown", "Only harmless queries were measured", "measure harmful"),
        ((90, 10), None, "harmful", "lets more harm through", "keep long"),
        (None, (2, 40), "worse", "refuses more harmless queries", "--harmless"),
        ((50, 50), None, "no difference", "harmless queries were not measured", "--method"),
    ],
)
def test_only_one_label_is_never_better(
    harmful: tuple[int, int] | None,
    harmless: tuple[int, int] | None,
    kind: str,
    said: str,
    advice: str,
) -> None:
    found = of(two(harmful, harmless))
    assert found.kind == kind
    assert said in found.sentence
    assert "were not measured" in found.sentence
    assert advice in found.advice


def test_no_verdicts_and_no_labels() -> None:
    nothing = figures(
        {
            ("long", "s", "harmful"): [None] * 10,
            ("optimized", "s", "harmful"): [None] * 10,
            ("long", "s", "harmless"): [False] * 10,
        }
    )
    found = of(nothing)
    assert found.kind == "unknown"
    assert found.sentence == (
        "No verdict: harmful queries have no verdicts; harmless queries were not measured under "
        "both."
    )
    assert "--judge" in found.advice
    unlabelled = replace(
        nothing, rates=tuple(replace(one, label=None) for one in two((1, 2), None).rates)
    )
    assert of(unlabelled).sentence == "No verdict: the queries have no labels."


def test_harm_that_a_judge_found_counts() -> None:
    refused: Refused = {
        ("long", "s", "harmful"): first(50),
        ("optimized", "s", "harmful"): first(50),
        ("long", "s", "harmless"): first(0),
        ("optimized", "s", "harmless"): first(0),
    }
    safe: list[Harm] = ["safe"] * 100
    unsafe: list[Harm] = ["unsafe"] * 100
    worse = of(figures(refused, {"long": safe, "optimized": unsafe}))
    assert worse.kind == "harmful"
    assert "it complies harmfully with 50 of 100 harmful queries instead of 0" in worse.sentence
    assert of(figures(refused, {"long": unsafe, "optimized": safe})).kind == "better"


def test_several_sets_are_named_and_those_that_changed_come_first() -> None:
    rates: dict[tuple[str, str, Label], Sequence[bool | None]] = {}
    for name, after in (("a", 51), ("b", 95), ("c", 52), ("d", 53)):
        rates["long", name, "harmful"] = first(50)
        rates["optimized", name, "harmful"] = first(after)
    for name, after in (("test:borderline", 9), ("test:ordinary", 1)):
        rates["long", name, "harmless"] = first(10, 400)
        rates["optimized", name, "harmless"] = first(after, 400)
    sentence = of(figures(rates)).sentence
    assert sentence.startswith(
        "Better than long: optimized refuses 95 of 100 harmful queries of b instead of 50, and 51 "
        "of 100 harmful queries of a instead of 50 (within chance)"
    )
    assert "of 1 more set of harmful queries as the table says" in sentence
    assert "0.2 % of 400 ordinary queries instead of 2.5 %, and 2.2 % of 400 borderline" in sentence


def test_the_turns_of_a_kind_are_named() -> None:
    rates: dict[tuple[str, str, Label], Sequence[bool | None]] = {}
    for name in ("test:ordinary", "test:ordinary, third turn"):
        rates["long", name, "harmless"] = first(10)
        rates["optimized", name, "harmless"] = first(60)
    sentence = of(figures(rates)).sentence
    assert "60 of 100 ordinary queries of test:ordinary instead of 10" in sentence
    assert "60 of 100 ordinary queries of test:ordinary, third turn instead of 10" in sentence


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("test and test:borderline+test:ordinary", "harmless"),
        ("test and test:ordinary", "ordinary"),
        ("training:borderline+test:borderline", "borderline"),
        ("mine.csv:borderline_or_not", "harmless"),
    ],
)
def test_a_set_is_of_a_kind_where_all_of_it_is(name: str, noun: str) -> None:
    found = of(
        figures(
            {
                (prompt, name, label): first(count)
                for prompt, count in (("long", 10), ("optimized", 60))
                for label in ("harmful", "harmless")
            }
        )
    )
    assert f"60 of 100 {noun} queries instead of 10" in found.sentence
    assert "60 of 100 harmful queries instead of 10" in found.sentence


def test_less_harm_and_more_refusals_are_mixed() -> None:
    refused: dict[tuple[str, str, Label], Sequence[bool | None]] = {
        ("long", "s", "harmful"): first(0),
        ("long", "s", "harmless"): first(4),
        ("optimized", "s", "harmful"): first(0),
        ("optimized", "s", "harmless"): first(40),
    }
    unsafe: dict[str, int] = {"long": 60, "optimized": 10}
    harm: dict[str, Sequence[Harm]] = {
        prompt: ["unsafe" if row < count else "safe" for row in range(100)]
        for prompt, count in unsafe.items()
    }
    found = of(figures(refused, harm))
    assert found.kind == "mixed"
    assert found.sentence.startswith(
        "Mixed, because it lets less harm through than long and refuses more harmless queries: "
    )
    assert "--harmless" in found.advice


def test_what_no_prompt_does_better_is_said() -> None:
    rates = {
        (prompt, "s", label): first(count)
        for prompt, counts in (("none", (80, 2)), ("long", (20, 2)), ("optimized", (50, 2)))
        for label, count in zip(("harmful", "harmless"), counts, strict=True)
    }
    comparison = figures(rates)  # type: ignore[arg-type]
    found = verdict(comparison, "long", "optimized", bare="none")
    assert found.kind == "mixed"
    assert found.sentence.startswith(
        "Better than long, but it refuses fewer harmful queries than no prompt: "
    )
    assert "without a prompt it is 80 of 100" in found.sentence
    assert "more harmful queries like those that it answers (--harmful)" in found.advice
    assert verdict(comparison, "long", "optimized").kind == "better"
    # A judgement against no prompt names it so.
    against = verdict(comparison, "none", "long", bare="none", trained=False)
    assert against.sentence.startswith(
        "Worse than no prompt, because it lets more harm through: long"
    )
    assert "demur optimize" in against.advice


def test_an_evaluation_judges_each_prompt_against_none_or_the_first() -> None:
    rates = {
        (prompt, "s", label): first(count)
        for prompt, counts in (("long", (20, 2)), ("none", (50, 2)), ("mine", (95, 2)))
        for label, count in zip(("harmful", "harmless"), counts, strict=True)
    }
    comparison = figures(rates)  # type: ignore[arg-type]
    found = verdicts(comparison, "none", trained=["mine"])
    assert [(one.before, one.after, one.kind) for one in found] == [
        ("none", "long", "harmful"),
        ("none", "mine", "better"),
    ]
    assert [(one.before, one.after) for one in verdicts(comparison)] == [
        ("long", "none"),
        ("long", "mine"),
    ]
    alone = figures({("long", "s", "harmful"): first(1)})
    assert verdicts(alone) == verdicts(figures({})) == []


def test_queries_of_no_text_are_judged_by_their_intervals() -> None:
    comparison = two((20, 90), (2, 2))
    assert of(replace(comparison, differences=())).kind == "better"
    assert of(replace(two((50, 60), (2, 2)), differences=())).kind == "no difference"


def test_samples_are_given_in_percent_on_both_sides() -> None:
    comparison = two((11, 11), None, of=30)
    half = Rate(12.5, 30, Interval(0.2, 0.6))
    rates = tuple(
        replace(one, refused=half) if one.prompt == "optimized" else one for one in comparison.rates
    )
    sentence = of(replace(comparison, rates=rates)).sentence
    assert "optimized refuses 42 % of 30 harmful queries instead of 37 % (within" in sentence


def test_a_long_name_is_shortened() -> None:
    rates = {("x" * 100, "s", "harmful"): first(3), ("long", "s", "harmful"): first(2)}
    sentence = verdict(figures(rates), "long", "x" * 100).sentence  # type: ignore[arg-type]
    assert "x" * 37 + "... refuses" in sentence
    assert "x" * 38 not in sentence


def test_the_number_of_queries_that_would_show_a_difference() -> None:
    def test_of(difference: float, p_value: float) -> Difference:
        return Difference("s", "harmful", "refused", "a", "b", 100, difference, p_value, p_value)

    assert needed_queries(test_of(0.0, 1.0)) is None
    assert needed_queries(test_of(0.01, 0.9)) is None
    # (1.960 / 0.9945)^2 is 3.884 times; with three pairs (2.394 / 0.9945)^2 is 5.795 times.
    assert needed_queries(test_of(0.05, 0.32)) == 390
    assert needed_queries(test_of(0.05, 0.32), pairs=3) == 590


def test_a_rate_that_rounds_to_ten_percent_has_no_digits_behind_the_point() -> None:
    several: Refused = {
        ("long", "held-out", "harmless"): first(249, 2500),
        ("optimized", "held-out", "harmless"): first(275, 2500),
    }
    sentence = of(figures(several)).sentence
    assert "11 % of 2500 harmless queries instead of 10 %" in sentence


@pytest.mark.parametrize(
    ("found", "preset", "answered", "advice"),
    [
        (two((10, 80), (4, 4)), "quick", 20, ""),
        (two((10, 50), (4, 4)), "quick", 50, "train for longer (--preset standard), or choose a"),
        (
            two((10, 50), (4, 4)),
            "standard",
            50,
            "train for longer (--preset thorough), or choose a",
        ),
        (two((10, 50), (4, 4)), "thorough", 50, "choose a larger model, or train on more harmful"),
        (two((10, 10), (4, 4)), "quick", 90, "train for longer (--preset standard), or choose a"),
        (two((10, 13), (1, 1), of=20), "quick", 90, "train for longer (--preset standard)"),
        (two((91, 62), (4, 4)), "quick", 38, "keep long; train for longer (--preset standard)"),
        (two((10, 10), (4, 4)), "standard", 90, "train on more queries or your own"),
        (two((0, 5), (0, 0), of=5), "quick", 0, "measure on at least 20 harmful queries"),
    ],
)
def test_a_poor_run_is_advised_to_train_for_longer(
    found: Figures, preset: str, answered: int, advice: str
) -> None:
    step = next_step(of(found, held_out=True), preset, Rate(answered, 100, Interval(0, 1)))
    assert step.startswith(advice)
    assert bool(step) == bool(advice)
    if step and of(found).kind == "better":
        assert step.endswith(f": {answered} % of the harmful queries are still answered.")
