"""What comes out of a study: rows, means, intervals, tests, ranks, files and pages."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
from collections.abc import Mapping
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pytest

from demur import Comparison, DemurError, FinishedStudy
from demur.chat import chosen
from demur.evaluation.costs import Cost
from demur.evaluation.statistics import holm, sign_flip_p_value
from demur.records import Interval, JudgedResponse, Label, Rate
from demur.study import formats
from demur.study.bootstrap import Bootstrap
from demur.study.drawing import figures_of
from demur.study.export import sinks
from demur.study.record import UNTRAINED, Cell, MethodOf
from demur.study.rows import Arm, Response, row_of
from demur.study.table import Counter, StudyTable
from tests.command_line import demur, done, mistake
from tests.tiny_study import write_study

NONE, LONG = Arm("none", UNTRAINED), Arm("long", UNTRAINED)
DRO, VPT = Arm("long", "dro"), Arm("long", "vpt")
ARMS = (NONE, LONG, DRO, VPT)
LABELS: tuple[Label, ...] = ("harmful", "harmless")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished study, whose folder `done` lies beside it."""
    file = write_study(tmp_path_factory.mktemp("study"))
    done(demur("study", file, "--output", file.parent / "done"))
    return file


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return shutil.copytree(made.parent / "done", tmp_path / "done")


def response(query: str, label: Label, refused: bool | None, **more: Any) -> JudgedResponse:
    """A judged response."""
    given: dict[str, Any] = {"set": "mine", "response": "w1", "end": "stop", **more}
    return JudgedResponse(
        prompt="x",
        condition=None,
        label=label,
        category=None,
        query=query,
        refused=refused,
        **given,
    )


def table_of(refused: dict[tuple[str, Arm], dict[Label, list[str]]]) -> StudyTable:
    """A table of models and arms: for each seed a text with `1` for a query that is refused."""
    counter = Counter(tuple(dict.fromkeys(model for model, _ in refused)), ARMS)
    for (model, arm), by_label in refused.items():
        for label, seeds in by_label.items():
            for seed, text in enumerate(seeds):
                for number, one in enumerate(text):
                    judged = response(f"{label} {number}", label, one == "1")
                    counter.add(model, arm, seed, judged)
    return counter.table()


# Statistics.


def test_the_sign_flip_test_is_exact_for_several_samples() -> None:
    differences = [0.2, -0.4, 0.6, 0.2, 0.8, 0.4, -0.2, 1.0, 0.4]
    sums = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    exact = sum(one >= abs(sum(differences)) - 1e-9 for one in sums) / len(sums)
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=1e-12)


def test_the_interval_covers_what_seeds_and_queries_vary() -> None:
    draws = numpy.random.default_rng(3)
    covered = 0
    for _ in range(200):
        of_seeds, of_queries = draws.normal(0, 0.3, (6, 1)), draws.normal(0, 1, (1, 50))
        interval = Bootstrap(draws=400).interval(of_seeds + of_queries)
        covered += interval.low <= 0 <= interval.high
    assert 165 <= covered <= 200, "of 200 intervals of 95 %, somewhat fewer with six seeds"


def test_seeds_that_differ_widen_the_interval() -> None:
    queries = numpy.tile([0.0, 1.0], 50)
    same = numpy.stack([queries, queries])
    apart = numpy.stack([queries, numpy.ones(100)])
    first, second = Bootstrap().interval(same), Bootstrap().interval(apart)
    assert second.high - second.low > 1.5 * (first.high - first.low)
    single = Bootstrap().interval(queries[None])
    assert single == first, "seeds that agree say as much as one"


def test_rates_at_the_end_have_an_interval_all_the_same() -> None:
    assert Bootstrap().of_rates(numpy.zeros((2, 10))).high == pytest.approx(0.278, abs=1e-3)
    assert Bootstrap().of_rates(numpy.ones((2, 10))).low == pytest.approx(0.722, abs=1e-3)


def test_the_same_numbers_give_the_same_interval_whatever_came_before() -> None:
    values = numpy.random.default_rng(0).random((3, 20))
    busy = Bootstrap()
    busy.interval(numpy.ones((5, 7)))
    assert busy.interval(values) == Bootstrap().interval(values)


def test_missing_values_are_left_out() -> None:
    values = numpy.array([[1.0, numpy.nan, 0.0, 1.0], [1.0, 1.0, numpy.nan, 1.0]])
    interval = Bootstrap().interval(values)
    assert 0 <= interval.low < 5 / 6 < interval.high <= 1


