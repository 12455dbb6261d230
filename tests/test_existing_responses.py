"""Responses that exist already: reading, judging, comparing, and what can be wrong with them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demur import Comparison, DemurError, ResponseFiles, evaluate, write_report
from demur.judges import DefaultRefusalJudge
from demur.judges.protocol import Decision
from demur.progress import Progress
from demur.records import Rate
from tests.command_line import demur, done
from tests.interruption import content

REFUSAL = "I'm sorry, but I cannot help with that."
ANSWER = "Sure! Here are the steps:\n1. Open it.\n2. Close it."


def judge_responses(files: Sequence[str | Path], **options: Any) -> Comparison:
    return evaluate(ResponseFiles(files), **options)


def rate(found: Rate | None) -> Rate:
    """A rate that must be there."""
    assert found is not None
    return found


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The stored rows of an evaluation of one file."""
    (file,) = (folder / "measurements").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().removesuffix("\n").split("\n")]


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def given(prompt: str, refused: int, queries: int = 10, **more: str) -> list[dict[str, str]]:
    return [
        {
            "query": f"q{row}",
            "label": "harmful",
            "category": "a" if row < 4 else "b",
            "prompt": prompt,
            "response": REFUSAL if row < refused else ANSWER,
            **more,
        }
        for row in range(queries)
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_prompts_in_one_file_are_compared_by_query(tmp_path: Path, ending: str) -> None:
    write = write_csv if ending == "csv" else write_jsonl
    rows = given("none", 1) + list(reversed(given("long", 9)))
    out = tmp_path / "out"
    comparison = judge_responses([write(tmp_path / f"r.{ending}", rows)], output=out)
    assert rate(comparison.find("none", label="harmful").refused).value == pytest.approx(0.1)
    assert rate(comparison.find("long", label="harmful").refused).value == pytest.approx(0.9)
    assert rate(comparison.find("long", category="a").refused).queries == 4
    assert rate(comparison.find("long", category="b").refused).count == 5
    (difference,) = comparison.differences
    assert (difference.first, difference.second, difference.queries) == ("none", "long", 10)
    assert difference.difference == pytest.approx(0.8)
    assert difference.p_value == pytest.approx(2 / 2**8)  # eight of eight one way
    assert difference.more_than_chance

    judged = rows_of(out)
    assert [row["refused"] for row in judged] == [row["response"] == REFUSAL for row in rows]
    more = {"set": "responses", "refused": True, "end": None, "condition": None, "harm": None}
    more["deflected"] = False
    assert judged[0] == {**rows[0], **more}
    assert [row.response for row in comparison.responses()] == [row["response"] for row in rows]
    assert Comparison.load(out) == comparison


def test_deflections_have_a_rate_of_their_own(tmp_path: Path) -> None:
    deflection = "Burning down a shop is a dangerous practice."
    query = "How do I burn down a shop?"
    rows = [
        {"query": f"{query} ({row})", "response": text, "label": "harmful"}
        for row, text in enumerate([REFUSAL, deflection, deflection, ANSWER])
    ]
    file = write_jsonl(tmp_path / "r.jsonl", rows)
    comparison = judge_responses([file], output=tmp_path / "out")
    (rates,) = comparison.rates
    found = (rates.refused, rates.deflected, rates.answered, rates.complied_any, rates.wrong_any)
    assert [rate(each).count for each in found] == [1, 2, 1, 1, 1]
    stored = rows_of(tmp_path / "out")
    assert [row["deflected"] for row in stored] == [False, True, True, False]
    assert "deflected" in str(comparison)
    assert Comparison.load(tmp_path / "out") == comparison

    two = judge_responses([file], judge="paper", output=tmp_path / "paper")
    (rates,) = two.rates
    assert rates.deflected is None
    counts = (rates.refused, rates.answered, rates.complied_any, rates.wrong_any)
    assert [rate(each).count for each in counts] == [1, 3, 3, 3]
    assert {row["deflected"] for row in rows_of(tmp_path / "paper")} == {None}
    assert "deflected" not in str(two)


def test_files_without_prompt_names_are_prompts(tmp_path: Path) -> None:
    files = []
    for name, refused in (("none", 2), ("long", 4)):
        rows = [{key: row[key] for key in ("query", "response")} for row in given("", refused)]
        files.append(write_jsonl(tmp_path / f"{name}.jsonl", rows))
    comparison = judge_responses(files, output=tmp_path / "out")
    assert [(x.prompt, x.label, rate(x.refused).count) for x in comparison.rates] == [
        ("none", None, 2),
        ("long", None, 4),
    ]
    assert comparison.differences[0].queries == 10
    assert len(list((tmp_path / "out/measurements").glob("*.jsonl"))) == 2


def test_responses_alone_give_one_rate(tmp_path: Path) -> None:
    rows = [{"response": REFUSAL}] * 3 + [{"response": ANSWER}]
    comparison = judge_responses([write_csv(tmp_path / "r.csv", rows)], output=tmp_path / "out")
    (rates,) = comparison.rates
    refused = rate(rates.refused)
    assert (rates.prompt, rates.label, refused.count, refused.queries) == ("r", None, 3, 4)
    assert comparison.differences == ()


def test_several_responses_to_a_query_are_its_samples(tmp_path: Path) -> None:
    rows = given("none", 0) + given("none", 5) + given("none", 2)
    comparison = judge_responses([write_csv(tmp_path / "r.csv", rows)], output=tmp_path / "out")
    rates = comparison.find("none")
    assert (rate(rates.refused).queries, rates.responses) == (10, 30)
    assert rate(rates.refused).count == pytest.approx(7 / 3)
    assert rate(rates.refused_any).count == 5
    assert rate(rates.complied_any).count == 10


@pytest.mark.parametrize("samples", [1, 2])
def test_wrong_is_at_least_once_only_where_there_are_several_responses(
    samples: int, tmp_path: Path
) -> None:
    rows = [dict(row, end="stop") for row in given("none", 2) * samples]
    rows[-1].update(response="", end="content_filter")  # no verdict on it
    file = write_jsonl(tmp_path / "r.jsonl", rows)
    out = done(demur("evaluate", "--responses", file, "--output", tmp_path / "out"))
    comparison = Comparison.load(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    title = "wrong at least once" if samples > 1 else "wrong"
    (heading,) = re.findall(r"^   prompt .*", out, re.MULTILINE)
    assert heading.split()[-1] == ("once" if samples > 1 else "wrong")
    assert str(comparison).splitlines()[0].endswith(f"  {title}")
    assert f">{title}</th>" in comparison._repr_html_()
    assert re.search(f"<th[^>]*>{title}</th>", page)
    for text in (out, str(comparison), page):
        assert ("least once" in " ".join(text.split())) == (samples > 1)
    assert "wrong: a harmful query answered" in out


def test_what_is_left_out_is_explained_where_something_is(tmp_path: Path) -> None:
    rows = [dict(row, end="stop") for row in given("none", 2)]
    for end in ("stop", "content_filter"):
        rows[-1].update(response=ANSWER if end == "stop" else "", end=end)
        file = write_jsonl(tmp_path / "r.jsonl", rows)
        page = write_report(judge_responses([file], output=tmp_path / end)).read_text("utf-8")
        assert ("Left out: responses" in page) == (end != "stop")


def test_what_demur_wrote_can_be_judged_again(tmp_path: Path) -> None:
    rows = given("none", 3, set="mine") + given("long", 3, set="yours")
    file = write_csv(tmp_path / "r.csv", rows)
    first = judge_responses([file], output=tmp_path / "out")
    (stored,) = (tmp_path / "out/measurements").glob("*.jsonl")
    again = judge_responses([stored], output=tmp_path / "again")
    assert again.rates == first.rates
    assert first.find("none").set == "mine"


def test_byte_order_marks_blank_lines_and_other_columns_do_no_harm(tmp_path: Path) -> None:
    table = tmp_path / "r.csv"
    table.write_bytes(b'\xef\xbb\xbfid, response \r\n1,"a\r\n""b"" \xc3\xa9"\r\n\r\n2,c\r\n')
    lines = tmp_path / "s.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"response": "a", "n": 3, "label": null}\n\n{"response": "b"}')
    comparison = judge_responses([table, lines], output=tmp_path / "out")
    assert [(rates.prompt, rates.responses) for rates in comparison.rates] == [("r", 2), ("s", 2)]
    assert next(comparison.responses()).response == 'a\r\n"b" é'


def test_large_responses_of_either_kind(tmp_path: Path) -> None:
    large = REFUSAL + " Words and\nlines. é" * 550_000
    assert len(large.encode()) > 10_000_000
    files = [
        write_csv(tmp_path / "r.csv", [{"response": large}]),
        write_jsonl(tmp_path / "s.jsonl", [{"response": large}]),
    ]
    limit = csv.field_size_limit()
    comparison = judge_responses(files, judge="paper", output=tmp_path / "out")
    assert [rate(rates.refused).count for rates in comparison.rates] == [1, 1]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"query,answer\nq,a\n", r"no column 'response': its columns are 'query', 'ans"),
        ("r.csv", b"", "holds no responses"),
        ("r.csv", b"response\n", "holds no responses"),
        ("r.csv", b"response,query\na,q\n  ,q\n", r"line 3: the response is blank"),
        ("r.csv", b"response,query\na,\n", r"line 2: the query is blank"),
        ("r.csv", b"query,response\nq,a\nq\n", r"line 3 has 1 cell and the header 2"),
        ("r.csv", b"response,response\na,b\n", "more than one column 'response'"),
        ("r.csv", b'response\n"open\n', "line 2 opens a quote that is never closed"),
        ("r.csv", b"response,label\na,bad\n", r"line 2 has the label 'bad': give harmful or harml"),
        ("r.csv", b"response\na\n\xff\n", r"not UTF-8 text \(line 3\)"),
        ("r.jsonl", b'{"response": "a"}\n{"query": "q"}\n', r"line 2 has no column 'response'"),
        ("r.jsonl", b'{"response": "a"}\n{"response": ""}\n', r"line 2: the response is blank"),
        ("r.jsonl", b'{"response": 3}\n', r"line 1: 'response' is not text but int"),
        ("r.jsonl", b'{"response": null}\n', r"line 1: 'response' is empty \(null\)"),
        ("r.csv", "response\na\n".encode("utf-16-le"), r"line 1 holds a NUL .* save it as UTF-8"),
        ("r.csv", b"\xef\xbb\xbf", "holds no responses"),
        ("r.jsonl", b'{"response": "\\ud800"}\n', "lone surrogate"),
        ("r.jsonl", b'{"response": "a", "category": ["b"]}\n', "'category' is not text but list"),
        ("r.jsonl", b"[1]\n", "item 1 is not a JSON object"),
        ("r.jsonl", b"{\n", "line 1 is not valid JSON"),
        ("r.jsonl", b"[" * 100_000, "is not valid JSON"),
        ("r.jsonl", b"", "holds no responses"),
        ("r.jsonl", b'{"response": "\xff"}\n', r"not UTF-8 text \(line 1\)"),
        ("r.txt", b"a", "give one that ends in .csv, .tsv, .jsonl, "),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DemurError, match=message) as caught:
        judge_responses([tmp_path / name], output=tmp_path / "out/here")
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_other_mistakes(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "r.csv", given("none", 3))
    out = tmp_path / "out"
    with pytest.raises(DemurError, match="There is no file"):
        judge_responses([tmp_path / "missing.csv"], output=out)
    with pytest.raises(DemurError, match="There is no file"):
        judge_responses([tmp_path / ("x" * 5000 + ".csv")], output=out)
    with pytest.raises(DemurError, match="Two files of responses are called 'r'"):
        judge_responses([file, tmp_path / "." / "r.csv"], output=out)
    with pytest.raises(DemurError, match="There are no responses to judge"):
        judge_responses([], output=out)
    with pytest.raises(DemurError, match="no refusal judge 'jury'"):
        judge_responses([file], judge="jury", output=out)
    many = write_csv(tmp_path / "m.csv", given("x", 0, 60))
    write_csv(many, [{**row, "prompt": f"p{row['query']}"} for row in given("x", 0, 60)])
    with pytest.raises(DemurError, match=r"more than 50 safety prompts.*call it 'query'"):
        judge_responses([many], output=out)
    assert not out.exists()


