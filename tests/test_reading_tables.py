"""Tables and text files: what is damaged is named, what is read is whole, whatever it is saved as.

Queries and responses are read by one reader, so most inputs are tried as both.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from demur import Comparison, DemurError, ResponseFiles, evaluate
from demur.queries import load_query_set
from demur.records import Rate

REFUSAL = "I'm sorry, but I cannot help with that."
TEXTS = [f'How, "exactly", do I plant {n} trees;\tor bushes?\nAnd\r\nwhen, say?' for n in range(12)]


def table(rows: list[list[str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def as_queries(path: Path, field: str = "text") -> tuple[object, ...]:
    return load_query_set(f"{path}:{field}", "harmless").texts


def as_responses(path: Path, field: str = "text") -> list[str]:
    comparison = evaluate(
        ResponseFiles(f"{path}:{field}"), judge="paper", output=path.parent / "out"
    )
    return [row.response for row in comparison.responses()]


def refused(comparison: Comparison) -> Rate:
    rate = comparison.rates[0].refused
    assert rate is not None
    return rate


def complaints(path: Path, field: str = "text") -> str:
    """What both readers say of a file: the same."""
    messages = []
    for read in (as_queries, as_responses):
        with pytest.raises(DemurError) as caught:
            read(path, field)
        messages.append(str(caught.value))
        assert "\n" not in messages[-1]
        assert messages[-1].endswith(".")
    assert messages[0] == messages[1]
    assert not (path.parent / "out").exists()
    return messages[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_is_written_rightly_is_read_whole(
    tmp_path: Path, delimiter: str, ending: str, encoding: str
) -> None:
    if ending == ".tsv" and delimiter != "\t":
        pytest.skip("that has tabs")
    rows = [["id", "text", "note"], *([str(n), text, ""] for n, text in enumerate(TEXTS))]
    content = table(rows, delimiter).encode(encoding)
    path = tmp_path / f"t{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    assert list(as_queries(path)) == TEXTS
    assert as_responses(path) == TEXTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # A comma in a text without quotes.
        ("id,text\n1,fine\n2,How, then?\n", "line 3 has 3 cells and the header 2: put texts that"),
        ("id;text\n1;fine\n2;How; then?\n", "texts that hold a semicolon in quotes."),
        ("id\ttext\n1\tHow\tthen?\n", "line 2 has 3 cells and the header 2: put texts that hold a"),
        ("text\nHow, then?\n", "line 2 has 2 cells and the header 1"),
        ("text,\nHow, then,\n", "line 2 has 3 cells and the header 2"),
        # The same in a row that lacks a cell, so that the number is right by accident.
        (
            "id,text,note\n1,a,b\n2,How, then?\n",
            "line 3 has a space behind a comma, as within a te",
        ),
        ("text,note\nNo, never\n", "line 2 has a space behind a comma"),
        ('text,note\nNo, never\n"a, b",c\n', "line 2 has a space behind a comma"),
        (
            "id;text;note\n1;How; then?\n",
            "behind a semicolon, as within a text: put texts that hold",
        ),
        (
            "text,\na,\nHow,then\n",
            "line 3 has text in column 2, which has no name: name it, or put",
        ),
        # A row that is too short, a text over two lines without quotes.
        ("id,text\n1,a\n2\n", "line 3 has 1 cell and the header 2: give every row 2 cells"),
        ("id,text\n1,a\nb\n", "line 3 has 1 cell and the header 2"),
        # Quotes that are not closed, or too late.
        (
            'id,text\n1,"How, then\n2,Why\n3,So"\n4,a\n',
            "line 2 opens a quote that is closed only on line 4, and what is between looks like",
        ),
        (
            'label,text\nharmful,"How\nharmless,Why\nharmful,So"\nharmless,a\n',
            "line 2 opens a quote that is closed only on line 4, and what is between looks like",
        ),
        (
            'kind,text\n1,a\n0,"How\n1,Why\n0,So"\n1,b\n0,c\n',
            "line 3 opens a quote that is closed only on line 5, and what is between looks like",
        ),
        (
            'label,text\nharmful,a\nharmless,"How\nharmful,Why\nharmless,So"\n',
            "line 3 opens a quote that is closed only on line 5, and what is between looks like",
        ),
        ('text,label\n"How,harmful\nWhy,harmful\nSo",harmful\n', "looks like rows: close it"),
        ('id,text\n1,a\n2,"b\n3,c\n', "line 3 opens a quote that is never closed: close it"),
        ('id,text\n1,"a\n2,b\n3,"c"\n4,d\n', "line 2 opens a quote that is not closed before"),
        ('id,text\n1,"a\n2,b\n3,"c\n', "the text on line 4: close it"),
        ('"id,text\n1,a\n', "line 1 opens a quote that is never closed"),
        ('text\nfine\nsay "hi\n', "line 3 has a quote within a text that is not in quotes"),
        ('id,text\n1,a 5" pipe\n', "line 2 has a quote within a text that is not in quotes"),
        # A space before a quote, text beside one.
        ('id,text\n1, "How, then?"\n', "line 2 has a space before a quote: remove the space."),
        ('id,text\n1, "How?"\n', "line 2 has a space before a quote"),
        ('id, "text"\n1,a\n', "line 1 has a space before a quote"),
        ('id,text\n1,"a" b\n', "line 2 has text beside a closing quote: write a quote within a te"),
        ('id,text\n1,"a" \n', "line 2 has text beside a closing quote"),
        ('id,text\n1,"a"b",c\n', "line 2 has text beside a closing quote"),
        # Backslashes before quotes.
        ('id,text\n1,"Say \\"hi\\", then?"\n', 'as "", not as \\", and put the whole text in quo'),
        ('id,text\n1,"\\", b\n', "has 3 cells and the header 2"),
        ('text\n"a \\""\n"b"\n', "not as"),
        # Values that are missing, as programs write them.
        (
            "id,text\n1,a\n2,nan\n",
            "line 3: 'text' is nan, as programs write a value",
        ),
        ("id,text\n1,a\n2,None\n", "drop the row, or give the texts as JSON if one says that."),
        ("id\ttext\n1\ta\n2\t\\N\n", "line 3: 'text' is \\N, as programs write"),
        # Headers.
        ("id,text,text\n1,a,b\n", "has more than one column 'text': rename one."),
        ("id,id,text\n1,2,a\n", "has more than one column 'id': rename one."),
        ("id,Text\n1,a\n", "has no column 'text' (did you mean 'Text'?): its columns are 'id', '"),
        # No text.
        (b"id,text\n1,a\n2,\xff\n", "is not UTF-8 text (line 3): save it as UTF-8."),
        (b"id,text\n1,a\0b\n", "line 2 holds a NUL character"),
        ("id,text\n1,a\n".encode("utf-16-le"), "line 1 holds a NUL character, so it is no plain"),
        ("id,text\n1,a\n".encode("utf-16")[:-1], "is damaged UTF-16: save it as UTF-8."),
        (b"PK\x03\x04abc", "is a ZIP archive, a document or a spreadsheet and no text: unpack it"),
        (b"PAR1abc", "is a Parquet file and no text: give it a name that ends in .parquet."),
        (b"BZh9abc", "is compressed with bzip2 and no text: unpack it."),
        (b"\x28\xb5\x2f\xfdabc", "is compressed with zstd"),
        (
            gzip.compress(b"id,text\n1,a\n", mtime=0)[:-6],
            "is a gzip file that is cut short: copy it again.",
        ),
        (gzip.compress(b"id,text\n1,a\n", mtime=0)[:12] + b"x" * 20, "is a damaged gzip file"),
        (gzip.compress(b"PAR1abc", mtime=0), "is a Parquet file and no text"),
    ],
)
def test_damaged_tables_are_named_and_never_read(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = complaints(path)
    assert found.startswith(f"{str(path)!r}")
    assert message in found


def test_what_is_no_damage(tmp_path: Path) -> None:
    """Texts that hold delimiters of other kinds, quotes in pairs, escapes in texts in quotes."""
    for content, texts in (
        ('id,text\n1,say "hi" to me\n', ['say "hi" to me']),
        ("text\nSemicolons; and\ttabs\n", ["Semicolons; and\ttabs"]),
        ("text;id\nA, b, c.;1\n", ["A, b, c."]),
        ("sep=;\ntext;id\nA, b;1\n", ["A, b"]),
        ('text\n"print(\\""hi\\"")"\n', ['print(\\"hi\\")']),
        ('text,id\n"C:\\dir\\",1\n', ["C:\\dir\\"]),
        ("text\r1st\r2nd\r", ["1st", "2nd"]),
        ("text\r\n1st\r\n2nd", ["1st", "2nd"]),
        ("text,,\na,,\n", ["a"]),
        ("ü,text\né,日本\n", ["日本"]),
        # A space behind a delimiter, where that is the column's way, or is in quotes.
        ("id, text\n1, How then?\n", [" How then?"]),
        ('id,text\n1, How?\n2," How, then?"\n', [" How?", " How, then?"]),
        ('id,text\n1," How?"\n', [" How?"]),
        ("id\ttext\n1\t How?\n", [" How?"]),
        ("id,text, \n1,a, \n", ["a"]),
        (",text\n1,a\n", ["a"]),
        ('kind,text\nharmful,a\nx,"Harmful, say\nand so on"\n', ["a", "Harmful, say\nand so on"]),
    ):
        path = tmp_path / "t.csv"
        path.write_bytes(content.encode())
        if texts is None:
            assert "no column 'text'" in complaints(path)
        else:
            assert list(as_queries(path)) == [text.strip() for text in texts], content
            assert [text.strip() for text in as_responses(path)] == [
                text.strip() for text in texts
            ], content
            shutil.rmtree(tmp_path / "out")


def test_every_damage_of_one_character_is_read_whole_or_named(tmp_path: Path) -> None:
    """A character is dropped, doubled or put in at random: no text is cut short or merged."""
    draw = random.Random(5)
    texts = [f"How do I plant {n} trees, then?" for n in range(8)]
    whole = table([["id", "text"], *([str(n), text] for n, text in enumerate(texts))])
    path = tmp_path / "t.csv"
    named = 0
    for _ in range(400):
        at, kind = draw.randrange(9, len(whole) - 2), draw.choice(["drop", '"', ",", "\\", "\n"])
        damaged = whole[:at] + ("" if kind == "drop" else kind) + whole[at + (kind == "drop") :]
        path.write_bytes(damaged.encode())
        try:
            read = as_queries(path)
        except DemurError:
            named += 1
            continue
        assert len(read) == 8, damaged
        assert all(
            abs(len(str(one)) - len(text)) <= 2 for one, text in zip(read, texts, strict=True)
        )
    assert named > 100


def test_names_that_do_not_say_what_a_file_holds(tmp_path: Path) -> None:
    for name, message in (
        ("t.xlsx", "save the sheet as CSV, or give a file"),
        ("t.zip", "unpack it, or give a "),
        ("t.csv.bz2", "unpack it, or give a "),
    ):
        (tmp_path / name).write_bytes(b"PK")
        for spec in (str(tmp_path / name), f"{tmp_path / name}:text"):
            with pytest.raises(DemurError, match=rf"Cannot tell what .*{name}.* holds: {message}"):
                load_query_set(spec, "harmless")
        with pytest.raises(DemurError, match=rf"Cannot tell what .*{name}' holds: {message}"):
            evaluate(ResponseFiles(tmp_path / name), judge="paper", output=tmp_path / "out")
    commas = tmp_path / "t.tsv"
    commas.write_text('id,text\n1,"a\tb"\n')
    assert as_queries(commas) == ("a\tb",)
    commas.write_text("text\nHow, then?\n")
    assert as_queries(commas) == ("How, then?",)


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text\n1,a\n\n,\n2, \n3,a\n4,b\n")
    loaded = load_query_set(f"{path}:text", "harmless")
    assert loaded.texts == ("a", "b")
    assert loaded.remark == "t.csv:text: 2 blank rows and 1 repeated query left out, 2 kept."
    path.write_text("id,text\n1,a\n2,b\n")
    assert load_query_set(f"{path}:text", "harmless").remark == ""
    lines = tmp_path / "t.txt"
    lines.write_text("a\n\nb\na\na\n")
    assert load_query_set(str(lines), "harmful").remark == (
        "t.txt: 1 blank row and 2 repeated queries left out, 2 kept."
    )


def test_refusals_without_quotes_are_not_measured_as_answers(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("query,response\n" + "".join(f"q{n}?,{REFUSAL}\n" for n in range(12)))
    with pytest.raises(DemurError, match="line 2 has 3 cells and the header 2: put texts"):
        evaluate(ResponseFiles(path), judge="paper", output=tmp_path / "out")
    path.write_text("query;response\n" + "".join(f"q{n}?;{REFUSAL}\n" for n in range(12)))
    assert refused(evaluate(ResponseFiles(path), judge="paper", output=tmp_path / "out")).value == 1


def test_texts_of_several_lines_may_hold_lists(tmp_path: Path) -> None:
    texts = ["1, 2\n3, 4", "a\n2. b\n3. c", "two\n2, three", "x, no\ny, no", "7,0\n8,1"]
    rows = "".join(f'{n},"{text}",no\n' for n, text in enumerate(texts, start=1))
    path = tmp_path / "t.csv"
    path.write_text(f'id,text,note\n{rows}{"9" * 5000},"a\nb",no\n')
    assert list(as_queries(path)) == [*texts, "a\nb"]


def test_a_spreadsheet_may_end_in_rows_of_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f'query;response\n"q?";"{REFUSAL}"\n;\n;\n')
    comparison = evaluate(ResponseFiles(path), judge="paper", output=tmp_path / "out")
    assert comparison.rates[0].responses == 1


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 and nothing")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow.parquet", None)
        assert "is a Parquet file, which needs pyarrow: run `pip install" in complaints(path)
    arrow = pytest.importorskip("pyarrow")
    assert "is a damaged Parquet file" in complaints(path)
    parquet = pytest.importorskip("pyarrow.parquet")
    said = [{"role": "user", "content": text} for text in TEXTS]
    parquet.write_table(arrow.table({"text": TEXTS, "said": [[one] for one in said]}), path)
    assert list(as_queries(path)) == list(as_queries(path, "said")) == TEXTS
    assert as_responses(path) == TEXTS
    assert "row 1 has no column 'texts' (did you mean 'text'?)" in complaints_of_queries(path)
    # A text that repeats takes no room in the file, and all of it in memory.
    parquet.write_table(arrow.table({"text": ["a" * 100_000] * 1000}), path)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr("demur.reading.archives.MOST_LINE_BYTES", 50_000)
    with pytest.raises(DemurError, match="has a row above 0 MB behind row 0: check that this is"):
        as_queries(path)


def complaints_of_queries(path: Path) -> str:
    with pytest.raises(DemurError) as caught:
        as_queries(path, "texts")
    return str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "eval", "csv.gz"])
def test_what_never_ends_or_never_begins_is_not_read(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    (tmp_path / f"folder.{ending}").mkdir()
    assert "is a pipe and no regular file: save" in complaints(tmp_path / f"pipe.{ending}")
    assert "is a device or socket and no regular file" in complaints(tmp_path / f"zero.{ending}")
    assert "is a folder: name a file in it" in complaints(tmp_path / f"folder.{ending}")
    assert "There is no file" in complaints(tmp_path / f"missing.{ending}")
    for pipe in (tmp_path / "pipe.txt", tmp_path / "pipe"):
        if not pipe.exists():
            os.mkfifo(pipe)
        with pytest.raises(DemurError, match="is a pipe"):
            load_query_set(str(pipe), "harmful")


def test_one_endless_line_is_given_up_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.reading.files.MOST_LINE_BYTES", 3_000_000)
    for ending, content in (("csv", "text\n" + "x" * 9_000_000), ("jsonl", "[" * 9_000_000)):
        path = tmp_path / f"t.{ending}"
        path.write_text(content)
        assert "is above 3 MB: check that this is the right file" in complaints(path)
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(b"text\n" + b"\0" * 9_000_000))
    assert "line 2 is above 3 MB" in complaints(packed)


def test_tables_have_a_largest_number_of_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.reading.table.MOST_CELLS", 1000)
    path = tmp_path / "t.csv"
    path.write_text("text\n" + "," * 2000)
    assert "line 2 has more than 1,000 cells: check" in complaints(path)
    path.write_text("," * 2000 + "\ntext\n")
    assert "line 1 has more than 1,000 cells: check" in complaints(path)


def test_lines_without_end_are_given_up_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.reading.table.MOST_LINES_TOGETHER", 1000)
    monkeypatch.setattr("demur.reading.files.MOST_LINES_TOGETHER", 1000)
    path = tmp_path / "t.csv"
    path.write_text('text\n"' + "x\n" * 3000 + '"\n')
    assert "line 2 opens a quote that is never closed" in complaints(path)
    for ending, content in (("csv.gz", "text\na\n"), ("jsonl.gz", '{"text": "a"}\n')):
        packed = tmp_path / f"t.{ending}"
        packed.write_bytes(gzip.compress((content + "\n" * 3000).encode()))
        assert "follows 1,000 blank ones: check that this is" in complaints(packed)
        packed.write_bytes(gzip.compress((content + "\n" * 900).encode()))
        assert as_queries(packed) == ("a",)


def test_what_a_file_is_instead_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content, message in (
        (b"", "is empty: give a table with a header row"),
        (b"\xef\xbb\xbf", "is empty: give a table with a header row"),
        (gzip.compress(gzip.compress(b"text\na\n")), "is gzipped twice: unpack it once"),
        (b"SQLite format 3\0", "is a database and no text: export the table"),
        (b"BZh91AY&SY and more", "is compressed with bzip2 and no text: unpack it"),
    ):
        path.write_bytes(content)
        with pytest.raises(DemurError, match=message):
            load_query_set(f"{path}:text", "harmful")


def test_documents_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"text": "a" * 100}] * 20_000))
    monkeypatch.setattr("demur.reading.objects.MOST_JSON_PARTS", 30_000)
    assert "holds more than 30,000 values" in complaints(path)
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "a"}\n' * 400_000))
    monkeypatch.setattr("demur.reading.files.MOST_UNPACKED_BYTES", 2_000_000)
    assert "is above 2 MB, too large for what it should hold: split it" in complaints(packed)