# Means, tests and ranks.


@pytest.fixture(scope="module")
def table() -> StudyTable:
    return table_of(
        {
            ("m", NONE): {"harmful": ["0" * 12, "0" * 12], "harmless": ["0" * 12, "0" * 12]},
            ("m", LONG): {
                "harmful": ["0" * 10 + "11", "0" * 12],
                "harmless": ["1" + "0" * 11, "0" * 12],
            },
            ("m", DRO): {"harmful": ["1" * 12, "1" * 12], "harmless": ["1" + "0" * 11, "0" * 12]},
            ("m", VPT): {"harmful": ["1" * 12, "0" * 12], "harmless": ["1" * 12, "0" * 12]},
        }
    )


def test_means_are_over_seeds_and_queries(table: StudyTable) -> None:
    one = table.find("m", LONG, ("mine", "harmful"))
    assert one is not None
    assert one.mean == pytest.approx(2 / 24)
    assert (one.seeds, one.queries) == (2, 12)
    assert isinstance(one.interval, Interval)
    assert one.interval.low <= one.mean <= one.interval.high
    trained = table.find("m", VPT, ("mine", "harmful"))
    assert trained is not None
    assert (trained.interval.low, trained.interval.high) == (0, 1), "one seed of two"


def test_tests_pair_what_a_reader_asks_about(table: StudyTable) -> None:
    harmful = [one for one in table.tests if one.label == "harmful"]
    assert [(one.first, one.second) for one in harmful] == [
        (NONE, LONG),
        (LONG, DRO),
        (LONG, VPT),
        (DRO, VPT),
    ]
    test = table.test("m", ("mine", "harmful"), LONG, DRO)
    assert test is not None
    expected = [1.0] * 10 + [0.5] * 2
    assert test.difference == pytest.approx(sum(expected) / 12)
    assert test.p_value == pytest.approx(sign_flip_p_value(expected))
    assert test.more_than_chance


def test_p_values_are_corrected_across_the_grid(table: StudyTable) -> None:
    assert len(table.tests) == 8
    adjusted = holm([one.p_value for one in table.tests])
    assert [one.adjusted_p_value for one in table.tests] == adjusted


def test_ranks_are_means_over_labels(table: StudyTable) -> None:
    by_arm = {one.arm: one for one in table.ranks}
    assert (by_arm[DRO].harmful, by_arm[DRO].harmless, by_arm[DRO].mean) == (1, 2.5, 1.75)
    assert (by_arm[NONE].harmful, by_arm[NONE].harmless) == (4, 1)
    assert table.ranks[0].arm == DRO


def test_harm_and_deflections_have_figures_of_their_own() -> None:
    counter = Counter(("m",), ARMS)
    for number in range(6):
        more: dict[str, Any] = {"harm": "unsafe" if number < 2 else "safe"}
        judged = response(f"q{number}", "harmful", number == 5, deflected=number == 4, **more)
        counter.add("m", NONE, 0, judged)
    found = {one.measure: one.mean for one in counter.table().figures}
    assert found == {
        "refused": pytest.approx(1 / 6),
        "answered": pytest.approx(4 / 6),
        "complied harmfully": pytest.approx(2 / 6),
        "wrong at least once": pytest.approx(4 / 6),
    }


def test_responses_without_a_verdict_are_left_out() -> None:
    counter = Counter(("m",), ARMS)
    for refused in (True, None):
        counter.add("m", NONE, 0, response("q", "harmful", refused))
    counter.add("m", NONE, 0, response("r", "harmful", None))
    (figure,) = counter.table().figures  # whether a response is wrong is known of no query
    assert (figure.measure, figure.mean, figure.queries) == ("refused", 1.0, 2)


def cost(nats: float) -> Cost:
    return Cost("x", "0" * 16, "mine", 8, nats, None, Rate(0.0, 8, Interval(0.0, 0.3, 0.95)))


def costed(nats: dict[Arm, list[float]]) -> StudyTable:
    """A table of one model with what its arms cost under each seed, in nats."""
    counter = Counter(("m",), ARMS)
    for arm, seeds in nats.items():
        counter.add("m", arm, 0, response("q", "harmful", True))
        for seed, one in enumerate(seeds):
            counter.add_cost("m", arm, seed, cost(one))
    return counter.table()


