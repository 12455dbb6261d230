"""The default judge reads many responses at once as it reads each of them alone."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from demur.judges import DefaultRefusalJudge, Verdict
from demur.judges.numbered import Vocabulary
from demur.judges.phrase_table import PhraseTable, words_of
from demur.judges.phrases import Family, PhraseFinder, load_families, read_words
from demur.judges.terms import Term, TermFinder, TermTable, words_in
from demur.judges.weighing import OPENING, TERMS, THRESHOLD, EnglishRule, Weights, load_weights
from demur.judges.window import WINDOW, read_response

JUDGE = DefaultRefusalJudge()
MARKS = (
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", ".", ":", "!", "*", "#", "\n# "),
    *("'", "`", "\u2019", "\u2018", '"', " \u201c", "\u201d ", "\u2026", "\u2014", "```", "<"),
    *("can", " not ", "n't", "'s", "'ll", "\u00df", "\u0130", "\u03a3", "\ufb01", "\U0001f600"),
    *(" really ", " also ", " I cannot ", " help with that. ", " I'm sorry, but "),
    *("</think>", "<think>"),
)


def _own() -> list[str]:
    path = Path(__file__).parents[1] / "benchmarks" / "own_responses.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["response"] for row in csv.DictReader(stream)]


OWN = _own()
"""Responses in fourteen languages, with and without a refusal."""


def _mixed(number: int) -> list[str]:
    """Texts of words and marks from anywhere, some of them longer than the window."""
    generator = random.Random(number)
    words = " ".join(OWN).split(" ")
    texts = []
    for _ in range(400):
        pieces = [
            generator.choice(MARKS) if generator.random() < 0.3 else generator.choice(words) + " "
            for _ in range(generator.choice((1, 3, 30, 90)))
        ]
        texts.append("".join(pieces) * generator.choice((1, 1, 1, 12)))
    assert max(map(len, texts)) > WINDOW
    return texts


def _alone(responses: Sequence[str]) -> tuple[list[bool | None], list[Verdict | None]]:
    return (
        [JUDGE.judge([None], [response])[0] for response in responses],
        [JUDGE.verdicts([None], [response])[0] for response in responses],
    )


@pytest.mark.parametrize("responses", [OWN, _mixed(0), _mixed(1)], ids=["own", "mixed", "more"])
def test_many_are_judged_like_each_alone(responses: list[str]) -> None:
    decisions, verdicts = _alone(responses)
    assert len(set(decisions)) == 3
    assert set(verdicts) >= {None, Verdict.REFUSES, Verdict.ANSWERS}
    nobody = [None] * len(responses)
    assert JUDGE.judge(nobody, responses) == decisions
    assert JUDGE.verdicts(nobody, responses) == verdicts
    assert [JUDGE.refuses(response) for response in responses] == [one is True for one in decisions]
    # Neither the company nor the order of a response counts.
    order = random.Random(2).sample(range(len(responses)), 100)
    assert JUDGE.judge([None] * 100, [responses[at] for at in order]) == [
        decisions[at] for at in order
    ]


def test_many_with_queries_are_judged_like_each_alone() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "deflections.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    queries, responses = [row["query"] for row in rows], [row["response"] for row in rows]
    assert JUDGE.verdicts(queries, responses) == [
        JUDGE.verdicts([query], [response])[0]
        for query, response in zip(queries, responses, strict=True)
    ]


@pytest.mark.parametrize("number", [11, 12, 255, 256, 257, 600])
def test_any_number_of_responses(number: int) -> None:
    responses = ["I can't help with that.", "Sure, here it is.", "<think>so", "", "zzz"]
    expected = [True, False, None, False, False]
    many = (responses * number)[:number]
    assert JUDGE.judge([None] * number, many) == (expected * number)[:number]
    assert JUDGE.judge([], []) == []


@pytest.mark.parametrize("text", ["", "zzz", "\n", "\u2705", "."])
def test_many_in_which_nothing_is_found(text: str) -> None:
    assert JUDGE.judge([None] * 20, [text] * 20) == [False] * 20


def test_a_table_finds_what_the_finder_finds() -> None:
    finder = PhraseFinder(load_families())
    vocabulary = Vocabulary(words_of(finder))
    responses = [read_words(text) for text in (*OWN, *_mixed(3))]
    found: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in responses]
    read = vocabulary.read(responses)
    for at, family in zip(*PhraseTable(finder, vocabulary).find(read), strict=True):
        found[read.rows[at]][int(read.places[at] >= OPENING)].add(int(family))
    assert found == [finder.find(words, OPENING) for words in responses]
    assert any(late for _, late in found)


def test_a_filler_is_skipped_once_and_never_across_responses() -> None:
    finder = PhraseFinder([Family("no", (1.0, 1.0), "general", ("i cannot help", "cannot really"))])
    vocabulary = Vocabulary([*words_of(finder), "say"])
    texts = (
        *("i really cannot help", "i really just cannot help", "i cannot", "help"),
        *("cannot really", "", "i cannot really", "say i cannot help"),
    )
    responses = [text.split() for text in texts]
    places, families = PhraseTable(finder, vocabulary).find(vocabulary.read(responses))
    rows = vocabulary.read(responses).rows[places].tolist()
    assert sorted(rows) == [0, 4, 6, 7]
    assert set(families.tolist()) == {0}


def test_terms_count_once_each_and_among_the_first_words_alone() -> None:
    weights: dict[Term, float] = {"a": 1.0, ("a", "b"): 10.0, ("b", "a"): 100.0, "b": 0.0}
    vocabulary = Vocabulary(words_in(weights))
    responses = [["a", "b", "a", "b"], ["a"], ["b"], ["x", "a", "x", "b"], [], ["x", "x", "a", "b"]]
    sums = TermTable(weights, vocabulary).sums(vocabulary.read(responses), 3)
    assert sums.tolist() == [111.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    finder = TermFinder(weights)
    assert sums.tolist() == [finder.sum(words[:3]) for words in responses]


def test_sums_that_round_to_the_threshold_are_the_same_for_many() -> None:
    """0.1 + 0.2 is above 0.3 in one order of summands and not in another one."""
    generator = random.Random(0)
    tied = 0
    text = "I have to say that you and they should know what this is about before you leave."
    words = read_response(text)
    for _ in range(300):
        terms: dict[Term, float] = {word: generator.uniform(-1, 1) for word in words}
        bias = THRESHOLD - TermFinder(terms).sum(words[:TERMS])
        rule = EnglishRule([], Weights(bias + generator.choice((-1e-16, 0.0, 1e-16)), {}, terms))
        alone = rule.read(text, words)
        tied += alone.refuses
        assert rule.read_all([text] * 20, [words] * 20) == [alone] * 20
    assert 0 < tied < 300


def test_judges_of_ones_own_tables_read_many() -> None:
    families = [Family("declines", (1.0, 1.0), "general", ("no way",))]
    responses = ["No way, and that is it with you.", "Yes, and that is it with you."] * 10
    nothing = DefaultRefusalJudge([], Weights(-1.0, {}))
    assert nothing.judge([None] * 20, responses) == [False] * 20
    own = DefaultRefusalJudge(families, Weights(-9.0, {"declines": (1.0, 1.0)}))
    assert own.judge([None] * 20, responses) == [True, False] * 10
    assert DefaultRefusalJudge(load_families(), load_weights()).judge(
        [None] * len(OWN), OWN
    ) == JUDGE.judge([None] * len(OWN), OWN)