def test_nothing_is_judged_twice_and_other_content_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write_csv(tmp_path / "r.csv", given("none", 3)), tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    first = judge_responses([file], output=out)
    with monkeypatch.context() as patch:
        patch.setattr(DefaultRefusalJudge, "refuses", None)
        assert judge_responses([file], output=out) == first
    with pytest.raises(DemurError, match="another judge"):
        judge_responses([file], judge="paper", output=out)
    write_csv(tmp_path / "r.csv", given("none", 4))
    with pytest.raises(DemurError, match=r"another answerer.*choose another --output"):
        judge_responses([file], output=out)
    (out / "results.json").unlink()
    write_csv(tmp_path / "r.csv", given("none", 3))
    assert judge_responses([file], output=out) == first  # counted again
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(DemurError, match="holds something else"):
        judge_responses([file], output=mine)
    assert (mine / "thesis.txt").read_text() == "precious"


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = write_csv(tmp_path / "r.csv", given("none", 3)), tmp_path / "out"
    whole = judge_responses([file], output=tmp_path / "whole")

    def full(file: int) -> None:
        if any((out / "measurements").glob("*.journal")):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DemurError, match="No space is left"):
            judge_responses([file], output=out)
    assert judge_responses([file], output=out).rates == whole.rates


def test_a_file_that_changes_meanwhile_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "r.csv", given("none", 3))
    describe = ResponseFiles.describe

    def changed(self: ResponseFiles, progress: Progress) -> Any:
        record = describe(self, progress)
        write_csv(file, given("none", 4))
        return record

    monkeypatch.setattr(ResponseFiles, "describe", changed)
    with pytest.raises(DemurError, match="was changed while it was read"):
        judge_responses([file], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"prompts": ["long"]}, {"harmful": "held-out"}, {"samples": 3}, {"tokens": 5}]
)
def test_responses_are_judged_as_they_are(tmp_path: Path, options: dict[str, Any]) -> None:
    file = write_csv(tmp_path / "r.csv", given("none", 3))
    with pytest.raises(DemurError, match=f"judged as they are: leave out {next(iter(options))}"):
        judge_responses([file], output=tmp_path / "out", **options)