def test_costs_are_means_over_seeds_with_their_span() -> None:
    table = costed({NONE: [0.0, 0.0], LONG: [0.1, 0.1], DRO: [0.2, 0.6]})
    assert [one.arm for one in table.costs] == [LONG, DRO], "no prompt costs nothing"
    trained = table.costs[1]
    assert (trained.set, trained.seeds, trained.queries) == ("mine", 2, 8)
    assert (trained.mean, trained.low, trained.high) == pytest.approx((0.4, 0.2, 0.6))
    assert r"| m | long | dro | 0.40 \(0.20 to 0.60\) |" in formats.markdown(table)
    assert r"0.40 {\scriptsize [0.20, 0.60]} \\" in formats.latex(table)
    assert "with the least and the greatest of them" in formats.markdown(table)
    rows = formats.costs_csv(table).decode().splitlines()
    assert rows[0] == "model,prompt,method,set,mean,low,high,seeds,queries"
    assert rows[2].startswith("m,long,dro,mine,0.4")
    single = costed({LONG: [0.1]})
    assert "| m | long |  | 0.10 |" in formats.markdown(single)
    assert r"long &  & 0.10 \\" in formats.latex(single)
    assert "greatest" not in formats.markdown(single)


def test_where_no_costs_were_measured_there_is_no_table_of_them() -> None:
    assert "Cost" not in formats.markdown(costed({LONG: []}))


# Formats.


def test_latex_is_escaped_and_marks_what_differs() -> None:
    table = table_of(
        {
            ("a_b%", NONE): {"harmful": ["0" * 12]},
            ("a_b%", LONG): {"harmful": ["1" * 12]},
        }
    )
    text = formats.latex(table)
    assert r"\begin{tabular}{llr}" in text
    assert r"100.0$^{*}$ {\scriptsize [75.8, 100.0]} \\" in text
    assert r"\bottomrule" in text
    several = formats.latex(
        table_of({("a_b%", NONE): {"harmful": ["01"]}, ("c", NONE): {"harmful": ["01"]}})
    )
    assert r"\multicolumn{3}{l}{\textit{a\_b\%}} \\" in several
    body = re.sub(r"\\.", "", text)
    assert not set(body) & set("_#&~") - set("&")


def test_means_of_fewer_seeds_are_told() -> None:
    whole: dict[tuple[str, Arm], dict[Label, list[str]]] = {
        ("m|x", arm): {"harmful": ["01", "11"]} for arm in (NONE, LONG)
    }
    assert "fewer" not in formats.markdown(table_of(whole))
    whole["m|x", LONG] = {"harmful": ["01"]}
    table = table_of(whole)
    assert r"Of fewer seeds: m\|x, long: 1 of 2." in formats.markdown(table)
    assert "Of fewer seeds: m|x, long: 1 of 2." in formats.latex(table)


def test_markdown_holds_no_markup_of_names() -> None:
    table = table_of({("<b>|x", NONE): {"harmful": ["01"]}})
    text = formats.markdown(table)
    assert "<b>" not in text
    assert "| prompt | method |" in text


def test_captions_say_whether_seeds_varied() -> None:
    one = formats.markdown(table_of({("m", NONE): {"harmful": ["01"]}}))
    assert "bootstrap intervals over the queries: they say nothing about other seeds." in one
    assert "over both" not in one
    two = formats.markdown(table_of({("m", NONE): {"harmful": ["01", "11"]}}))
    assert "Means over seeds and queries with 95 % bootstrap intervals over both." in two


def test_tests_are_counted_by_measure() -> None:
    counter = Counter(("m",), ARMS)
    for number in range(12):
        for arm in (NONE, LONG, DRO):
            judged = response(f"q{number}", "harmful", arm == DRO, harm="safe")
            counter.add("m", arm, 0, judged)
    table = counter.table()
    text = formats.markdown(table)
    told = "1 of 2 tests of 'refused', 0 of 2 tests of 'complied harmfully'"
    assert formats.chance_counts(table) == told
    assert f"### Differences more than chance: {told}" in text
    assert text.count("Holm's correction for all 2 tests of this measure.") == 2
    alone = table_of({("m", NONE): {"harmful": ["01"]}, ("m", LONG): {"harmful": ["11"]}})
    assert formats.chance_counts(alone) == "0 of 1 tests"


