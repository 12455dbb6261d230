"""Queries in conversations as values: identity, reading, counting, turns, and mixing them in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demur import Conversation, DemurError, QuerySet, load_query_set
from demur.evaluation.choices import choose_sets
from demur.evaluation.tally import Tally
from demur.queries import (
    as_query_set,
    in_turn,
    join_query_sets,
    labelled,
    load_applications,
    load_histories,
    mix_conversations,
)
from demur.records import (
    JudgedResponse,
    Measurement,
    MeasurementKey,
    Queries,
    Query,
    history_of,
    identity_of,
    text_of,
    transcript_of,
)
from demur.records.codec import from_line, to_line

SAID = (("How much rice for two?", "150 g."),)
SIX = Conversation("And for six?", SAID)
OTHERS: list[Query] = [
    "And for six?",
    Conversation("And for six?", (("How much rice for one?", "150 g."),)),
    Conversation("And for six?", (*SAID, *SAID)),
    Conversation("And for six?", SAID, "You sell rice."),
    Conversation("And for six?", (), "You sell rice."),
    Conversation("And for seven?", SAID),
]


def response(query: Query | None, refused: bool, condition: str = "a") -> JudgedResponse:
    return JudgedResponse(
        condition, condition, "set", "harmful", None, query, "Answer.", refused, "stop"
    )


def test_the_same_text_behind_another_history_is_another_query() -> None:
    assert Conversation("And for six?", [["How much rice for two?", "150 g."]]) == SIX  # type: ignore[arg-type]
    every: list[Query] = [SIX, *OTHERS]
    assert len({identity_of(query) for query in every}) == len(set(every)) == len(every)
    sets = [QuerySet("q", "harmful", (query,)) for query in every]
    assert len({one.fingerprint for one in sets}) == len(every)
    assert len({labelled("q", one).fingerprint for one in sets}) == len(every)
    assert join_query_sets(sets).texts == tuple(every)
    assert as_query_set([*every, SIX, "And for six?"], "harmful").texts == tuple(every)
    assert QuerySet("q", "harmful", ("a",)).fingerprint == (
        QuerySet("other", "harmful", ("a",)).fingerprint
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("a",), "nothing before its query"),
        ((" ", SAID), "blank"),
        (("a", (("b", " "),)), "blank"),
        (("a", (("b",),)), "pairs"),
        (("a", ("bc",)), "pairs"),
        (("a", (("b", 7),)), "no text"),
        (("a", SAID, "  "), "blank"),
    ],
)
def test_a_conversation_of_nothing_is_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(DemurError, match=problem):
        Conversation(*arguments)


def test_responses_keep_the_conversation() -> None:
    known: list[Query | None] = [None, SIX, *OTHERS]
    for query in known:
        one = response(query, True)
        assert from_line(JudgedResponse, to_line(one)) == one
    line = to_line(response(SIX, True))
    for damage in (b'"history":[]', b'"history":[["a"]]', b'"history":[["a",7]]'):
        with pytest.raises(ValueError, match=r"pairs|query|validation error"):
            from_line(
                JudgedResponse,
                line.replace(b'"history":[["How much rice for two?","150 g."]]', damage),
            )


def test_people_read_a_transcript() -> None:
    assert transcript_of("And for six?") == "And for six?"
    assert transcript_of(replace(SIX, system_prompt="You sell rice.")) == (
        "System: You sell rice.\n\nUser: How much rice for two?\n\nAssistant: 150 g.\n\n"
        "User: And for six?"
    )


def test_counts_and_tests_keep_conversations_apart() -> None:
    """The first query is refused under `a` alone, the second, of the same text, under `b` alone."""
    tally = Tally()
    for condition, refuses in (("a", (True, False)), ("b", (False, True))):
        for query, refused in zip([SIX, *OTHERS[:1]], refuses, strict=True):
            tally.add([response(query, refused, condition)] * 3)
    rates = tally.rates()
    assert [one.refused.queries for one in rates if one.refused] == [2, 2]
    assert [one.wrong_any.count for one in rates if one.wrong_any] == [1, 1]
    (difference,) = tally.differences()
    assert (difference.queries, difference.difference) == (2, 0)


def test_telling_examples_show_the_whole_conversation() -> None:
    from demur.optimization.examples import telling_examples

    queries = Queries(
        "q", ("And for six?", SIX, "w"), ("harmful", "harmful", "harmless"), (None,) * 3
    )

    def measured(*refused: bool) -> Measurement:
        rows = tuple(
            (response(query, one),) for query, one in zip(queries.texts, refused, strict=True)
        )
        key = MeasurementKey("c", queries.fingerprint, "m", "p")
        return Measurement(key, None, queries, rows, None)  # type: ignore[arg-type]

    harmful, _ = telling_examples(measured(True, False, False), measured(True, True, False))
    assert harmful.query == transcript_of(SIX)


def write(folder: Path, *rows: object) -> str:
    path = folder / "talk.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return f"{path}:messages"


def said(*texts: object) -> list[dict[str, object]]:
    """Messages by turns, the user first."""
    return [
        {"role": ("user", "assistant")[place % 2], "content": text}
        for place, text in enumerate(texts)
    ]


def test_conversations_are_read_from_jsonl(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "150 "}, {"type": "text", "text": "g."}]
    spec = write(
        tmp_path,
        said("How much rice for two?", "150 g.", "And for six?"),
        said(" How much rice for two? ", parts, "And for six?\n"),  # the same again
        said("And for six?"),
        "And for six?",
        said("a", "b", "c", "d", "e"),
    )
    loaded = load_query_set(spec, "harmless")
    assert loaded.name == "talk.jsonl:messages"
    assert loaded.texts == (
        SIX,
        "And for six?",
        Conversation("e", (("a", "b"), ("c", "d"))),
    )


@pytest.mark.parametrize(
    ("row", "problems"),
    [
        ([], ["no messages"]),
        (said("a", "b"), ["ends with the assistant"]),
        ([*said("a"), *said("b")], ["message 2", "take turns"]),
        ([{"role": "assistant", "content": "a"}, *said("b")], ["begins with the assistant"]),
        ([*said("a", "b"), {"role": "system", "content": "c"}, *said("d")], ["message 3"]),
        ([{"role": "system", "content": "a"}], ["holds no message of the user"]),
        ([{"role": "developer", "content": "a"}, *said("b", "c")], ["ends with the assistant"]),
        (said("a", {"text": "b"}, "c"), ["message 2", "not text but dict"]),
        (said("a", None, "c"), ["message 2", "'content' is empty (null)"]),
        (said("a", [{"type": "image_url"}], "c"), ["message 2", "text parts only"]),
        (said("a", ["b"], "c"), ["text parts only"]),
        (said("a", " ", "c"), ["message 2", "blank"]),
        (said("a", [], "c"), ["message 2", "blank"]),
        (said("a", "b", "\ud800"), ["message 3", "lone surrogate"]),
        ([{"role": "tool", "content": "a"}], ["role 'tool'"]),
        ([{"role": ["user"], "content": "a"}], ["role"]),
        ([{"content": "a"}], ["role None"]),
        (["a"], ["message 1", "'role' and 'content'"]),
        (
            [*said("a"), {"role": "assistant", "content": "b", "tool_calls": [1]}, *said("c")],
            ["message 2", "calls a tool"],
        ),
        ({"role": "user"}, ["not text but dict"]),
        (7, ["not text but int"]),
    ],
)
def test_other_messages_are_refused_by_row(
    tmp_path: Path, row: object, problems: Sequence[str]
) -> None:
    spec = write(tmp_path, said("fine"), row)
    with pytest.raises(DemurError) as caught:
        load_query_set(spec, "harmful")
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for problem in ("talk.jsonl' line 2", *problems):
        assert problem in message


def test_system_messages_are_the_text_of_the_application_of_a_query(tmp_path: Path) -> None:
    opened = {"role": "system", "content": "You sell rice."}
    spec = write(
        tmp_path,
        [opened, *said("a")],
        [{"role": "developer", "content": " You sell rice.\n"}, *said("a", "b", "c")],
        [{"role": "system", "content": " "}, *said("d")],  # none, as many data sets write it
        [opened, {"role": "system", "content": "Be brief."}, *said("a")],
    )
    assert load_query_set(spec, "harmless").texts == (
        Conversation("a", system_prompt="You sell rice."),
        Conversation("c", (("a", "b"),), "You sell rice."),
        "d",
        Conversation("a", system_prompt="You sell rice.\n\nBe brief."),
    )


def test_the_third_turn_pairs_with_the_first() -> None:
    queries = load_query_set("test", "harmless")
    third = in_turn(queries, 3, seed=4)
    assert (third.name, third.label, third.categories) == (
        queries.name,
        queries.label,
        queries.categories,
    )
    before = Counter()  # type: Counter[object]
    for one, other in zip(queries, third, strict=True):
        assert text_of(one) == text_of(other)
        history = history_of(other)
        assert history[2:] == history_of(one)
        assert history[:2] in load_histories("measurement")
        before[history[:2]] += 1
    assert len(before) == 12  # all of them, about equally often
    assert max(before.values()) < 2 * len(queries) / 12
    # What stands before a query follows from the query and the seed, whatever set it is in.
    some = replace(queries, name="x", texts=queries.texts[10:20], categories=None)
    assert in_turn(some, 3, seed=4).texts == third.texts[10:20]
    assert in_turn(queries, 3, seed=5).texts != third.texts
    assert in_turn(queries, 1) == queries
    with pytest.raises(DemurError, match="give 1 or 3"):
        in_turn(queries, 2)


def test_each_turn_is_a_set_of_its_own() -> None:
    harmful = load_query_set("held-out", "harmful").head(12)
    own = QuerySet("held-out, third turn", "harmful", ("a", "b"))
    sets = choose_sets((), [harmful, own], None, turns=(1, 3), seed=7)
    assert [one.name for one in sets] == [
        "held-out",
        "held-out, third turn",
        "held-out, third turn (2)",
        "held-out, third turn, third turn",
    ]
    assert sets[0].sides == (harmful,)
    assert sets[1].sides == (in_turn(harmful, 3, 7),)
    (only,) = choose_sets((), harmful, None, turns=(3,))
    assert only.name == "held-out, third turn"
    assert [text_of(query) for query in only.queries.texts] == list(harmful)


def anchors() -> Queries:
    return labelled(
        "training", load_query_set("training", "harmful"), load_query_set("training", "harmless")
    )


def test_conversations_are_mixed_into_training() -> None:
    queries = anchors()
    mixed = mix_conversations(queries, histories=0.3, applications=0.2, seed=3)
    assert [text_of(query) for query in mixed.texts] == [text_of(query) for query in queries.texts]
    assert (mixed.name, mixed.labels, mixed.categories) == (
        queries.name,
        queries.labels,
        queries.categories,
    )
    for harmful in (True, False):
        rows = queries.rows(harmful=harmful)
        found = [mixed.texts[row] for row in rows]
        texts = [query.system_prompt for query in found if isinstance(query, Conversation)]
        assert sum(bool(history_of(query)) for query in found) == round(0.3 * len(rows))
        assert sum(text is not None for text in texts) == round(0.2 * len(rows))
        assert {text for text in texts if text} == set(load_applications())
    lengths: Counter[int] = Counter()
    for one, other in zip(queries.texts, mixed.texts, strict=True):
        if history_of(one):
            assert history_of(other) == history_of(one)
        elif history_of(other):
            lengths[len(history_of(other))] += 1
            assert any(
                history_of(other) == known[: len(history_of(other))]
                for known in load_histories("training")
            )
    assert min(lengths[1], lengths[2]) > 50
    assert mix_conversations(queries, histories=0.3, applications=0.2, seed=3) == mixed
    assert mix_conversations(queries, histories=0.3, applications=0.2, seed=4) != mixed
    assert mix_conversations(queries) == queries
    everything = mix_conversations(queries, histories=1, applications=1)
    assert all(
        isinstance(query, Conversation) and query.history and query.system_prompt
        for query in everything.texts
    )


def test_a_larger_share_keeps_what_a_smaller_one_changed() -> None:
    queries = anchors()
    small = mix_conversations(queries, histories=0.2, seed=1)
    large = mix_conversations(queries, histories=0.4, seed=1)
    changed = [row for row, query in enumerate(small.texts) if query != queries.texts[row]]
    assert changed
    assert all(small.texts[row] == large.texts[row] for row in changed)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(DemurError, match="0 to 1"):
        mix_conversations(anchors(), histories=share)
    with pytest.raises(DemurError, match="applications"):
        mix_conversations(anchors(), applications=share)