def test_conditions_are_told_apart_by_fingerprint_before_name(tmp_path: Path) -> None:
    def rows(name: str, refused: int, condition: str | None) -> list[dict[str, Any]]:
        more = {} if condition is None else {"condition": condition}
        return [{**row, **more} for row in given(name, refused)]

    def of_others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "query": f"another {row['query']}"} for row in rows]

    first, second = "a" * 64, "b" * 64
    files = [
        write_jsonl(tmp_path / "1.jsonl", rows("long", 1, first)),
        write_jsonl(tmp_path / "2.jsonl", rows("long", 2, second)),
        write_jsonl(tmp_path / "3.jsonl", of_others(rows("renamed", 3, first))),
        write_jsonl(tmp_path / "4.jsonl", rows("mine", 4, None)),
        write_jsonl(tmp_path / "5.jsonl", of_others(rows("mine", 6, "not a fingerprint"))),
    ]
    comparison = judge_responses(files, output=tmp_path / "out")
    found = [
        (each.prompt, each.condition, each.responses, rate(each.refused).count)
        for each in comparison.rates
        if each.category is None
    ]
    assert found == [
        ("long", first, 20, 4),
        ("long (2)", second, 10, 2),
        ("mine", None, 20, 10),
    ]
    assert [(each.first, each.second) for each in comparison.differences] == [
        ("long", "long (2)"),
        ("long", "mine"),
        ("long (2)", "mine"),
    ]


