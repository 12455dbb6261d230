"""The command line: what a user types and sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from demur.cli.screen import short_name
from demur.cli.stages import ShownStage
from demur.errors import DemurError
from demur.optimization import OptimizeSettings, Run
from demur.optimization.methods import get_method
from demur.optimization.plan import Plan, plan_of
from demur.optimization.recorded import RunRecord, RunResults
from demur.optimization.run import KIND, RESULTS, RESULTS_FORMAT
from demur.optimization.settings import StoredSettings
from demur.records import SETTINGS, read_record, write_record
from tests.command_line import demur, done, mistake
from tests.report_folders import finished_evaluation, finished_run
from tests.report_pages import read
from tests.tiny import save_tiny_model

REPORT = "report.html"
SMALL = [
    *("--method", "dro", "--judge", "paper"),
    *("--preset", "quick", "--samples", "4", "--tokens", "4"),
    *("--epochs", "1", "--dtype", "float32", "--learning-rate", "0.05"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A run that a command made, to be read only: its folder, and what the command wrote."""
    place = tmp_path_factory.mktemp("runs")
    (place / "basic.txt").write_text("w1 w2 w3 .")
    command = ["optimize", tiny, "--basic-prompt", place / "basic.txt", "--output", place / "run"]
    result = demur(*command, *SMALL)
    done(result)
    return place / "run", result.out, result.err


def test_optimize_prints_the_table_and_show_prints_it_again(
    finished: tuple[Path, str, str],
) -> None:
    run, out, err = finished
    for expected in ("none ", "basic.txt (basic)", "optimized ", "KL cost", str(run)):
        assert expected in out
    assert "before" in out
    assert "after" in out
    first = re.search("1 of ([0-9]+)  Held-out queries: none: begins", err)
    assert first is not None
    number = int(first[1])
    assert f"{number - 3} of {number}  Training: done in 0:0" in err
    assert f"{number - 2} of {number}  Held-out queries: optimized: done in" in err
    assert f"{number - 1} of {number}  Third turn: optimized: done in" in err
    assert f"{number} of {number}  Measuring the cost: optimized: done in" in err
    assert "Refused in the third turn of a conversation" in out
    assert "Answers to harmless queries" in out
    ending = " ".join(out.split("demur show ")[1].split())
    assert " than basic.txt" in ending
    assert "optimized refuses " in ending
    assert ". Next: " in ending
    assert "judge: paper, 4 responses of 4 tokens" in out
    assert "float32" in err
    assert "memory" not in err  # how it is kept is of no use to a person
    assert (run / REPORT).is_file()
    assert str(run / REPORT) in out
    assert done(demur("show", run)) == out


def test_the_stages_of_a_run_have_room_in_80_columns(finished: tuple[Path, str, str]) -> None:
    titles = re.findall(r"\d of \d  (.*): begins", finished[2])
    assert "Held-out queries: basic.txt" in titles
    for title in [*titles, *(f"{one}: none" for one in get_method("likelihood").stages or ())]:
        named = title.replace("basic.txt", "my-prompt.txt")
        stage = ShownStage("10 of 12", named, 200, "responses", chain((0, 0), repeat(99)).__next__)
        stage.advance(0)
        stage.advance(60)
        assert f"  {named}  60/200 responses  about" in re.sub("  ━+", "", stage.line(80).plain)