def test_stars_name_what_they_are_against() -> None:
    results: dict[tuple[str, Arm], dict[Label, list[str]]] = {
        ("m", arm): {"harmful": ["01"]} for arm in (NONE, LONG)
    }
    assert "differs from its basic prompt" in formats.latex(table_of(results))
    counter = Counter(("m",), (NONE, LONG))  # a study that trains nothing
    for arm in (NONE, LONG):
        counter.add("m", arm, 0, response("q", "harmful", True))
    text = formats.latex(counter.table())
    assert "A star: differs from no prompt by more than chance" in text
    assert "basic" not in text


def test_where_ranks_are_left_out_the_prompts_are_named(table: StudyTable) -> None:
    assert formats.rank_note(table) == ""
    results: dict[tuple[str, Arm], dict[Label, list[str]]] = {
        (model, arm): {"harmful": ["01"]} for model in ("m", "n") for arm in ARMS
    }
    del results["n", VPT]
    some = table_of(results)
    assert some.ranks
    told = "No ranks where a prompt was not measured, or has no verdict: n (without long + vpt)."
    assert formats.rank_note(some) == told
    del results["m", DRO]
    none = table_of(results)
    assert not none.ranks
    assert "m (without long + dro); n (without long + vpt)." in formats.rank_note(none)
    assert "without long + dro" in formats.markdown(none)


def words_of(drawn: Mapping[str, bytes]) -> str:
    """The words of a figure, which its SVG has as comments."""
    return " ".join(re.findall(r"<!-- (.*?) -->", drawn["svg"].decode()))


def test_figures_name_what_is_there() -> None:
    arms = (NONE, LONG, *(Arm("long", name) for name in ("dro", "dro 2", "vpt", "vpt 2")))
    counter = Counter(("m",), arms)
    for arm in arms:
        for label in LABELS:
            counter.add("m", arm, 0, response(f"{label} q", label, True))
    methods = [MethodOf(arm.method, arm.method[:3]) for arm in arms[2:]]
    drawn = figures_of(counter.table(), methods)
    assert "points from each method's first variant" in words_of(drawn["ablations"])
    assert "basic prompts" in words_of(drawn["trade-off"])
    assert "points from dro" in words_of(figures_of(counter.table(), methods[:2])["ablations"])
    plain = Counter(("m",), (NONE, LONG))
    for arm in (NONE, LONG):
        for label in LABELS:
            plain.add("m", arm, 0, response(f"{label} q", label, True))
    words = words_of(figures_of(plain.table(), ())["trade-off"])
    assert "basic" not in words
    assert "prompts" in words


