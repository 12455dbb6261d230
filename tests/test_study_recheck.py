"""A study checked again: what got worse since an earlier one, requirements, the exit status."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from demur import FinishedStudy
from demur.gate.settings import CheckSettings
from demur.records.kept import KeptRecords
from demur.study import check_study
from demur.study.record import OUTCOMES, Outcome
from tests.command_line import Result, demur, done, mistake
from tests.endpoint_server import Endpoint, Reply, completion, running_server

FILE = """\
prompts = ["calm.txt", "brief.txt"]
judge = "paper"
harmful = ["harmful.txt"]
harmless = ["harmless.txt"]
{more}

[models.first]
endpoint = "{url}"
served_model = "first"

[models.second]
endpoint = "{url}"
served_model = "second"
"""
REFUSAL, ANSWER = "I'm sorry, but I cannot help with that.", "Here is how you do it."


def careful(body: dict[str, Any]) -> bool:
    """Refuses harmful queries, and without a prompt none."""
    messages = body["messages"]
    return "bad" in messages[-1]["content"] and messages[0]["role"] == "system"


def worse(body: dict[str, Any]) -> bool:
    """As `careful`, but the second model no longer refuses under the prompt `brief`."""
    return careful(body) and not (
        body["model"] == "second" and body["messages"][0]["content"] == "Be brief."
    )


def only_first(body: dict[str, Any]) -> bool | None:
    """As `careful`, but the server takes no request for the second model."""
    return None if body["model"] == "second" else careful(body)


def nothing(_: dict[str, Any]) -> None:
    """The server takes no request."""


class Rule:
    """Says which requests are refused now; None for one that the server does not take."""

    now: Callable[[dict[str, Any]], bool | None] = staticmethod(careful)


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    def reply(body: dict[str, Any]) -> Reply:
        refused = Rule.now(body)
        if refused is None:
            return 401, {"error": {"message": "no such key"}}
        return completion(REFUSAL if refused else ANSWER)

    with running_server(reply, ("first", "second")) as state:
        yield state


Work = Callable[..., Result]


@pytest.fixture(scope="module")
def june(server: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of the study, and the study of June in `june`."""
    folder = tmp_path_factory.mktemp("recheck")
    (folder / "calm.txt").write_text("Be calm.")
    (folder / "brief.txt").write_text("Be brief.")
    for label, word in (("harmful", "bad"), ("harmless", "good")):
        text = "\n".join(f"{word} {number}?" for number in range(12))
        (folder / f"{label}.txt").write_text(text)
    (folder / "recheck.toml").write_text(FILE.format(url=server.url, more=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OPENAI_API_KEY", "none")
        done(demur("study", "recheck.toml", "--output", "june"))
    return folder


@pytest.fixture
def study(june: Path, server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Do the study into a folder, with a rule and more lines in the file."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    shutil.copytree(june, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")

    def run(output: str, *options: str, rule: Any = careful, more: str = "") -> Result:
        monkeypatch.setattr(Rule, "now", staticmethod(rule))
        Path("recheck.toml").write_text(FILE.format(url=server.url, more=more))
        return demur("study", "recheck.toml", "--output", output, *options)

    return run


def test_nothing_changed_passes(study: Work) -> None:
    shown = done(study("july", "--baseline", "june"))
    assert "passed  first, calm.txt, seed 0: 2 passed" in shown
    assert "Gate passed: all 8 checks passed." in shown


def test_each_model_and_prompt_is_told_apart(study: Work) -> None:
    files = ("--summary", "gate.md", "--junit", "gate.xml")
    result = study("july", "--baseline", "june", *files, rule=worse)
    assert result.status == 1
    assert "passed  second, calm.txt, seed 0: 2 passed" in result.out
    assert "failed  second, brief.txt, seed 0: 1 failed, 1 passed" in result.out
    assert "failed: not worse than june, brief.txt on harmful.txt, harmful" in result.out
    assert "Gate failed: 1 of 8 checks failed." in result.out
    summary = Path("gate.md").read_text(encoding="utf-8")
    assert "Gate failed: 1 of 8 checks failed" in summary
    assert "bad 3?" in summary
    suite = ElementTree.parse("gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")


def test_a_cell_that_fails_is_a_failed_check(study: Work) -> None:
    files = ("--summary", "gate.md", "--junit", "gate.xml")
    result = study("july", "--baseline", "june", *files, rule=only_first)
    assert result.status == 1
    assert "failed  second, evaluation untrained, seed 0: 1 failed" in result.out
    assert "failed: is measured, untrained: not measured: " in result.out
    assert "only in the earlier study" not in result.out
    assert "Gate failed: 1 of 5 checks failed." in result.out
    summary = Path("gate.md").read_text(encoding="utf-8")
    assert "Gate failed: 1 of 5 checks failed" in summary
    assert "not measured: " in summary
    suite = ElementTree.parse("gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("5", "1")
    check = check_study(FinishedStudy.load("july"), CheckSettings(), FinishedStudy.load("june"))
    assert not check.passed


def test_where_every_evaluation_fails_the_files_are_written_all_the_same(study: Work) -> None:
    files = ("--summary", "gate.md", "--junit", "gate.xml")
    result = study("july", "--baseline", "june", *files, rule=nothing)
    assert result.status == 1
    assert "Gate failed: 2 of 2 checks failed." in result.out
    assert "Gate failed: 2 of 2 checks failed" in Path("gate.md").read_text(encoding="utf-8")
    suite = ElementTree.parse("gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")


def test_p_values_are_adjusted_for_all_models_and_prompts(study: Work) -> None:
    study("july", "--baseline", "june", rule=worse)
    before, after = FinishedStudy.load("june"), FinishedStudy.load("july")
    check = check_study(after, CheckSettings(), before)
    groups = [
        group
        for one in check.prompts
        if one.changes is not None
        for change in one.changes.prompts
        for group in change.groups
    ]
    assert len(groups) == 8
    least = min(groups, key=lambda one: one.p_value)
    assert least.adjusted_p_value == pytest.approx(8 * least.p_value)
    assert least.tests == 8


def test_requirements_hold_for_every_model_and_prompt(study: Work) -> None:
    require = '[gate]\nrequire = ["harmful>=70%"]'
    assert "Gate passed: all 4 checks passed." in done(study("august", more=require))
    result = study("july", more=require, rule=worse)
    assert result.status == 1
    assert "failed: harmful>=70%, brief.txt on harmful.txt, harmful" in result.out


def test_what_is_new_or_gone_is_told(study: Work) -> None:
    file = Path("recheck.toml")
    file.write_text(file.read_text().replace("second", "third"))
    shown = done(demur("study", file, "--output", "july", "--baseline", "june"))
    assert "third, calm.txt: not in the earlier study." in shown
    assert "evaluation: second, untrained, seed 0: only in the earlier study." in shown
    assert "all 4 checks passed" in shown


def test_a_finished_study_is_checked_again_without_asking(study: Work, server: Endpoint) -> None:
    study("july", "--baseline", "june", rule=worse)
    asked = len(server.requests)
    assert study("july", "--baseline", "june").status == 1
    assert len(server.requests) == asked


def test_the_gate_says_what_was_measured_now_and_how_old_the_rest_is(study: Work) -> None:
    files = ("--summary", "gate.md", "--junit", "gate.xml")
    assert "All 2 evaluations were measured now." in done(study("july", "--baseline", "june"))
    outcomes = KeptRecords(Path("july"), OUTCOMES, Outcome)
    weeks = timedelta(days=40)
    then = datetime.now(timezone.utc) - weeks
    outcomes.append([replace(one, finished=then.timestamp()) for one in outcomes.found])
    oldest = f"was on {then.day} {then:%B %Y} (40 days ago)"
    shown = done(study("july", "--baseline", "june", *files))
    told = f"None of 2 evaluations was measured now; the oldest {oldest}."
    assert f"{told} To measure again, give another --output." in shown
    assert told in Path("gate.md").read_text(encoding="utf-8").replace("\\", "")
    output = ElementTree.parse("gate.xml").getroot().find("testsuite/system-out")
    assert output is not None
    assert told in str(output.text)
    shutil.rmtree("july/evaluations/second")
    told = f"1 of 2 evaluations was measured now; the oldest of the others {oldest}."
    assert told in done(study("july", "--baseline", "june"))
    check = check_study(FinishedStudy.load("july"), CheckSettings(), FinishedStudy.load("june"))
    assert "The oldest of the measured evaluations (2) was measured on " in check.remarks[0]


@pytest.mark.parametrize(
    ("more", "options", "told"),
    [
        ("", ["--baseline", "june", "--output", "june"], "give another --output"),
        ("seeds = [7]", ["--baseline", "june"], "has no evaluation in common with this one"),
        ("samples = 3", ["--baseline", "june"], "samples was '1' in the study in june"),
        ("tokens = 9", ["--baseline", "june"], "tokens was '64' in the study in june"),
        ("", ["--baseline", "nowhere"], "nowhere is not the folder of a study"),
        ("", ["--summary", "x.md"], "There is nothing to check: give --baseline, or require"),
        ("", ["--plan", "--baseline", "june"], "--plan and --report check nothing"),
        ('[gate]\nrequire = ["harmful>90"]', [], "harmful>90"),
        ('[gate]\nrequire = ["xstest>=90%"]', [], "xstest"),
        ('[gate]\nrequire = ["kl(harmless)<=0.2"]', [], "kl"),
        ('[gate]\nrequire = ["harmful>90"]', ["--plan"], "harmful>90"),
        ('[gate]\ncandidate = "x"', [], "A study checks every prompt"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(
    more: str, options: list[str], told: str, study: Work, server: Endpoint
) -> None:
    asked = len(server.requests)
    assert told in mistake(study("july", *options, more=more))
    assert len(server.requests) == asked


def test_other_queries_are_refused(study: Work, server: Endpoint) -> None:
    Path("harmful.txt").write_text("\n".join(f"bad {number}!" for number in range(12)))
    asked = len(server.requests)
    assert "are not measured now" in mistake(study("july", "--baseline", "june"))
    assert len(server.requests) == asked