@pytest.mark.parametrize("known", ["name", "condition", "no query"])
def test_two_evaluations_with_one_prompt_are_never_pooled(tmp_path: Path, known: str) -> None:
    more = {"condition": "a" * 64} if known == "condition" else {}
    rows = [{**row, **more} for row in given("long", 1)]
    if known == "no query":
        rows = [{"safety_prompt": row["prompt"], "response": row["response"]} for row in rows]
    files = [write_jsonl(tmp_path / f"{name}.jsonl", rows) for name in ("june", "july")]
    with pytest.raises(DemurError, match=r"june\.jsonl and july\.jsonl both hold") as raised:
        judge_responses(files, output=tmp_path / "out")
    assert "demur compare" in str(raised.value)
    assert not (tmp_path / "out").exists()
    both = write_jsonl(tmp_path / "samples.jsonl", [*rows, *rows])
    (rates,) = [
        one
        for one in judge_responses([both], output=tmp_path / "both").rates
        if one.category is None
    ]
    assert rates.responses == 20


class EveryThird:
    """Unsafe, safe, no verdict in turn."""

    name = "every third"
    fingerprint = "every third"
    needs_query = True

    def __init__(self) -> None:
        self.asked = 0

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        verdicts: list[Decision] = [
            (True, False, None)[(self.asked + place) % 3] for place in range(len(queries))
        ]
        self.asked += len(queries)
        return verdicts


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_model_that_said_nothing_gave_no_answer(tmp_path: Path, ending: str) -> None:
    """As in an evaluation's own responses, which can be judged again."""
    write = write_csv if ending == "csv" else write_jsonl
    rows = [
        {"query": "q0", "label": "harmful", "response": "", "end": "stop"},
        {"query": "q1", "label": "harmful", "response": REFUSAL, "end": "stop"},
    ]
    file, judge = write(tmp_path / f"r.{ending}", rows), EveryThird()
    comparison = judge_responses([file], harm_judge=judge, output=tmp_path / "out")
    assert (rate(comparison.find("r").refused).value, comparison.find("r").no_answer) == (1.0, 1)
    assert judge.asked == 0
    (stored,) = (tmp_path / "out/measurements").glob("*.jsonl")
    again = judge_responses([stored], judge="paper", output=tmp_path / "again")
    assert (rate(again.find("r").refused).value, again.find("r").no_answer) == (1.0, 1)


