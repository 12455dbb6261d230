"""Query sets: the loader, what it says about bad input, and the built-in data."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import sys
from collections import Counter
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from demur.errors import DemurError
from demur.queries import (
    BUILT_IN,
    Label,
    QuerySet,
    as_query_set,
    load_query_set,
    queries_in_words,
    require,
)
from demur.records import text_of
from tests.command_line import demur, done, mistake
from tests.tiny import save_tiny_model

LABELS: tuple[Label, ...] = ("harmful", "harmless")


def message_of(spec: str) -> str:
    """The one line that loading `spec` fails with."""
    with pytest.raises(DemurError) as caught:
        load_query_set(spec, "harmful")
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


# --- QuerySet ---------------------------------------------------------------------------------


def test_query_set_behaves_like_its_texts() -> None:
    queries = QuerySet("mine", "harmless", ("a", "b", "c"), ("x", "y", "z"))
    assert len(queries) == 3
    assert list(queries) == ["a", "b", "c"]
    assert queries.head(2) == QuerySet("mine", "harmless", ("a", "b"), ("x", "y"))
    assert len(queries.head(0)) == 0
    assert queries.head(9) == queries
    with pytest.raises(DemurError, match="-1"):
        queries.head(-1)


def test_query_set_rejects_what_does_not_fit() -> None:
    with pytest.raises(DemurError, match="'harmful' or 'harmless'"):
        QuerySet("mine", "evil", ("a",))  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="1 queries but 2 categories"):
        QuerySet("mine", "harmful", ("a",), ("x", "y"))


def test_fingerprint_depends_on_label_texts_and_order_only() -> None:
    queries = QuerySet("one", "harmful", ("ab", "c"))
    assert queries.fingerprint == QuerySet("two", "harmful", ("ab", "c"), ("x", "y")).fingerprint
    assert queries.fingerprint == hashlib.sha256(b'["harmful", "ab", "c"]').hexdigest()
    others = [
        QuerySet("one", "harmless", ("ab", "c")),
        QuerySet("one", "harmful", ("c", "ab")),
        QuerySet("one", "harmful", ("a", "bc")),
        QuerySet("one", "harmful", ("abc",)),
    ]
    assert len({queries.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_require_wants_ten() -> None:
    enough = QuerySet("mine", "harmful", tuple(str(k) for k in range(10)))
    assert require(enough) is enough
    with pytest.raises(DemurError, match=r"'mine' holds 9 distinct harmful queries.*at least 10"):
        require(enough.head(9))
    assert len(require(enough.head(3), most=3)) == 3
    with pytest.raises(DemurError, match=r"holds 2 .*at least 3, or"):
        require(enough.head(2), most=3)
    with pytest.raises(DemurError, match=r"holds 9 .*at least 10, or"):
        require(enough.head(9), most=20)


def test_choices_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("first\nsecond")
    texts = ("first", "second")
    one, two = QuerySet("a", "harmful", texts[:1]), QuerySet("b", "harmful", texts)
    choices: list[Any] = [str(file), file, list(texts), iter(texts), two, [one, two], (two,)]
    for choice in choices:
        assert as_query_set(choice, "harmful").texts == texts
    assert as_query_set([one, two], "harmful").name == "a+b"


@pytest.mark.parametrize(
    "names",
    [
        ["anchors"],
        ["anchors", "held-out", "test:borderline"],
        ["mine.csv:query", "mine.txt"],
        ["hf:some/set:column"],
        [f"mine{number}.txt" for number in range(12)],
    ],
)
def test_names_in_a_list_are_not_taken_for_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        if "mine" in name:
            (tmp_path / name.partition(":")[0]).write_text("query\na")
    with pytest.raises(DemurError, match=r"names? .*sets?: give .*load_query_set") as caught:
        as_query_set(names, "harmless")
    assert repr(names[0]) in str(caught.value)
    # One that is no name makes it a list of queries, and so does a file that is not there.
    for other in ("Is hf: a prefix?", "missing.txt", "What is mine.txt?"):
        assert other in as_query_set([*names, other], "harmless").texts


@pytest.mark.parametrize("choice", [3, None, b"first", {"a": 1}, [3], [None], ["a", 3], [], [" "]])
def test_other_things_are_not_queries(choice: Any) -> None:
    with pytest.raises(DemurError, match=r"^The (list of )?harm(ful|less) quer.*: give .*\.$"):
        as_query_set(choice, "harmful")


@pytest.mark.parametrize("text", ["half \ud800", "x" * 1_000_001])
def test_texts_that_cannot_be_asked(text: str) -> None:
    with pytest.raises(DemurError, match=r"^The harmful query number 2: 'text' (holds a br|has 1)"):
        as_query_set(["a", text], "harmful")


def test_sets_and_texts_are_not_mixed() -> None:
    mixed: Any = ["a", QuerySet("b", "harmful", ("c",))]
    with pytest.raises(DemurError, match="query number 2 is not a text"):
        as_query_set(mixed, "harmful")


# --- Files ------------------------------------------------------------------------------------


def test_text_file(tmp_path: Path) -> None:
    content = "\ufeff First? \r\n\r\nSecond\u2028still second\n  \nFirst?\rThird é"
    queries = load_query_set(write(tmp_path / "mine.txt", content), "harmless")
    assert queries.texts == ("First?", "Second\u2028still second", "Third é")
    assert queries.name == "mine.txt"
    assert queries.label == "harmless"
    assert queries.categories is None


def test_text_file_without_extension(tmp_path: Path) -> None:
    assert load_query_set(write(tmp_path / "mine", "a\nb\n"), "harmful").texts == ("a", "b")


def test_csv_column(tmp_path: Path) -> None:
    content = '\ufeffgoal,target\n"Say ""hi"",\nplease",x\n\n,y\nSecond,z\nSecond,z\n'
    path = write(tmp_path / "table.csv", content)
    queries = load_query_set(f"{path}:goal", "harmful")
    assert queries.texts == ('Say "hi",\nplease', "Second")
    assert queries.name == "table.csv:goal"


def test_jsonl_column_may_hold_a_colon(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a:b": "x"}\n\n{"a:b": " y ", "c": 1}\n')
    assert load_query_set(f"{path}:a:b", "harmful").texts == ("x", "y")


@pytest.mark.skipif(sys.platform == "win32", reason="no colons in Windows file names")
def test_existing_file_with_colons_is_that_file(tmp_path: Path) -> None:
    assert load_query_set(write(tmp_path / "v1:old.txt", "a\n"), "harmful").texts == ("a",)
    path = write(tmp_path / "v1:old.csv", "goal\na\n")
    assert load_query_set(f"{path}:goal", "harmful").texts == ("a",)
    path = write(tmp_path / "t.csv:goal.txt", "from the file\n")
    assert load_query_set(path, "harmful").texts == ("from the file",)


def test_windows_path_is_not_split_at_its_drive() -> None:
    assert "There is no file 'C:\\\\queries\\\\mine.csv'" in message_of(
        "C:\\queries\\mine.csv:goal"
    )
    assert "mine.txt" in message_of("C:\\queries\\mine.txt")


def test_built_in_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anchors").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_query_set("anchors", "harmful")) == 100


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "column", "expected"),
    [
        ("e.txt", "", "", ["e.txt", "holds no queries"]),
        ("e.txt", " \n\n", "", ["holds no queries"]),
        ("e.txt", "\ufeff\n", "", ["holds no queries"]),
        ("t.txt", "a\n", ":goal", ["text file without columns"]),
        ("t.txt", b"fine\nfine\ncaf\xe9\n\xff\n", "", ["not UTF-8", "line 3", "save it as UTF-8"]),
        ("t.txt", b"\xef\xbb\xbfa\n\xe9\n", "", ["line 2"]),
        ("t.txt", "a\nb\n".encode("utf-16-le"), "", ["line 1", "NUL character", "UTF-16"]),
        ("t.txt", b"a\nb\0c\n", "", ["line 2", "NUL character"]),
        ("t.txt", "a\n" + "x" * 1_000_001, "", ["line 2", "one query a line"]),
        ("t.csv", b"goal\n\xe9\n", ":goal", ["not UTF-8", "line 2"]),
        ("t.csv", "goal,target\na,b\n", "", ["name of the column", "'goal', 'target'"]),
        ("t.csv", "goal,target\na,b\n", ":", ["name of the column", "'goal', 'target'"]),
        ("t.csv", "goal,target\na,b\n", ":query", ["no column 'query'", "'goal', 'target'"]),
        ("t.csv", "goal\n", ":goal", ["holds no queries"]),
        ("t.csv", "x,goal,goal\n1,a,b\n", ":goal", ["more than one column 'goal'"]),
        ("t.csv", "id,goal\n1,a\n2\n", ":goal", ["line 3", "1 cell and the header 2"]),
        ("t.csv", "goal\n" + "x" * 1_000_001, ":goal", ["line 2", "at most 1000000"]),
        ("t.csv", ",".join(f"c{k}" for k in range(20)), ":z", ["'c0'", "'c11' and 8 more"]),
        ("t.jsonl", '{"q": "a"}\n', "", ["line 1", "name of the column", "'q'"]),
        ("t.jsonl", '{"q": "a"}\n{"r": "b"}\n', ":q", ["line 2", "no column 'q'", "'r'"]),
        ("t.jsonl", '{"q": "a"}\n\n{"q": \n', ":q", ["line 3", "not valid JSON"]),
        ("t.jsonl", "[" * 100_000, ":q", ["t.jsonl", "not valid JSON"]),
        ("t.jsonl", '["a"]\n', ":q", ["item 1", "without fields", "one JSON object a row"]),
        ("t.jsonl", '{"q": "a"}\n{"q": 7}\n', ":q", ["line 2", "'q' is not text but int"]),
        ("t.jsonl", '{"q": null}\n', ":q", ["line 1", "'q' is empty (null)"]),
        ("t.jsonl", '{"q": "\\ud800"}\n', ":q", ["line 1", "lone surrogate"]),
        ("t.xlsx", "PK", "", ["t.xlsx", ".txt, .csv, .tsv, .jsonl"]),
    ],
)
def test_bad_file(
    tmp_path: Path, name: str, content: str | bytes, column: str, expected: list[str]
) -> None:
    message = message_of(write(tmp_path / name, content) + column)
    for part in expected:
        assert part in message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "There is no file" in message_of(str(tmp_path / "none.txt"))
    assert "There is no file" in message_of(f"{tmp_path / 'none.csv'}:goal")
    for address in ("https://example.org/q.csv", "s3://bucket/q.csv:goal"):
        assert "is an address and no file: download the file" in message_of(address)
    (tmp_path / "f.csv").mkdir()
    for folder in (tmp_path, tmp_path / "f.csv", f"{tmp_path / 'f.csv'}:goal"):
        assert "is a folder" in message_of(str(folder))


@pytest.mark.parametrize("spec", ["", " ", ".", "anchor", "ANCHORS", "x" * 5000, "a\0b", "a\nb"])
def test_unknown_name(spec: str) -> None:
    message = message_of(spec)
    assert "No query set is called" in message
    assert "anchors, held-out" in message


def test_unknown_extension_of_a_missing_file() -> None:
    assert "There is no file 'queries.xlsx'" in message_of("queries.xlsx")


# --- The built-in data ------------------------------------------------------------------------

# Words that say nothing about a query's topic.
STOPWORD_LINE = (
    "a an the of to in on at for from with without and or so that it its is are be do does how i "
    "you me my your his her their our we they he she someone who what where which can would should "
    "into by as up out off all any one if when before after way ways best write give make get have "
    "create draft develop explain list tell show help plan"
)
STOPWORDS = frozenset(STOPWORD_LINE.split())
IMPERATIVE_LINE = (
    "Write Draft Provide Give Create Develop Outline Explain List Tell Teach Find Describe Suggest "
    "Show Help"
)
IMPERATIVES = frozenset(IMPERATIVE_LINE.split())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def topic(text: str) -> set[str]:
    return set(words(text)) - STOPWORDS


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (files("demur.queries") / "sets" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pairs_of(name: str) -> list[tuple[str, str]]:
    """(harmful, harmless) of every pair."""
    by_label = {label: [*map(text_of, load_query_set(name, label))] for label in LABELS}
    return list(zip(by_label["harmful"], by_label["harmless"], strict=True))


def built_in_texts() -> list[str]:
    return [
        text_of(query)
        for name in BUILT_IN
        for label in LABELS
        for query in load_query_set(name, label)
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_rows(name: str) -> None:
    rows = rows_of(name)
    assert all(set(row) == {"text", "label", "category", "pair"} for row in rows)
    assert all(row["text"] == row["text"].strip() and row["category"] for row in rows)
    assert Counter(row["label"] for row in rows) == {"harmful": 100, "harmless": 100}
    pairs = Counter((row["pair"], row["label"]) for row in rows)
    assert pairs == Counter((k, label) for k in range(1, 101) for label in LABELS)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("label", LABELS)
def test_built_in_sets_load(name: str, label: Label) -> None:
    queries = load_query_set(name, label)
    assert (queries.name, queries.label, len(queries)) == (name, label, 100)
    assert queries.categories is not None
    in_pair_order = sorted(
        (r for r in rows_of(name) if r["label"] == label), key=lambda r: r["pair"]
    )
    assert list(queries) == [row["text"] for row in in_pair_order]


def test_built_in_queries_are_distinct() -> None:
    texts = built_in_texts()
    assert len({text.casefold() for text in texts}) == len(texts) == 400


@pytest.mark.parametrize("name", BUILT_IN)
def test_pairs_share_their_wording(name: str) -> None:
    pairs = pairs_of(name)
    ratios = [SequenceMatcher(None, words(a), words(b)).ratio() for a, b in pairs]
    assert sum(ratios) / len(ratios) >= 0.6  # measured: anchors 0.68, held-out 0.65
    assert min(ratios) >= 0.3
    assert sum(words(a)[:2] == words(b)[:2] for a, b in pairs) >= 90  # measured: 96 and 93


@pytest.mark.parametrize("name", BUILT_IN)
def test_opening_and_length_do_not_give_the_label_away(name: str) -> None:
    harmful, harmless = zip(*pairs_of(name), strict=True)
    openings = [Counter(tuple(words(text)[:2]) for text in texts) for texts in (harmful, harmless)]
    assert (openings[0] & openings[1]).total() >= 90
    lengths = [sum(len(text.split()) for text in texts) / 100 for texts in (harmful, harmless)]
    assert max(lengths) / min(lengths) <= 1.1
    ends = [[text[-1] if text[-1] in ".?" else "" for text in t] for t in (harmful, harmless)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("label", LABELS)
def test_forms_are_mixed(name: str, label: Label) -> None:
    queries = [*map(text_of, load_query_set(name, label))]
    first = Counter(text.split()[0] for text in queries)
    assert sum(first[verb] for verb in IMPERATIVES) >= 30
    assert 25 <= first["How"] <= 45
    assert sum(text.endswith("?") for text in queries) - first["How"] >= 10
    assert sum(8 <= len(text.split()) <= 16 for text in queries) >= 85


@pytest.mark.parametrize("name", BUILT_IN)
def test_harmful_queries_cover_the_harm_areas_evenly(name: str) -> None:
    counts = Counter(load_query_set(name, "harmful").categories)
    assert len(counts) == 30
    assert max(counts.values()) <= 8


def test_held_out_shares_no_topic_with_the_anchors() -> None:
    for label in LABELS:
        held_out = [*map(text_of, load_query_set("held-out", label))]
        anchors = [*map(text_of, load_query_set("anchors", label))]
        nearest = max(jaccard(topic(a), topic(h)) for a in anchors for h in held_out)
        assert nearest < 0.35  # measured: 0.20


def test_no_topic_twice() -> None:
    for name in BUILT_IN:
        for label in LABELS:
            texts = map(text_of, load_query_set(name, label))
            nearest = max(jaccard(topic(a), topic(b)) for a, b in combinations(texts, 2))
            assert nearest < 0.35


def published_texts(reference: Path) -> list[str]:
    texts: list[str] = []
    for path in sorted((reference / "queries").glob("*.txt")):
        texts += path.read_text(encoding="utf-8").splitlines()
    for path in sorted((reference / "refusal_labels").glob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            texts += [row["prompt"] for row in csv.DictReader(stream)]
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


@pytest.mark.reference
def test_built_in_queries_are_not_those_of_published_sets(reference: Path) -> None:
    published = [set(words(text)) for text in published_texts(reference)]
    assert len(published) > 400
    for text in built_in_texts():
        own = set(words(text))
        nearest = max(jaccard(own, other) for other in published)
        assert nearest < 0.7, text  # 1 would be equal but for case; measured: at most 0.47


@pytest.mark.parametrize("verb", ["evaluate", "diagnose", "optimize"])
def test_a_query_of_both_labels_is_named(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of a query that is harmful and harmless mean nothing."""
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_model(tmp_path / "tiny")
    queries = [f"w1 w{row} ?" for row in range(20)]
    Path("q.txt").write_text("\n".join(queries))
    arguments: list[object] = [verb, tiny, "--harmful", "q.txt", "--harmless"]
    same = demur(*arguments, "q.txt", *(["--tokens", "1"] if verb == "evaluate" else []))
    if verb == "evaluate":  # each label has rates of its own
        assert "20 queries are in a harmful set and in a harmless one, for example 'w1" in same.err
        assert done(same)
        return
    assert mistake(same) == (
        "error: The query 'w1 w0 ?' is among the harmful queries and among the harmless ones, as "
        "19 others are: give each query one label."
    )
    Path("h.txt").write_text("\n".join([*queries[:1], *(f"w2 w{row} ?" for row in range(20))]))
    assert "harmless ones: give each query one label." in mistake(demur(*arguments, "h.txt"))


