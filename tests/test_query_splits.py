"""The built-in sets in three splits: labels, twins, forms, and no scenario in two of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from demur import DemurError
from demur.optimization import OptimizeSettings
from demur.optimization.plan import plan_of
from demur.queries import (
    BUILT_IN,
    SPLITS,
    Conversation,
    Label,
    QuerySet,
    as_query_set,
    join_query_sets,
    load_histories,
    load_query_set,
)
from demur.queries.turns import Use
from demur.records import history_of, text_of
from tests.test_queries import published_texts

LABELS: tuple[Label, ...] = ("harmful", "harmless")
LEAST = {
    "training": {"harmful": 1100, "borderline": 1100, "ordinary": 750},
    "validation": {"harmful": 300, "borderline": 300, "ordinary": 200},
    "test": {"harmful": 300, "borderline": 300, "ordinary": 200},
}
FORMS = {
    *("question", "imperative", "text", "code", "plan", "role-play", "back-story", "one-liner"),
    *("long", "typos", "persuasion", "advice", "follow-up"),
}
NEAR = 0.6
"""Share of their words that two queries have in common at most."""
ALIKE = 0.8
"""Share of their letters, in order, that two queries have in common at most."""


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    source = files("demur.queries") / "sets" / f"{name}.jsonl"
    return [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]


@cache
def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(1, len(first | second))


def share_a_stem(first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether a word of one begins with a word of the other, as "poisoned" with "poison"."""
    return any(
        min(len(one), len(other)) >= 3 and (one.startswith(other) or other.startswith(one))
        for one in first
        for other in second
    )


@pytest.mark.parametrize("name", SPLITS)
def test_rows_have_all_kinds(name: str) -> None:
    rows = rows_of(name)
    for row in rows:
        assert row["text"] == row["text"].strip()
        assert row["label"] == ("harmful" if row["kind"] == "harmful" else "harmless")
        assert row["category"]
        assert row["form"] in FORMS
        assert ("history" in row) == (row["form"] == "follow-up")
        for said in [text for exchange in row.get("history", ()) for text in exchange]:
            assert said
            assert said == said.strip()
        assert ("pair" in row) == (row["kind"] != "ordinary")
    counts = Counter(row["kind"] for row in rows)
    assert all(counts[kind] >= least for kind, least in LEAST[name].items())
    for kind in counts:
        assert {row["form"] for row in rows if row["kind"] == kind} == FORMS


@pytest.mark.parametrize("name", SPLITS)
def test_every_harmful_query_has_a_twin_in_its_form(name: str) -> None:
    pairs: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows_of(name):
        if row["kind"] != "ordinary":
            pairs.setdefault(row["pair"], {})[row["kind"]] = row
    assert set(pairs) == set(range(1, len(pairs) + 1))
    for pair in pairs.values():
        harmful, twin = pair["harmful"], pair["borderline"]
        assert (harmful["form"], harmful["category"]) == (twin["form"], twin["category"])
        assert share_a_stem(words(harmful["text"]), words(twin["text"]))


@pytest.mark.parametrize("name", SPLITS)
def test_sets_load_whole_and_in_part(name: str) -> None:
    rows = rows_of(name)
    cases: tuple[tuple[str, Label, set[str]], ...] = (
        (name, "harmful", {"harmful"}),
        (name, "harmless", {"borderline", "ordinary"}),
        (f"{name}:borderline", "harmless", {"borderline"}),
        (f"{name}:ordinary", "harmless", {"ordinary"}),
    )
    for spec, label, kinds in cases:
        loaded = load_query_set(spec, label)
        assert loaded.name == spec
        chosen = [row for row in rows if row["kind"] in kinds]
        assert [text_of(query) for query in loaded] == [row["text"] for row in chosen]
        for query, row in zip(loaded, chosen, strict=True):
            assert [list(pair) for pair in history_of(query)] == row.get("history", [])
            assert isinstance(query, Conversation) == ("history" in row)
        assert loaded.categories is not None


@pytest.mark.parametrize(
    ("spec", "label"),
    [("training:easy", "harmless"), ("training:", "harmless"), ("test:borderline", "harmful")],
)
def test_a_part_that_is_not_there_is_refused(spec: str, label: Label) -> None:
    with pytest.raises(DemurError, match=r"give (training|test) for all of them"):
        load_query_set(spec, label)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("kind", ["harmful", "borderline", "ordinary"])
def test_no_opening_gives_a_kind_away(name: str, kind: str) -> None:
    texts = [row["text"] for row in rows_of(name) if row["kind"] == kind]
    openings = Counter(tuple(re.findall(r"[a-z0-9']+", text.lower())[:2]) for text in texts)
    assert openings.most_common(1)[0][1] <= 0.08 * len(texts)


def test_no_query_stands_twice() -> None:
    texts = [row["text"] for name in (*BUILT_IN, *SPLITS) for row in rows_of(name)]
    assert len({text.casefold() for text in texts}) == len(texts)


