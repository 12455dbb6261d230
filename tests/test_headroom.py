"""Headroom: what a model's states tell, beside what its prompts refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest

from demur import (
    ChatModel,
    Condition,
    DemurError,
    Diagnosis,
    QuerySet,
    diagnose,
    load_query_set,
    optimize,
    write_report,
)
from demur.diagnosis.fitting import choose_fitting
from demur.diagnosis.headroom import Headroom, kinds_of
from demur.diagnosis.settings import ProbeSettings
from demur.diagnosis.verdict import make_verdict
from demur.evaluation.statistics import rate_over_queries, sign_flip_p_value
from demur.geometry import fit_probe, paired_folds
from demur.progress import SilentProgress, Stage
from demur.queries import labelled
from tests.command_line import demur, done, mistake
from tests.interruption import content
from tests.report_pages import read
from tests.tiny import save_tiny_model

SAMPLING: dict[str, Any] = {
    "preset": "quick",
    "samples": 4,
    "tokens_harmful": 4,
    "tokens_harmless": 4,
    "most_anchors": 20,
}
BAD = [f"w{10 + row % 40} w7 w{row} ?" for row in range(20)]
GOOD = [f"w{10 + row % 40} w8 w{row} ?" for row in range(20)]
OTHER_BAD = [f"w{20 + row % 30} w7 w{row} w{2 * row} ?" for row in range(30)]
OTHER_GOOD = [f"w{20 + row % 30} w8 w{row} w{2 * row} ?" for row in range(30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Queries that the tiny model can tell apart, and others to fit a probe to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("demur.diagnosis.work.draw_figures", lambda *_: ())
    Path("basic.txt").write_text("w1 w2 w3 w4 w5 .")
    for name, texts in (
        *(("bad", BAD), ("good", GOOD)),
        *(("other-bad", OTHER_BAD), ("other-good", OTHER_GOOD)),
    ):
        Path(f"{name}.txt").write_text("\n".join(texts))
    return {
        "harmful": "bad.txt",
        "harmless": "good.txt",
        "probe_harmful": "other-bad.txt",
        "probe_harmless": "other-good.txt",
        **SAMPLING,
    }


PROMPTS: dict[str, Any] = {"prompts": ["basic.txt"]}


class Listening(SilentProgress):
    """Keeps messages and the names of stages."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.stages: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        self.stages.append((description, total))
        with super().stage(description, total, unit) as stage:
            yield stage

    def message(self, text: str) -> None:
        self.messages.append(text)


def headroom_of(diagnosis: Diagnosis) -> Headroom:
    assert diagnosis.sheet.headroom is not None
    return diagnosis.sheet.headroom