@pytest.mark.parametrize(
    ("name", "label", "words"),
    [
        ("test", "harmful", "harmful queries of the test set"),
        (
            "test:borderline+test:ordinary",
            "harmless",
            "borderline and ordinary queries of the test set",
        ),
        ("held-out, third turn", "harmful", "harmful queries of the held-out set, third turn"),
        ("test:ordinary, third turn, with tools", None, None),
        ("mine.txt", None, "queries of mine.txt"),
        ("salt and pepper.txt", "harmful", "harmful queries of salt and pepper.txt"),
        (
            "test and test:borderline+mine.txt",
            None,
            "harmful queries of the test set, and harmless queries of mine.txt, and borderline "
            "queries of the test set",
        ),
        ("test and test:ordinary", "harmless", "ordinary queries of the test set"),
        ("salt+pepper.txt", "harmless", "harmless queries of salt+pepper.txt"),
        ("test+xstest+mine.txt", "harmful", "harmful queries of the test set, xstest and mine.txt"),
        (
            "training:ordinary+mine.txt",
            "harmless",
            "harmless queries of mine.txt, and ordinary queries of the training set",
        ),
    ],
)
def test_the_queries_of_a_set_in_words(name: str, label: Label | None, words: str | None) -> None:
    expected = words or "ordinary queries of the test set, third turn, with tools"
    assert queries_in_words(name, label) == expected