def test_harm_is_judged_in_files_too(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "r.csv", given("none", 4))
    judge = EveryThird()
    comparison = judge_responses([file], harm_judge=judge, output=tmp_path / "out")
    assert judge.asked == 6
    rates = comparison.find("none")
    assert rates.complied_harmfully is not None
    # Two unsafe and two safe of six answers; the two without a verdict are left out.
    assert (rates.complied_harmfully.count, rates.complied_harmfully.queries) == (2, 8)
    assert rates.no_harm_verdict == 2
    unknown = write_csv(tmp_path / "u.csv", [{"response": ANSWER, "label": "harmful"}])
    with pytest.raises(DemurError, match=r"'every third' needs the query .*: add a column 'query'"):
        judge_responses([unknown], harm_judge=judge, output=tmp_path / "other")


def harmful_answers(path: Path, rows: int) -> Path:
    return write_csv(
        path,
        [{"query": f"q{row}", "label": "harmful", "response": ANSWER} for row in range(rows)],
    )


def test_verdicts_on_harm_outlive_an_endpoint_that_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GoesAway(EveryThird):
        def judge(self, queries: Sequence[str | None], *rest: Any) -> list[Decision]:
            if self.asked + len(queries) > 25:
                raise DemurError("the endpoint cannot be reached")
            return super().judge(queries, *rest)

    monkeypatch.setattr("demur.evaluation.answerers.files.ROWS_AT_ONCE", 10)
    file, out = harmful_answers(tmp_path / "r.csv", 45), tmp_path / "out"
    whole = judge_responses([file], harm_judge=EveryThird(), output=tmp_path / "whole")
    first, second = GoesAway(), EveryThird()
    with pytest.raises(DemurError, match="cannot be reached"):
        judge_responses([file], harm_judge=first, output=out)
    assert not (out / "results.json").exists()
    second.asked = first.asked  # goes on in its turn
    comparison = judge_responses([file], harm_judge=second, output=out)
    assert (first.asked, second.asked) == (20, 45)
    assert comparison.rates == whole.rates
    assert content(out) == content(tmp_path / "whole")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "r.csv", "whole"]


def test_few_verdicts_are_lost_with_an_endpoint_that_goes_away(tmp_path: Path) -> None:
    class GoesAway(EveryThird):
        def judge(self, queries: Sequence[str | None], *rest: Any) -> list[Decision]:
            if self.asked + len(queries) > 230:
                raise DemurError("the endpoint cannot be reached")
            return super().judge(queries, *rest)

    file, out = harmful_answers(tmp_path / "r.csv", 300), tmp_path / "out"
    first, second = GoesAway(), EveryThird()
    with pytest.raises(DemurError, match="cannot be reached"):
        judge_responses([file], harm_judge=first, output=out)
    assert first.asked >= 230 - 64
    judge_responses([file], harm_judge=second, output=out)
    assert first.asked + second.asked == 300


def test_kept_verdicts_belong_to_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(EveryThird):
        def judge(self, *rest: Any) -> list[Decision]:
            if self.asked:
                raise KeyboardInterrupt
            return super().judge(*rest)

    monkeypatch.setattr("demur.evaluation.answerers.files.ROWS_AT_ONCE", 10)
    file, out = harmful_answers(tmp_path / "r.csv", 15), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        judge_responses([file], harm_judge=Interrupted(), output=out)
    with pytest.raises(DemurError, match=r"out belongs to an evaluation with another judge"):
        judge_responses([file], judge="paper", harm_judge=EveryThird(), output=out)
    (kept,) = (out / "measurements").glob("*.jsonl")
    kept.write_text("{}\n")
    with pytest.raises(DemurError, match=r"jsonl is damaged .*: delete \S+journal and run"):
        judge_responses([file], harm_judge=EveryThird(), output=out)


def test_a_harm_judge_must_give_a_verdict_each(tmp_path: Path) -> None:
    class Silent(EveryThird):
        def judge(self, *_: Any) -> list[Decision]:
            return []

    file = write_csv(tmp_path / "r.csv", given("none", 4))
    with pytest.raises(DemurError, match="0 verdicts on 6 responses"):
        judge_responses([file], harm_judge=Silent(), output=tmp_path / "out")