def test_no_cell_of_a_csv_becomes_a_formula(tmp_path: Path) -> None:
    table = table_of({("=m", NONE): {"harmful": ["01"]}, ("=m", LONG): {"harmful": ["11"]}})
    for made in (formats.figures_csv(table), formats.tests_csv(table)):
        lines = made.decode().splitlines()[1:]
        assert lines
        assert all(line.startswith("'=m,") for line in lines)
    with sinks(tmp_path) as found:
        cell = Cell("evaluation", "m", None, UNTRAINED, 0, "evaluations/m/x", "")
        judged = response("+q", "harmful", True, response="=HYPERLINK(1)")
        for sink in found:
            sink.add(row_of(Response(cell, NONE, judged), 1))
    with (tmp_path / "study.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["query"], row["response"], row["sample"]) == ("'+q", "'=HYPERLINK(1)", "1")


# The folder of a study.


def test_rows_and_means_are_those_of_the_evaluations(folder: Path) -> None:
    study = FinishedStudy.load(folder)
    rows = list(study.rows())
    # Three prompts as they are and two trained ones, of two seeds, 20 queries with two responses.
    assert len(rows) == 5 * 2 * 20 * 2
    assert len({(r.prompt, r.method, r.seed, r.query_id, r.label, r.sample) for r in rows}) == 400
    for method, place in (("dro", "calm-dro-seed"), (UNTRAINED, "untrained-seed")):
        found = [
            Comparison.load(folder / f"evaluations/tiny/{place}-{seed}").find(
                f"{place}-{seed}" if method == "dro" else "calm.txt", label="harmful"
            )
            for seed in (0, 1)
        ]
        rates = [one.refused.value for one in found if one.refused is not None]
        (figure,) = [
            one
            for one in study.table.figures
            if (*one.arm, one.label, one.measure) == ("calm", method, "harmful", "refused")
        ]
        assert figure.mean == pytest.approx(sum(rates) / 2)


def test_the_files_say_the_same(folder: Path) -> None:
    study = FinishedStudy.load(folder)
    with (folder / "study.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 400
    first = next(study.rows())
    assert rows[0]["query_id"] == first.query_id
    assert rows[0]["response"] == first.response
    with (folder / "figures.csv").open(encoding="utf-8", newline="") as stream:
        figures = list(csv.DictReader(stream))
    assert len(figures) == len(study.table.figures) == 5 * 2 * 2
    assert float(figures[0]["mean"]) == study.table.figures[0].mean
    with (folder / "tests.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(study.table.tests) == 10
    with (folder / "costs.csv").open(encoding="utf-8", newline="") as stream:
        costs = list(csv.DictReader(stream))
    assert [(one["prompt"], one["method"]) for one in costs] == [
        *(("calm", UNTRAINED), ("calm", "dro"), ("calm", "steep"), ("brief", UNTRAINED)),
    ]
    measured = [
        Comparison.load(folder / f"evaluations/tiny/calm-dro-seed-{seed}").costs[2].divergence
        for seed in (0, 1)
    ]
    assert float(costs[1]["mean"]) == pytest.approx(sum(measured) / 2)
    for name in ("table.md", "table.tex", "report.html"):
        assert formats.COST_CAPTION in (folder / name).read_text(encoding="utf-8")
    for name in ("rates", "trade-off", "ablations"):
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert b"<svg" in (folder / f"figures/{name}.svg").read_bytes()


def test_everything_is_made_again_without_a_model(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(chosen, "load_chosen", refuse)
    names = [
        *("study.csv", "figures.csv", "tests.csv", "costs.csv", "table.md", "table.tex"),
        *(f"figures/{name}.{kind}" for name in ("rates", "trade-off") for kind in ("pdf", "svg")),
    ]
    before = {name: (folder / name).read_bytes() for name in names}
    page = (folder / "report.html").read_bytes()
    for name in (*names, "report.html", "evaluations/tiny/untrained-seed-0/report.html"):
        (folder / name).unlink()
    shown = done(demur("study", folder, "--report"))
    assert "10 of 10 cells are done" in shown
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert (folder / "report.html").read_bytes() == page
    assert (folder / "evaluations/tiny/untrained-seed-0/report.html").is_file()
    (folder / "table.md").unlink()
    done(demur("study", made, "--output", folder, "--report"))
    assert (folder / "table.md").read_bytes() == before["table.md"]


def test_the_page_leads_to_the_pages_of_all_cells(folder: Path) -> None:
    page = unescape((folder / "report.html").read_text(encoding="utf-8"))
    links = re.findall(r'<a href="([^"]+)">', page)
    assert len(links) == 10
    assert all((folder / link).is_file() for link in links)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count('<img class="drawn" src="data:image/png;base64,') == 3


def test_show_and_report_know_a_study(folder: Path) -> None:
    shown = done(demur("show", folder))
    assert "Best mean rank" in shown
    assert "Judge: paper, 2 responses of 4 tokens." in shown
    (folder / "report.html").unlink()
    assert "report.html" in done(demur("report", folder))
    assert (folder / "report.html").is_file()
    told = mistake(demur("report", folder, "--output", folder / "other.html"))
    assert "give it alone, without --output" in told


def test_damage_is_named(folder: Path) -> None:
    file = next((folder / "evaluations/tiny/untrained-seed-1/measurements").glob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in mistake(demur("study", folder, "--report"))


def test_a_study_that_is_not_finished_says_how_to_go_on(folder: Path) -> None:
    (folder / "results.json").unlink()
    assert "is not finished: run its command again" in mistake(demur("study", folder, "--report"))


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_rows_as_a_data_frame(folder: Path) -> None:
    frame = FinishedStudy.load(folder).to_pandas()
    assert len(frame) == 400
    assert set(frame["method"]) == {UNTRAINED, "dro", "steep"}


@pytest.mark.skipif(find_spec("pandas") is not None, reason="pandas is installed")
def test_without_pandas_the_message_names_the_extra(folder: Path) -> None:
    with pytest.raises(DemurError, match=r"install demur\[study\]"):
        FinishedStudy.load(folder).to_pandas()


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_has_the_rows(folder: Path) -> None:
    from pyarrow import parquet

    FinishedStudy.load(folder).tabulate()
    found = parquet.read_table(folder / "study.parquet").to_pylist()
    with (folder / "study.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [one["query_id"] for one in found] == [one["query_id"] for one in rows]
    assert [str(one["seed"]) for one in found] == [one["seed"] for one in rows]
    assert found[0]["label"] == "harmful"