def test_the_settings_of_a_run_do_it_again(
    finished: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, out, _ = finished
    for config in (run / SETTINGS, run):
        again = demur("optimize", "--config", config, "--output", run)
        assert done(again) == out
        assert "finished already" in again.err
    report = (run / REPORT).read_bytes()
    (run / REPORT).write_bytes(report[:100])
    done(demur("optimize", "--config", run, "--output", run))
    assert (run / REPORT).read_bytes() == report
    copy = tmp_path / "copy"
    done(demur("optimize", "--config", run, "--output", copy))
    assert Run.load(copy).comparison.rates == Run.load(run).comparison.rates

    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("demur.chat.model.ChatModel.load", load)
    for changed in (["--seed", "3"], ["--harmful", "held-out"], ["--components", "3"]):
        line = mistake(demur("optimize", "--config", run, "--output", run, *changed))
        assert "belongs to a run with another" in line
    line = mistake(demur("diagnose", "--config", run / SETTINGS))
    assert "settings.json holds no diagnosis of demur: check the path." in line
    line = mistake(demur("diagnose", "--run", run, "--seed", "3"))
    assert "A run brings its own settings: leave out --seed." in line
    line = mistake(demur("evaluate", "--output", run))
    assert "is the folder of a run: choose another --output." in line


def test_work_that_goes_on_says_so(
    finished: tuple[Path, str, str], tiny: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    copy_folder(finished[0], run)
    (run / RESULTS).unlink()
    again = demur("optimize", "--config", run, "--output", run)
    assert done(again).replace(str(run), str(finished[0])) == finished[1]
    assert f"Going on with {run}: 1 of 1 epochs done." in again.err
    assert "Going on" not in finished[2]


def test_files_that_settings_name_must_be_where_the_work_was_started(
    finished: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = read_record(finished[0] / SETTINGS, RunRecord, KIND)
    Path("work").mkdir()
    Path("elsewhere").mkdir()
    Path("mine.csv").write_text("q\na\n")
    cases = {
        "--basic-prompt": ({"basic_prompt": "shop.txt"}, "shop.txt"),
        "--system-prompt": ({"system_prompt": "sub/app.TXT"}, "sub/app.TXT"),
        "MODEL": ({}, "./no-such-model"),
        "--harmful": ({}, "mine.csv:q"),
    }
    for flag, (changes, named) in cases.items():
        settings, load = record.settings.model_copy(update=changes), record.load
        if flag == "MODEL":
            load = load.model_copy(update={"model": named})
        if flag == "--harmful":
            queries = settings.queries.model_copy(update={"harmful": (named,)})
            settings = settings.model_copy(update={"queries": queries})
        write_record(
            tmp_path / "work" / SETTINGS, replace(record, settings=settings, load=load), KIND
        )
        monkeypatch.chdir(tmp_path / "elsewhere")
        line = mistake(demur("optimize", "--config", "../work"))
        assert f"names {named!r}, which is not here" in line
        assert f"run the command there, or give {flag} here as well." in line
        monkeypatch.chdir(tmp_path)
        if flag == "--harmful":
            assert "mine.csv" in mistake(demur("optimize", "--config", "work"))  # too few


def test_code_that_only_a_file_of_settings_names_is_never_run(
    finished: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("open('ran', 'w').close()\ndef judge(queries, responses): ...\n")
    record = read_record(finished[0] / SETTINGS, RunRecord, KIND)
    strange = {
        "judge": replace(record, settings=record.settings.model_copy(update={"judge": "own.py:x"})),
        "method": replace(
            record, settings=record.settings.model_copy(update={"method": "own.py:x"})
        ),
        "trust-remote-code": replace(
            record, load=record.load.model_copy(update={"trust_remote_code": True})
        ),
    }
    for name, changed in strange.items():
        write_record(Path(SETTINGS), changed, KIND)
        line = mistake(demur("optimize", "--config", SETTINGS))
        assert f"has code run through --{name}: give that option here as well" in line
    assert not Path("ran").exists()
    write_record(Path(SETTINGS), replace(record, objects=("harmful",)), KIND)
    line = mistake(demur("optimize", "--config", SETTINGS))
    assert "was given 'harmful' as an object in Python: give --harmful here as well." in line


def test_long_names_are_told_apart(tmp_path: Path) -> None:
    name = "a very long name of a prompt, number " + "x" * 80
    out = done(demur("show", finished_run(tmp_path / "run", basic=f"{name}.txt")))
    assert out.count("(basic)") == 2  # in each turn
    assert ".txt" in out  # the end of the name
    numbered = [short_name(f"{name} ({number})") for number in range(2)]
    assert [one[-3:] for one in numbered] == ["(0)", "(1)"]
    assert {len(one) for one in numbered} == {40}
    assert short_name("short\n \x1b name") == "short \N{REPLACEMENT CHARACTER} name"


@pytest.mark.parametrize("make", [finished_run, finished_evaluation])
def test_files_that_are_lost_or_mixed_up_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make(Path("work"))
    settings, results = folder / SETTINGS, folder / RESULTS
    for verb in ("show", "report"):
        settings.rename("kept")
        line = mistake(demur(verb, folder))
        assert "work/settings.json is missing: run the command that made this folder again." in line
        results.rename(settings)
        Path("kept").rename(results)
        line = mistake(demur(verb, folder))
        assert (
            "work/settings.json is damaged: delete it and run the command that made it again."
            in line
        )
        settings.rename("kept")
        results.rename(settings)
        Path("kept").rename(results)
        results.rename("kept")
        results.write_bytes(settings.read_bytes())
        line = mistake(demur(verb, folder))
        assert (
            "work/results.json is damaged: delete it and run the command that made it again."
            in line
        )
        results.unlink()
        results.mkdir()
        assert "work/results.json is damaged: delete it" in mistake(demur(verb, folder))
        results.rmdir()
        line = mistake(demur(verb, folder))
        assert re.search("in work is not finished: go on with `demur .* --output work`", line)
        if make is finished_run:
            for others in (("export", folder, "out"), ("push", folder, "me/prompt")):
                assert mistake(demur(*others)) == line
        Path("kept").rename(results)
        done(demur(verb, folder))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimize", "no-such-model"], "neither a catalog model"),
        (["optimize", "TINY", "--preset", "fast"], "no preset 'fast'"),
        (["optimize", "TINY", "--epochs", "0"], "--epochs 0"),
        (["optimize", "TINY", "--top-p", "1.5"], "--top-p 1.5"),
        (["optimize", "TINY", "--basic-prompt", "missing.txt"], "missing.txt"),
        (["optimize", "TINY", "--basic-prompt", "EMPTY"], "empty"),
        (["optimize", "TINY", "--harmful", "missing.csv:q"], "missing.csv"),
        (["optimize", "TINY", "--harmful", "EMPTY"], "empty"),
        (["optimize", "TINY", "--held-out-harmless", "missing.txt"], "missing.txt"),
        (["optimize", "TINY", "--system-prompt", "missing.txt"], "missing.txt"),
        (["optimize", "TINY", "--judge", "jury"], "no refusal judge 'jury'"),
        (["optimize", "TINY", "--judge", "missing.py:Judge"], "no file 'missing.py'"),
        (["optimize", "TINY", "--method", "missing.py:Method"], "no file 'missing.py'"),
        (["optimize", "TINY", "--dtype", "float99"], "float99"),
        (["optimize", "TINY", "--device", "abacus"], "abacus"),
        (["optimize", "TINY", "--output", "EMPTY"], "empty.txt is a file: choose a folder"),
        (["diagnose", "TINY", "--prompt", "missing.txt"], "missing.txt"),
        (["diagnose", "TINY", "--run", "missing"], "missing is not the folder of a run"),
        (["diagnose", "TINY", "--harmless", "missing.txt"], "missing.txt"),
        (["chat", "TINY", "--prompt", "missing.txt"], "missing.txt"),
        (["chat", "TINY", "--system-prompt", "missing.txt"], "missing.txt"),
        (["export", "missing", "out"], "missing"),
        (["push", "missing", "no-name"], "no-name"),
        (["push", "missing"], "'name' is missing: give the name of the repository"),
        (["report"], "demur report takes folders of results"),
        (["report", "missing"], "missing"),
        (["show", "missing"], "missing"),
        (["show", "EMPTY"], "empty"),
        (["pull", "no-such-model"], "no-such-model"),
    ],
)
def test_mistakes_end_in_one_line_before_any_model(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[object] = []
    monkeypatch.setattr("demur.chat.loading.load_weights", lambda *a, **b: loaded.append(a))
    Path("empty.txt").write_text("")
    places = {"TINY": str(tiny), "EMPTY": "empty.txt"}
    assert expected in mistake(demur(*[places.get(argument, argument) for argument in arguments]))
    assert not loaded
    assert [one.name for one in tmp_path.iterdir()] == ["empty.txt"]


def test_a_model_that_never_refuses_stops_before_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.judges.PaperRefusalJudge.refuses", lambda _self, _text: False)
    line = mistake(demur("optimize", tiny, "--output", tmp_path / "run", *SMALL))
    assert "no refusal direction" in line
    assert "harmless 0.0 % refused" in line


def test_stored_texts_cannot_drive_the_terminal(
    finished: tuple[Path, str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    copy_folder(finished[0], run)
    results = read_record(run / RESULTS, RunResults, RESULTS_FORMAT)
    bad = "[bold red]boo[/] \x1b[2J\x07 \u202eabc"
    examples = tuple(
        replace(one, after=bad, query=bad, after_verdict=None) for one in results.examples
    )
    write_record(run / RESULTS, replace(results, examples=examples), RESULTS_FORMAT)
    out = done(demur("show", run))
    assert out.count("[bold red]boo[/]") == 3  # two queries, and the response to the harmless one
    assert "no verdict  (redacted)" in out
    assert f"demur report {run} --full" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def copy_folder(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())


def test_version_and_help() -> None:
    assert done(demur("--version")).startswith("demur ")
    out = done(demur("--help"))
    assert done(demur("-h")) == out
    for verb in ("optimize", "evaluate", "diagnose", "chat", "export", "report", "show"):
        assert f" {verb} " in out


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("help", "--help"),
        ("help show", "show --help"),
        ("help optimize", "optimize -h"),
        ("version", "--version"),
    ],
)
def test_words_that_people_try_for_help(line: str, same: str) -> None:
    assert done(demur(*line.split())) == done(demur(*same.split()))


def test_another_word_for_a_command_is_explained() -> None:
    result = demur("ls")
    assert "`demur ls` is `demur show`." in result.err
    assert result.out == demur("show").out


def test_a_control_character_in_a_message_is_not_printed() -> None:
    line = mistake(demur("optimize", "--epochs", "\x1b[2J7"))
    assert "--epochs" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("optimize --epoch 3", "demur optimize has no option '--epoch': write --epochs."),
        (
            "optimize --components 3",
            "demur optimize has '--components' only with --method dro: give the method as well.",
        ),
        (
            "optimize --method dro --no-dual-weight",
            "has '--no-dual-weight' only with --method likelihood: give the method as well.",
        ),
        ("diagnose --openings 3", "demur diagnose has no option '--openings': run 'demur diagnose"),
        (
            "optimize --preset paper --method likelihood",
            "The method 'likelihood' has no preset 'paper': give --method dro or vpt, or another ",
        ),
        ("optimize --preset paper --openings 3", "'--openings' only with --method likelihood"),
        ("evaluate --no-trust-code", "no option '--no-trust-code': write --no-trust-remote-code."),
        ("evaluate --queries q.csv", "no option '--queries': give --harmful FILE for the queries"),
        ("optimize --dataset q.csv", "no option '--dataset': give --harmful FILE for the queries"),
        ("optimize --lr 1e-3", "no option '--lr': write --learning-rate."),
        ("evaluate --max-new-tokens 8", "no option '--max-new-tokens': write --tokens."),
        ("optimize --prompt my.txt", "no option '--prompt': write --basic-prompt."),
        ("optimize --gpu", "no option '--gpu': write --device."),
        ("optimize --quick", "no option '--quick': write --preset quick."),
        ("show nope", "There is no folder 'nope': `demur show` alone lists what lies here."),
        ("show demur-runs/report.html", "is a page: open it in a browser, or give the folder that"),
        ("evaluate --harmful refuse.tx", "There is no file 'refuse.tx': check the path."),
        ("optimize --wibble", "no option '--wibble': run 'demur optimize --help' to see"),
        ("show --xyz", "no option '--xyz': run 'demur show --help' to see what there is."),
        ("evaluate --model m", "has no option '--model': write MODEL without --model."),
        ("--verson", "demur has no option '--verson': write --version."),
        ("optmize", "There is no command 'optmize': write optimize."),
        ("frobnicate x", "no command 'frobnicate': run 'demur --help' to see what there is."),
        (
            "optimize --epochs",
            "--epochs needs a value behind it: run 'demur optimize --help' to see what there is.",
        ),
        (
            "push RUN NAME --dry-run",
            "--dry-run needs a value behind it: run 'demur push --help' to see what there is.",
        ),
        ("pull a b", "unexpected extra argument"),
        ("pull x --[red]bold", "no option '--[red]bold': run"),
    ],
)
def test_a_line_that_is_not_understood_ends_in_one_line(line: str, told: str) -> None:
    assert told in mistake(demur(*line.split()))


def test_the_preset_paper_means_dro(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plans: list[Plan] = []

    def planned(settings: OptimizeSettings[Any]) -> Plan:
        plans.append(plan_of(settings))
        raise DemurError("Planned.")

    monkeypatch.setattr("demur.optimization.plan.plan_of", planned)
    Path("paper.toml").write_text('preset = "paper"\n')
    Path("quick.toml").write_text('preset = "quick"\n')
    for items in (
        ["--preset", "paper"],
        ["--preset=paper", "--method=dro"],
        ["--config", "paper.toml"],
        ["--config", "quick.toml", "--preset", "paper"],
    ):
        assert mistake(demur("optimize", *items)) == "error: Planned."
        (plan,) = plans
        plans.clear()
        assert (plan.method.name, plan.settings.method) == ("dro", "dro")
        assert plan.settings == OptimizeSettings.from_preset("paper", "dro")
        # The paper to the letter; test_settings.py looks at every setting.
        assert plan.judge.name == "paper"
        assert (len(plan.anchors), len(plan.held_out), plan.validation) == (200, 200, None)
        assert plan.settings.protocol.sampling.samples == 25
    assert mistake(demur("optimize", "--preset", "paper", "--method", "vpt")) == "error: Planned."
    assert plans[0].settings == OptimizeSettings.from_preset("paper", "vpt")
    assert "--components" in done(demur("optimize", "--preset", "paper", "--help"))
    assert "--components" not in done(demur("optimize", "--help"))
    told = "has no preset 'paper'"
    Path("both.toml").write_text('preset = "paper"\nmethod = "likelihood"\n')
    assert told in mistake(demur("optimize", "--config", "both.toml"))
    assert told in mistake(demur("optimize", "--config", "paper.toml", "--method", "likelihood"))
    # A run of another method cannot be done again with the preset.
    record = read_record(finished[0] / SETTINGS, RunRecord, KIND)
    likelihood = OptimizeSettings.from_preset("quick").model_dump(mode="json")
    stored = replace(record, settings=StoredSettings.model_validate(likelihood))
    write_record(Path(SETTINGS), stored, KIND)
    assert told in mistake(demur("optimize", "--config", SETTINGS, "--preset", "paper"))


def test_an_interrupted_command_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("demur.chat.download.pull", interrupt)
    result = demur("pull", "qwen2.5-coder-0.5b")
    assert result.status == 130
    told = "nothing that was finished is lost; run the same command again to go on."
    assert f"Interrupted: {told}" in " ".join(result.err.split())
    assert "Traceback" not in result.err


def test_the_help_has_no_types_that_say_nothing() -> None:
    for command in (["--help"], ["show", "--help"], ["optimize", "--help"]):
        out = done(demur(*command))
        assert "<str>" not in out
        assert "<bool>" not in out
    assert "TEXT" in out


def test_the_usage_says_which_arguments_are_required() -> None:
    assert "Usage: demur push [OPTIONS] RUN NAME" in done(demur("push", "--help"))
    assert "Usage: demur optimize [OPTIONS] [MODEL]" in done(demur("optimize", "--help"))
    assert "Make and measure" in done(demur())


def test_the_end_of_a_run_offers_to_measure_ones_own_queries(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2 w3 .")
    Path("refuse.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(12)))
    command = ["optimize", tiny, "--basic-prompt", "basic.txt", "--output", "run", *SMALL]
    out = done(demur(*command, "--harmful", "anchors", "--harmful", "refuse.txt"))
    asking = f"demur evaluate {tiny} --prompt basic.txt --prompt run --harmful refuse.txt"
    assert asking in out
    assert asking in "".join(read(Path("run") / REPORT).words)
    done(demur(*asking.split()[1:], "--tokens", "4", "--dtype", "float32"))
    out = done(demur(*command[:-1], "0.01", "--output", "other"))
    assert "Your own queries" not in out


def test_a_misspelt_folder_of_work_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demur-runs" / "mine-quick").mkdir(parents=True)
    for command in (
        ("show", "demur-runs/mine-quik"),
        ("evaluate", "--prompt", "demur-runs/mine-quik"),
        ("export", "demur-runs/mine-quik", "out"),
        ("chat", "--prompt", "demur-runs/mine-quik.txt"),
    ):
        line = mistake(demur(*command))
        assert "There is no 'mine-quik" in line
        assert "in demur-runs (did you mean 'mine-quick'?): `demur show` lists" in line