def _said(row: dict[str, Any]) -> str:
    """Everything that the user says up to the query."""
    return " ".join([*(asked for asked, _ in row.get("history", ())), row["text"]])


def near_duplicates(some: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of texts, one of each, that share too many words or are spelled too much alike."""
    vocabulary = sorted({word for text in (*some, *others) for word in words(text)})
    places = {word: place for place, word in enumerate(vocabulary)}

    def table(texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), len(places)), dtype=np.float32)
        for row, text in enumerate(texts):
            found[row, [places[word] for word in words(text)]] = 1
        return found

    first, second = table(some), table(others)
    shared = first @ second.T
    joined = first.sum(1)[:, None] + second.sum(1) - shared
    # Texts that are spelled alike share some of their words, and only these are compared.
    for row, other in zip(*np.nonzero(shared > NEAR / 2 * joined), strict=True):
        pair = some[row], others[other]
        if shared[row, other] > NEAR * joined[row, other] or spelled_alike(*pair):
            yield pair


def spelled_alike(one: str, other: str) -> bool:
    matcher = SequenceMatcher(None, one.lower(), other.lower())
    # The quick ones are upper bounds.
    ratios = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return all(ratio() > ALIKE for ratio in ratios)


def test_near_duplicates_are_found() -> None:
    query = "How do I train a dog to stay off the couch?"
    same_words = "Stay off the couch: how do I train a dog?"
    same_letters = "How do I train dogs to stay off our couches?"
    other = "How do I train for a marathon?"
    assert jaccard(words(query), words(same_letters)) < NEAR
    assert not spelled_alike(query, same_words)
    found = [*near_duplicates([other, query], [same_letters, other[:-5], same_words])]
    assert {pair for pair in found if query in pair} == {(query, same_letters), (query, same_words)}


def test_histories_are_near_no_other_history() -> None:
    """Not in two splits, nor in training and in what is put before a query to measure it."""
    places: dict[str, set[str]] = {
        name: {said for row in rows_of(name) for one in row.get("history", ()) for said in one}
        for name in SPLITS
    }
    uses: tuple[Use, Use] = ("training", "measurement")
    for use in uses:
        places[use] = {said for one in load_histories(use) for pair in one for said in pair}
    for one, other in combinations(places, 2):
        for first in places[one]:
            for second in places[other]:
                assert first != second
                if min(len(words(first)), len(words(second))) >= 7:
                    assert jaccard(words(first), words(second)) <= NEAR, (first, second)


@pytest.mark.parametrize("said", [itemgetter("text"), _said], ids=["query", "conversation"])
def test_sets_share_no_near_duplicates(said: Callable[[dict[str, Any]], str]) -> None:
    """Of no kind and no label: a harmful query is not near a harmless one of another set either."""
    texts = [[said(row) for row in rows_of(name)] for name in (*BUILT_IN, *SPLITS)]
    for some, others in combinations(texts, 2):
        assert not [*near_duplicates(some, others)]


@pytest.mark.reference
def test_queries_are_near_none_of_published_sets(reference: Path) -> None:
    """All public benchmarks that are beside the repository; none of their texts is part of it."""
    published = published_texts(reference)
    assert len(published) > 900
    for name in (*BUILT_IN, *SPLITS):
        assert not [*near_duplicates([row["text"] for row in rows_of(name)], published)], name


def test_a_small_set_is_kept_whole_beside_a_large_one() -> None:
    """A dozen queries of one's own are trained on, whatever limit stands on all together."""
    large = load_query_set("anchors", "harmful")
    small = QuerySet("own", "harmful", tuple(f"How do I do thing {row}?" for row in range(12)))
    joined = join_query_sets([large, small], 40)
    assert len(joined) == 40
    assert joined.texts == (*large.texts[:28], *small.texts)
    assert join_query_sets([small, large], 40).texts == (*small.texts, *large.texts[:28])
    assert len(join_query_sets([large, large.head(60), small], 30)) <= 30
    assert join_query_sets([large, small], 8).texts == (*large.texts[:4], *small.texts[:4])
    assert join_query_sets([large, small], 500).texts == (*large.texts, *small.texts)
    assert join_query_sets([large, small]).texts == (*large.texts, *small.texts)
    assert join_query_sets([large], 7).texts == large.texts[:7]
    assert as_query_set([large, small], "harmful", 40).texts == joined.texts


def test_own_queries_are_trained_on_in_a_quick_run(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text("\n".join(f"How do I do thing {row}?" for row in range(12)))
    settings = OptimizeSettings.from_preset("quick", harmful=("training", str(own)))
    plan = plan_of(settings)
    assert settings.queries.most_anchors == 40
    assert set(own.read_text().split("\n")) <= {*map(text_of, plan.anchors.texts)}
    assert sum(plan.anchors.harmful) == 40