def test_the_numbers_are_those_of_a_probe_on_other_queries(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    listening = Listening()
    diagnosis = diagnose(model, **arguments, **PROMPTS, output="d", progress=listening)
    found = headroom_of(diagnosis)
    assert ("Fitting the probe", 2) in listening.stages
    assert ("Reading every layer: queries of the probe", 60) in listening.stages
    fitted, harmful = (
        model.represent_layers([*OTHER_BAD, *OTHER_GOOD]),
        (True,) * 30 + (False,) * 30,
    )
    states = model.represent_layers([*BAD, *GOOD])
    assert fitted is not None
    assert states is not None
    probe = fit_probe(fitted, harmful, paired_folds(harmful, 5))
    scores = probe.scores(states)
    assert (found.layer, found.penalty, found.fitted) == (probe.layer, probe.penalty, 60)
    assert found.queries == "anchors"
    assert found.fitted_auc == pytest.approx(probe.auc, abs=1e-6)
    above = (scores[:20, None] > scores[None, 20:]).mean()
    assert found.auc == pytest.approx(above, abs=1e-6)
    assert found.auc > 0.9  # w7 against w8
    assert found.found_at_2.value == (scores[:20] > scores[20:].max()).mean()  # 2 % of 20 is none
    assert found.found_at_5.value == (scores[:20] > numpy.sort(scores[20:])[-2]).mean()
    assert [(one.kind, one.wrong.count) for one in found.mistakes] == [
        ("harmful", (scores[:20] <= 0).sum()),
        ("harmless", (scores[20:] > 0).sum()),
    ]

    assert [one.condition for one in found.conditions] == ["none", "basic.txt"]
    for one, measured in zip(found.conditions, diagnosis.anchors(), strict=True):
        rates = numpy.array(measured.refusal_rates())
        sheet = diagnosis.sheet.conditions[measured.name != "none"]
        assert (one.harmful_refused, one.harmless_refused) == (
            sheet.harmful_refused,
            sheet.harmless_refused,
        )
        pairs = rates[:20, None] - rates[None, 20:]
        assert one.auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        passing = int(rates[20:].sum() + 1e-9)
        finds = scores[:20] > numpy.sort(scores[20:])[::-1][passing]
        assert one.states_find.value == finds.mean()
        assert one.p_value == sign_flip_p_value((finds - rates[:20]).tolist())
        assert one.room == pytest.approx(finds.mean() - rates[:20].mean())
        assert [each.wrong.value for each in one.mistakes] == pytest.approx(
            [1 - rates[:20].mean(), rates[20:].mean()]
        )
    assert headroom_of(Diagnosis.load("d")) == found
    assert "a linear probe, fitted to 60 other queries" in diagnosis.verdict[-1]
    assert not list(Path("d").glob("layers/*"))


def test_the_built_in_queries_are_fitted_to_by_default(arguments: dict[str, Any]) -> None:
    fitting = choose_fitting(ProbeSettings(), [])
    assert fitting is not None
    assert len(fitting.queries) == 400
    assert sum(fitting.queries.harmful) == 200
    kinds = kinds_of(fitting.queries)
    assert [kinds.count(kind) for kind in ("harmful", "borderline", "ordinary")] == [200, 100, 100]
    fewer = choose_fitting(ProbeSettings(probe_queries=41), [])
    assert fewer is not None
    assert len(fewer.queries) == 41


def test_a_part_of_a_set_is_spread_over_it() -> None:
    settings = ProbeSettings(probe_harmless=("training:borderline",), probe_queries=200)
    fitting = choose_fitting(settings, [])
    assert fitting is not None
    harmful, harmless = fitting.queries.texts[:100], fitting.queries.texts[100:]
    place = {query: row for row, query in enumerate(load_query_set("training", "harmful").texts)}
    rows = sorted(place[query] for query in harmful)
    gaps = [after - before for before, after in pairwise(rows)]
    assert rows[0] < 10
    assert rows[-1] > len(place) - 20
    assert max(gaps) <= 3 * len(place) / 100
    # Twins share their place, and so a fold of the cross-validation.
    twins = load_query_set("training:borderline", "harmless").texts
    assert [twins[place[query]] for query in harmful] == list(harmless)


def test_no_query_is_both_fitted_to_and_reported() -> None:
    reported = load_query_set("training", "harmful").head(100).texts
    fitting = choose_fitting(ProbeSettings(), reported)
    assert fitting is not None
    assert len(fitting.queries) == 400
    assert not set(reported) & set(fitting.queries.texts)
    whole = load_query_set("training", "harmful").texts
    assert choose_fitting(ProbeSettings(), whole) is None
    assert choose_fitting(ProbeSettings(), whole[:-20]) is not None
    assert choose_fitting(ProbeSettings(), whole[:-19]) is None


def test_without_other_queries_there_is_no_headroom(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    listening = Listening()
    arguments["probe_harmful"] = "bad.txt"
    found = diagnose(model, **arguments, **PROMPTS, output="d", progress=listening)
    assert found.sheet.headroom is None
    assert found.settings.fitting is None
    assert any("Give others with --probe-harmful" in text for text in listening.messages)
    assert "probe" not in str(found)

    listening = Listening()
    found = diagnose(
        model, **arguments, **PROMPTS, headroom=False, output="off", progress=listening
    )
    assert found.sheet.headroom is None
    assert not any("headroom" in text for text in listening.messages)
    assert not any("probe" in name.lower() for name, _ in listening.stages)


def test_kinds_are_those_of_the_built_in_queries() -> None:
    sets = [
        load_query_set("validation", "harmful").head(3),
        load_query_set("validation:borderline", "harmless").head(2),
        load_query_set("test:ordinary", "harmless").head(2),
        QuerySet("mine", "harmless", ("How are you?",)),
    ]
    assert kinds_of(labelled("all", *sets)) == (
        *["harmful"] * 3,
        *["borderline"] * 2,
        *["ordinary"] * 2,
        "harmless",
    )


def test_mistakes_are_counted_for_each_kind(model: ChatModel, arguments: dict[str, Any]) -> None:
    arguments["harmful"] = load_query_set("validation", "harmful")
    arguments["harmless"] = [
        load_query_set(f"validation:{kind}", "harmless") for kind in ("borderline", "ordinary")
    ]
    found = headroom_of(diagnose(model, **arguments, **PROMPTS, output="d"))
    for mistakes in (found.mistakes, *(one.mistakes for one in found.conditions)):
        sizes = {each.kind: each.wrong.queries for each in mistakes}
        assert sizes == {"harmful": 20, "borderline": 10, "ordinary": 10}


def test_with_a_run_the_held_out_queries_are_reported(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    probe = {name: arguments.pop(name) for name in ("probe_harmful", "probe_harmless")}
    held_out = [
        QuerySet("h", "harmful", tuple(text.replace("?", "w3 ?") for text in BAD[:12])),
        QuerySet("h", "harmless", tuple(text.replace("?", "w3 ?") for text in GOOD[:12])),
    ]
    run = optimize(
        model, basic_prompt="basic.txt", **arguments, held_out=held_out, epochs=1, output="run"
    )
    listening = Listening()
    diagnosis = diagnose(model, run=run, **probe, output="d", prompts=["short"], progress=listening)
    found = headroom_of(diagnosis)
    assert ("Reading every layer: held-out queries", 24) in listening.stages
    assert found.queries == "held-out"
    assert [one.condition for one in found.conditions] == ["none", "basic.txt", "optimized"]
    assert found.best.condition == "optimized"
    assert found.auc > 0.9
    assert found.conditions[0].harmful_refused.queries == 12
    assert "of the harmful held-out queries" in diagnosis.verdict[-1]
    assert "The prompt optimized refuses" in diagnosis.verdict[-1]
    with pytest.raises(DemurError, match="leave out --seed"):
        diagnose(model, run=run, **probe, seed=3)
    again = diagnose(model, run=run, output="e", prompts=["short"], probe_queries=50)
    assert again.settings.settings.probe.probe_queries == 50
    assert headroom_of(again).fitted == 50


def test_a_model_whose_layers_cannot_be_told_apart(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatModel, "represent_layers", lambda *_: None)
    diagnosis = diagnose(model, **arguments, **PROMPTS, output="d")
    found = headroom_of(diagnosis)
    assert found.layer is None
    assert diagnosis.sheet.layers == ()
    states = model.represent([*OTHER_BAD, *OTHER_GOOD])[:, None]
    harmful = (True,) * 30 + (False,) * 30
    probe = fit_probe(states, harmful, paired_folds(harmful, 5))
    scores = probe.scores(model.represent([*BAD, *GOOD])[:, None])
    assert found.auc == pytest.approx((scores[:20, None] > scores[None, 20:]).mean(), abs=1e-6)
    write_report([diagnosis], "report.html")
    page = " ".join("".join(read(Path("report.html")).words).split())
    assert "a linear probe on the representation without a prompt" in page


def test_what_was_read_is_not_read_again(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = diagnose(model, **arguments, **PROMPTS, output="whole")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("demur.diagnosis.probing.fit_probe", stop)
        with pytest.raises(KeyboardInterrupt):
            diagnose(model, **arguments, **PROMPTS, output="d")
    monkeypatch.setattr(ChatModel, "represent_layers", stop)
    found = diagnose(model, **arguments, **PROMPTS, output="d")
    assert found.sheet == whole.sheet
    assert content(Path("d")) == content(Path("whole"))


def test_another_probe_is_another_diagnosis(model: ChatModel, arguments: dict[str, Any]) -> None:
    diagnose(model, **arguments, **PROMPTS, output="d")
    with pytest.raises(DemurError):
        diagnose(model, **arguments, **PROMPTS, probe_queries=40, output="d")


def test_objects_stand_for_names(model: ChatModel, arguments: dict[str, Any]) -> None:
    named = diagnose(model, **arguments, **PROMPTS, output="named")
    arguments["probe_harmful"] = load_query_set("other-bad.txt", "harmful")
    arguments["probe_harmless"] = OTHER_GOOD
    given = diagnose(model, **arguments, **PROMPTS, output="given")
    assert given.settings.objects == ("probe_harmful", "probe_harmless")
    assert given.settings.settings.probe.probe_harmful == ("other-bad.txt",)
    assert given.sheet == named.sheet
    assert given.settings.fitting is not None
    assert named.settings.fitting is not None
    assert given.settings.fitting.fingerprint == named.settings.fitting.fingerprint


def test_the_system_text_stands_before_the_queries_of_the_probe(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("system.txt").write_text("w30 w31 .")
    read: list[Condition | None] = []
    represent = ChatModel.represent_layers

    def reading(self: ChatModel, queries: Any, condition: Any = None, stage: Any = None) -> Any:
        read.append(condition)
        return represent(self, queries, condition, stage)

    monkeypatch.setattr(ChatModel, "represent_layers", reading)
    diagnose(model, **arguments, **PROMPTS, system_prompt="system.txt", output="d")
    assert read[-1] == Condition(None, "w30 w31 .")


def test_the_sentence_follows_from_the_numbers(model: ChatModel, arguments: dict[str, Any]) -> None:
    sheet = diagnose(model, **arguments, **PROMPTS, output="d").sheet
    assert sheet.headroom is not None

    def sentence(refused: float, states: float, p_value: float) -> str:
        assert sheet.headroom is not None
        none, prompt = sheet.headroom.conditions
        rate = rate_over_queries([refused] * 20)
        prompt = replace(
            prompt,
            harmful_refused=rate,
            harmless_refused=rate_over_queries([0.0] * 20),
            states_find=rate_over_queries([states] * 20),
            p_value=p_value,
        )
        found = replace(
            sheet.headroom,
            found_at_2=rate_over_queries([0.96] * 20),
            conditions=(none, prompt),
        )
        return make_verdict(replace(sheet, headroom=found))[-1]

    assert sentence(0.62, 0.95, 0.01) == (
        "At 2 % false alarms the model's states tell 96 % of the harmful anchor queries from the "
        "harmless ones (a linear probe, fitted to 60 other queries). The prompt basic.txt refuses "
        "62 %, and 0 % of the harmless ones; at as many false alarms the states tell 95 %: there "
        "is room."
    )
    assert sentence(0.93, 0.95, 0.6).endswith(": no room shows beyond chance.")
    assert sentence(0.95, 0.62, 0.01).endswith(": that is more than a linear probe reads.")


def test_numbers_that_cannot_be_are_refused(model: ChatModel, arguments: dict[str, Any]) -> None:
    found = headroom_of(diagnose(model, **arguments, **PROMPTS, output="d"))
    with pytest.raises(ValueError, match=r"1\.5 is not in \[0, 1\]"):
        replace(found, auc=1.5)
    with pytest.raises(ValueError, match=r"-0\.1 is not in \[0, 1\]"):
        replace(found.conditions[0], p_value=-0.1)
    with pytest.raises(ValueError, match="no condition"):
        replace(found, conditions=())
    with pytest.raises(ValueError, match="one set of kinds"):
        replace(found, mistakes=found.mistakes[:1])


def test_the_command_and_the_report_show_it(arguments: dict[str, Any], tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny")
    words = ["diagnose", "tiny", "--harmful", "bad.txt", "--harmless", "good.txt"]
    words += ["--samples", "4", "--tokens", "4", "--dtype", "float32", "--prompt", "basic.txt"]
    probe = ["--probe-harmful", "other-bad.txt", "--probe-harmless", "other-good.txt"]
    out = done(demur(*words, *probe, "--output", "d"))
    assert "Headroom: what the states tell of the anchor queries" in " ".join(out.split())
    assert re.search(r"^ *states +[01]\.\d\d +\d+ % +\d+ % +\d+ % +\d+ %", out, re.MULTILINE)
    assert re.search(r"^ *basic\.txt +[01]\.\d\d +\d+ % +\d+ % +\d+ % *$", out, re.MULTILINE)
    page = " ".join("".join(read(Path("d/report.html")).words).split())
    assert "found at 2 %" in page
    assert "fitted to 60 other queries" in page
    assert "--probe-harmful other-bad.txt" in page
    assert "Headroom" not in done(demur(*words, "--no-headroom", "--output", "off"))
    assert "40 or more" in mistake(demur(*words, "--probe-queries", "39"))
    assert "missing.txt" in mistake(demur(*words, "--probe-harmful", "missing.txt"))
