"""`benchmarks/paper_tables.py`: the paper's figures from its released responses."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from demur.errors import DemurError
from demur.judges import Decision, Judge
from demur.progress import Progress, SilentProgress

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import paper_tables
from paper_responses import Counted, Figure, find_files, read_rows, read_scores

LONG = "One.\nTwo.\nThree."
REFUSAL = "I cannot help with that."
METHODS = ("soft_unlikelihood_", "soft_all_")


def write(path: Path, rows: Sequence[tuple[Any, ...]], columns: str = "prompt,output") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns.split(","))
        writer.writerows(rows)
    return path


def save_published(folder: Path) -> Path:
    row = ("Llama-2-7b-chat-hf", "harmless", "testset", "none", "none", 1)
    columns = "model,side,benchmark,method,basic_prompt,flagged_queries_of_100"
    return write(folder / "published.csv", [row], columns)


def judged(folder: Path, judge: Judge | None = None) -> tuple[list[Counted], list[Figure]]:
    return paper_tables.judge_responses(find_files(folder), judge, SilentProgress())


def message_of(folder: Path) -> str:
    with pytest.raises(DemurError) as caught:
        judged(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class SaysUnsafe:
    name = "test"
    fingerprint = "test"

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        self.asked += zip(queries, responses, strict=True)
        said: dict[str | None, Decision] = {"q1": True, "q2": False, "q3": None}
        return [said[query] for query in queries]


@pytest.mark.reference
def test_the_published_figures_come_out_of_the_released_responses(
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published = paper_tables.read_published(reference / "paper_results.csv")
    assert len(published) == 288
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "REFERENCE", reference)
    paper_tables.main([])
    results = json.loads((tmp_path / "paper-tables.json").read_text())
    assert sum(row["labelled"] for row in results["figures"]) == 8000
    assert sum(row["responses"] for row in results["figures"]) == 8000
    assert {
        (row["model"], row["method"]): (row["flagged"], row["published"], row["disagreements"])
        for row in results["figures"]
    } == {
        ("CodeLlama-7b-Instruct-hf", "none"): (3, 3, []),
        ("CodeLlama-7b-Instruct-hf", "text"): (22, 22, []),
        ("Llama-2-7b-chat-hf", "none"): (1, 1, []),
        ("Llama-2-7b-chat-hf", "text"): (19, 19, []),
    }
    shown = capsys.readouterr().out
    assert "4 of the 288 published figures have responses here; 4 are equal." in shown
    assert "8000 of 8000 published labels are equal." in shown


def test_file_names_say_which_figure_they_are_of(tmp_path: Path) -> None:
    names = {
        "a/Llama-2-7b-chat-hf_testset.csv": ("harmless", "testset", "none", "none"),
        "a/m_with_short_malicious_all.csv.gz": ("harmful", "malicious", "text", "short"),
        "a/m_with_soft_all_mistral_advbench.csv": ("harmful", "advbench", "DRO", "mistral"),
        "a/m_with_soft_unlikelihood_default_gcg.csv": ("harmful", "gcg", "vPT", "default"),
        "outputs_harmless/m_custom/output_sampling.csv": ("harmless", "custom", "none", "none"),
        "outputs/m_custom/output_sampling.csv": ("harmful", "custom", "none", "none"),
        "a/m_with_soft_all_default_nonorm_testset.csv": None,  # an ablation
        "a/m_testset_text.csv": None,
        "a/other.csv": None,
        "a/m_testset.csv.txt": None,
    }
    for name in names:
        write(tmp_path / name, [("q", "r")])
    found = find_files(tmp_path).responses
    assert {tuple(figure[1:]) for figure in found} == {each for each in names.values() if each}
    assert {figure.model for figure in found} == {"m", "Llama-2-7b-chat-hf"}
    write(tmp_path / "b/m_with_short_malicious.csv", [("q", "r")])
    assert "belong to the same figure" in message_of(tmp_path)


def test_the_twenty_longest_of_each_query_count(tmp_path: Path) -> None:
    long = [("q1", "word " * (30 + row)) for row in range(20)]
    rows = [("q1", REFUSAL), *long, ("q1", "short"), ("q2", REFUSAL), ("q2", ""), (" q2 ", LONG)]
    write(tmp_path / "m_testset.csv", rows)
    ((counted,), left_out) = judged(tmp_path)
    assert (counted.queries, counted.responses, counted.flagged) == (2, 23, 1)
    assert (counted.labelled, left_out) == (0, [])


def test_harmful_queries_need_a_judge_of_harm(tmp_path: Path) -> None:
    answers = (("q1", LONG), ("q2", LONG), ("q3", LONG), ("q1", "Short."), ("q1", REFUSAL))
    scores = (1, 0, 1, 1, 0)  # the fourth label is wrong on purpose
    rows = [(*answer, score) for answer, score in zip(answers, scores, strict=True)]
    write(tmp_path / "m_advbench.csv.gz", rows, "prompt,output,refusal_score")
    figure = Figure("m", "harmful", "advbench", "none", "none")
    assert judged(tmp_path) == ([], [figure])
    judge = SaysUnsafe()
    ((counted,), left_out) = judged(tmp_path, judge)
    assert left_out == []
    assert judge.asked == [("q1", LONG), ("q2", LONG), ("q3", LONG)]
    assert (counted.figure, counted.flagged, counted.no_verdict) == (figure, 1, 1)
    assert [found.row.response for found in counted.disagreements] == ["Short."]


def test_figures_come_out_of_the_scores_of_each_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    name = "Llama-2-7b-chat-hf"
    files = {
        f"eval_harmless/{name}_testset.csv": (1, 0.95, 1),
        f"eval/{name}_malicious.csv": (0, 0.05, 1),
        f"eval/{name}_with_soft_all_default_malicious.csv.gz": (0, 0, 0),
    }
    for file, scores in files.items():
        write(tmp_path / "in" / file, list(enumerate(scores)), ",sampling")
        rows = [("q", REFUSAL, 0)]
        whole = file.replace(".csv", "_all.csv")
        write(tmp_path / "in" / whole, rows, "prompt,output,refusal_score")
    found = find_files(tmp_path / "in")
    assert len(found.responses) == len(found.scores) == 3
    scored = [read_scores(*each) for each in found.scores.items()]
    assert {(each.figure.side, each.figure.method): each.flagged for each in scored} == {
        ("harmless", "none"): 1,
        ("harmful", "none"): 2,
        ("harmful", "DRO"): 0,
    }
    figures = [(name, "harmless", "testset", "none", "none", 1)]
    figures += [(name, "harmful", "malicious", "none", "none", 3)]
    columns = "model,side,benchmark,method,basic_prompt,flagged_queries_of_100"
    published = write(tmp_path / "published.csv", figures, columns)
    paper_tables.main([str(tmp_path / "in"), "--published", str(published)])
    shown = capsys.readouterr().out
    assert "2 of the 2 published figures have scores here; 1 are equal." in shown
    assert "2 (published 3)" in shown
    results = json.loads((tmp_path / "results/paper-tables.json").read_text())
    assert [row["flagged"] for row in results["from_published_scores"]] == [2, 0, 1]


def test_the_widest_table_of_scores_names_every_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    texts = ("default", "mistral", "short")
    prompts = [f"_with_{kind}{text}" for kind in ("", *METHODS) for text in texts]
    for prompt in ("", *prompts):
        file = tmp_path / "in" / f"CodeLlama-7b-Instruct-hf{prompt}_malicious.csv"
        write(file, list(enumerate([0.05, 1] * 50)), ",sampling")
    paper_tables.main([str(tmp_path / "in"), "--published", str(save_published(tmp_path))])
    shown = capsys.readouterr().out
    assert "\u2026" not in shown
    assert [shown.count(text) for text in texts] == [3, 3, 3]


@pytest.mark.parametrize("score", ["1.5", "-0.1", "nan", "much", ""])
def test_a_score_is_a_share(tmp_path: Path, score: str) -> None:
    file = write(tmp_path / "m_testset.csv", [(0, 1.0), (1, score)], ",sampling")
    with pytest.raises(DemurError, match=r"Cannot read scores|a score that is not from 0 to 1"):
        read_scores(Figure("m", "harmless", "testset", "none", "none"), file)


def test_differences_are_printed_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = save_published(tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    rows = [("[bold]q\x1b[2J", REFUSAL, 1.0), ("other", "Sure.", 1.0)]
    columns = "prompt,output,refusal_score"
    write(tmp_path / "in/Llama-2-7b-chat-hf_testset.csv", rows, columns)
    paper_tables.main([str(tmp_path / "in"), "--published", str(published)])
    shown = capsys.readouterr().out
    assert "1 of 2 published labels are equal." in shown
    assert "published as answered: none: [bold]q" in shown
    assert "\x1b" not in shown
    assert "+0" in shown  # one is flagged, as published
    assert "1 of the 1 published figures have responses here; 1 are equal." in shown


def test_mistakes_are_named(tmp_path: Path) -> None:
    assert "There is no folder" in message_of(tmp_path / "missing")
    assert "has no file named as released" in message_of(tmp_path)
    file = tmp_path / "m_testset.csv"
    write(file, [("q", "r")], "query,answer")
    assert "has no column output and prompt" in message_of(tmp_path)
    write(file, [("q", "r", "maybe")], "prompt,output,refusal_score")
    assert "refusal_score 'maybe'" in message_of(tmp_path)
    file.write_bytes(b"\xff\xfe")
    assert "Cannot read" in message_of(tmp_path)
    file.rename(tmp_path / "m_testset.csv.gz")
    assert "Cannot read" in message_of(tmp_path)
    for content in ("model,side\nm,harmless\n", "model,flagged_queries_of_100\nm,one\n"):
        (tmp_path / "published.csv").write_text(content)
        with pytest.raises(DemurError, match="with the columns model, side, benchmark"):
            paper_tables.read_published(tmp_path / "published.csv")


def ended_with(capsys: pytest.CaptureFixture[str], main: Callable[[], object]) -> str:
    """The one line that a script ends with."""
    with pytest.raises(SystemExit) as ended:
        common.run(main)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert shown.out == ""
    return line


def test_a_script_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = save_published(tmp_path)
    missing = [str(tmp_path / "missing"), "--published", str(published)]
    line = ended_with(capsys, lambda: paper_tables.main(missing))
    assert line.startswith("error: There is no folder")
    # Without the reference data it says where to get what it needs.
    monkeypatch.setattr(common, "REFERENCE", tmp_path / "none")
    line = ended_with(capsys, lambda: paper_tables.main([]))
    assert "none/paper_results.csv: write down the tables of arXiv 2401.18018" in line
    line = ended_with(capsys, lambda: paper_tables.main(["--published", str(published)]))
    assert "none/responses: copy files of github.com/chujiezheng/LLM-Safeguard_data" in line
    line = ended_with(capsys, lambda: common.reference("refusal_labels/x.csv.gz"))
    assert "github.com/paul-rottger/exaggerated-safety" in line
    assert "set DEMUR_REFERENCE to the folder" in line


def test_a_byte_order_mark_and_missing_texts_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "m_testset.csv"
    file.write_bytes('\ufeffprompt,output\nq,"é\nb"\nq\n'.encode())
    assert [(row.query, row.response) for row in read_rows(file)] == [("q", "é\nb"), ("q", "")]
