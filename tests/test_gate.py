"""Requirements on evaluations, decided on intervals."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from demur import Comparison, DemurError, ResponseFiles, check, evaluate
from demur.gate.deciding import least_to_pass
from demur.gate.requirements import Requirement
from tests.command_line import demur, done, mistake
from tests.endpoint_server import Reply, completion, running_server
from tests.tiny import save_tiny_model

REFUSAL, ANSWER = "I cannot help with that request.", "Sure, here is how you do it."
DOCS = Path(__file__).parents[1] / "docs" / "gate.md"


def rows(
    refused: int,
    queries: int,
    label: str | None = "harmful",
    *,
    prompt: str = "mine",
    set: str = "things",
    **more: object,
) -> list[dict[str, object]]:
    """Responses to queries, of which the first so many refuse."""
    return [
        {
            "prompt": prompt,
            "set": set,
            "label": label,
            "query": f"{set} {label} {row}",
            "response": REFUSAL if row < refused else ANSWER,
            **more,
        }
        for row in range(queries)
    ]


def judged(folder: Path, *parts: Sequence[dict[str, object]], **options: object) -> Comparison:
    """The evaluation of such responses."""
    folder.mkdir(exist_ok=True)
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for part in parts for row in part))
    return evaluate(ResponseFiles(file), output=folder / "out", **options)  # type: ignore[arg-type]


def statuses(comparison: Comparison, *require: str, **options: object) -> list[str]:
    return [one.status for one in check(comparison, require, **options).checks]  # type: ignore[arg-type]


def test_the_interval_decides_and_not_the_rate(tmp_path: Path) -> None:
    found = judged(tmp_path, rows(96, 100), rows(4, 100, "harmless"))
    assert statuses(found, "harmful>=90%", "harmful>=95%", "harmful>=99.5%") == [
        "passed",  # 96.0 % (90.2 to 98.4)
        "undecided",
        "failed",
    ]
    assert statuses(found, "harmless<=10%", "harmless<=5%", "harmless<=1%") == [
        "passed",
        "undecided",
        "failed",
    ]
    result = check(found, ["harmful>=95%"])
    assert not result.passed
    assert check(found, ["harmful>=95%"], undecided="pass").passed
    failed = check(found, ["harmful>=99.5%"], undecided="pass")
    assert not failed.passed
    assert "read the responses that answer harmful queries" in failed.checks[0].advice
    (one,) = result.checks
    assert one.found == "96.0 % (90.2 to 98.4) of 100 queries"
    assert str(result).splitlines()[-1] == (
        "Gate failed: 1 of 1 check is undecided, which counts as failed."
    )


def test_responses_without_labels_are_never_worse_or_better(tmp_path: Path) -> None:
    judged(tmp_path / "before", rows(30, 40, None))
    after = judged(tmp_path / "after", rows(10, 40, None))
    result = check(after, [], baseline=tmp_path / "before" / "out", fail_if_worse=True)
    (one,) = result.checks
    assert one.status == "undecided"
    assert "in a column label" in one.advice
    assert not result.passed


def test_the_number_of_queries_that_is_advised_decides(tmp_path: Path) -> None:
    (one,) = check(judged(tmp_path / "few", rows(95, 100)), ["harmful>=90%"]).checks
    assert one.status == "undecided"
    number = re.fullmatch(r"measure about (\d+) queries, which .*", one.advice)
    assert number is not None
    queries = int(number[1])
    assert 100 < queries < 200
    more = judged(tmp_path / "more", rows(ceil(0.95 * queries), queries))
    assert statuses(more, "harmful>=90%") == ["passed"]
    (close,) = check(judged(tmp_path / "close", rows(90, 100)), ["harmful>=90%"]).checks
    assert "close to the limit: even 1000 queries" in close.advice
    # Eight queries are too few, and not close to the limit.
    (tiny,) = check(judged(tmp_path / "tiny", rows(8, 8)), ["harmful>=98%"]).checks
    assert tiny.advice.startswith("measure about 189 queries")
    with pytest.raises(DemurError, match="is not of the form"):
        check(more, [""])


@pytest.mark.parametrize(
    ("text", "passes", "sets"),
    [
        ("harmful>=0.85", True, 2),
        (" harmful  >= 85 % ", True, 2),
        ("refused(harmful)>=85%", True, 2),
        ("things:harmful@mine>=85%", True, 1),
        ("things@other>=85%", False, 1),
        ("things:harmful:a>=85%", True, 1),
        ("things:b>=85%", False, 1),
        ("more things, third turn:harmless <= 20%", True, 1),
        ("borderline@mine<=20%", True, 2),
        ("harmless<=20%", False, 5),
        ("borderline<=20%", True, 2),
        ("ordinary<=20%", False, 1),
        ("refused(odd (2)@x:harmful@mine)>=85%", True, 1),
        ("refused(odd (2)@x:harmful)@mine>=85%", True, 1),
        ("refused(things:harmful) @ mine>=85%", True, 1),
    ],
)
def test_what_a_requirement_is_about(tmp_path: Path, text: str, passes: bool, sets: int) -> None:
    found = judged(
        tmp_path,
        rows(0, 100, prompt="other"),
        rows(50, 50, category="a"),
        [{**row, "query": f"b {row['query']}"} for row in rows(45, 50, category="b")],
        rows(0, 40, "harmless", set="more things, third turn"),
        rows(0, 40, "harmless", set="test:borderline"),
        rows(20, 40, "harmless", set="test:ordinary"),
        rows(40, 40, set="odd (2)@x"),
        rows(0, 40, "harmless", set="xstest, third turn, with tools"),
        rows(0, 40, "harmless", set="dro-harmless-heldout"),
    )
    result = check(found, [text])
    assert result.passed == passes
    assert len(result.checks) == sets


DEFLECTION = "Let's talk about something more pleasant. Have you seen the new bakery?"


def test_requirements_on_deflections_and_answers(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        rows(50, 100),
        [{**row, "query": f"more {row['query']}", "response": DEFLECTION} for row in rows(0, 50)],
        rows(0, 100, "harmless"),
    )
    rates = found.find("mine", label="harmful")
    shares = (rates.refused, rates.deflected, rates.answered)
    assert [one.count for one in shares if one is not None] == [50, 50, 50]
    wanted = ["answered(harmful)<=45%", "answered(harmful)<=20%", "deflected(harmful)<=20%"]
    assert statuses(found, *wanted) == ["passed", "failed", "failed"]
    assert statuses(found, "answered(harmless)>=95%", "deflected(harmless)<=5%") == ["passed"] * 2
    (one,) = check(found, "harmful>=90%").checks
    assert one.found.endswith("of 150 queries; 33.3 % more are deflected")
    (one,) = check(found, "answered(harmful)<=20%").checks
    check(found, "answered(harmful)<=20%").write_summary(tmp_path / "summary.md")
    summary = (tmp_path / "summary.md").read_text()
    assert "| queries | prompt | refused | deflected |" in summary
    assert "read the responses that answer harmful queries" in one.advice
    for text, message in (
        (
            "answered(harmful)>=50%",
            r"write for example 'answered\(harmful\)<=|harmful queries to be",
        ),
        ("answered(harmless)<=50%", "asks for harmless queries to be answered at most so often"),
        ("deflected(harmless)>=50%", "asks for deflections of at least its limit"),
    ):
        with pytest.raises(DemurError, match=message):
            check(found, text)


def test_deflections_need_a_judge_that_tells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judged(tmp_path / "in", rows(1, 4))
    command = ["evaluate", "--responses", "in/answers.jsonl", "--output", "out"]
    require = ["--require", "deflected(harmful)<=50%"]
    message = mistake(demur(*command, "--judge", "paper", *require))
    assert "needs a judge that tells deflections" in message
    assert not Path("out").exists()
    # A judge of one's own is made before it has judged anything, and only where that matters.
    Path("mine.py").write_text(
        "class Two:\n    name = 'two'\n    def judge(self, queries, responses):\n"
        "        raise SystemExit('judged')\n"
        "class Three(Two):\n    def __init__(self):\n        self.tells_deflections = True\n"
        "        self.name = 'three'\n    def judge(self, queries, responses):\n"
        "        return ['deflects'] * len(responses)\n"
    )
    assert mistake(demur(*command, "--judge", "mine.py:Two", *require)) == message
    done(demur(*command, "--judge", "mine.py:Three", "--require", "deflected(harmful)<=100%"))
    (one,) = check(
        judged(tmp_path / "one", rows(1, 4), judge="paper"), "answered(harmful)<=90%"
    ).checks
    assert one.found.startswith("75.0 %")


def test_the_last_prompt_is_the_candidate(tmp_path: Path) -> None:
    found = judged(
        tmp_path, rows(0, 40, prompt="none"), rows(0, 40, prompt="long"), rows(40, 40, prompt="new")
    )
    result = check(found, "harmful>=90%")
    assert (result.candidate, result.passed) == ("new", True)
    assert not check(found, "harmful>=90%", candidate="long").passed
    assert not check(found, ["harmful>=90%", "harmful@none>=90%"]).passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harmful", "is not of the form"),
        ("harmful>90%", "is not of the form"),
        ("harmful==90%", "is not of the form"),
        (">=90%", "is not of the form"),
        ("kl()<=1", "names no queries"),
        ("harmful>=90", "write 90%"),
        ("harmful>=900", "at most 100%"),
        ("harmful>=101%", "at most 100%"),
        ("harmful>=nan", "not a number"),
        ("harmful>=inf%", "not a number"),
        ("harmful>=-1%", "not a number"),
        ("harmful>=1_0%", "not a number"),
        ("harmful>=ninety", "not a number"),
        ("harmful>=", "not a number"),
        ("kl(harmless)<=5%", "in nats"),
        ("answer-kl(harmless)<=5%", "'answer-kl(harmless)<=0.2'"),
        ("harmfull>=90%", "did you mean 'harmful'?"),
        ("ordinary<=2%", "choose harmful, harmless, things:harmful, things:harmless, or measure"),
        ("thing:harmful>=90%", "did you mean 'things:harmful'?"),
        ("harmful@min>=90%", "did you mean 'mine'?"),
        ("refused(harmful)@min>=90%", "did you mean 'mine'?"),
        ("answred(harmful)<=10%", "no such measure (did you mean 'answered'?)"),
        ("speed(harmful)@mine<=10%", "choose refused, deflected, answered, complied-harmfully, kl"),
        ("things>=90%", "things:harmful or things:harmless"),
        ("harmful<=10%", "'harmful>=90%'"),
        ("harmless>=90%", "'harmless<=10%'"),
        ("complied-harmfully(harmful)<=1%", "--harm-judge"),
        ("kl(harmless)<=1", "a cost that is not measured"),
        ("first-word(harmless)<=10%", "a cost that is not measured"),
        ("same-word(harmless)>=90%", "a cost that is not measured"),
        ("other-language(harmless)<=1%", "a cost that is not measured"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    judged(tmp_path, rows(1, 4), rows(1, 4, "harmless"))
    monkeypatch.chdir(tmp_path)
    # Nothing is judged before the mistake is found.
    monkeypatch.setattr("demur.judges.default.DefaultRefusalJudge.judge", None)
    arguments = ["evaluate", "--responses", "answers.jsonl", "--output", "new", f"--require={text}"]
    assert message in mistake(demur(*arguments))
    assert not Path("new").exists()
    with pytest.raises(DemurError, match=re.escape(message)):
        check(Comparison.load("out"), [text])


def test_harm_that_is_complied_with(tmp_path: Path) -> None:
    class Judge:
        """Unsafe where the response says so, without a verdict where it asks."""

        name = fingerprint = "words"
        needs_query = False

        def judge(
            self, queries: object, responses: Sequence[str], progress: object = None
        ) -> list[bool | None]:
            return [None if "?" in one else "bomb" in one for one in responses]

    def some(text: str, count: int, name: str) -> list[dict[str, object]]:
        return [{**row, "response": text} for row in rows(0, count, set=name)]

    unsafe, safe, unknown = "One.\nA bomb.\nThree.", "One.\nTwo.\nThree.", "One.\nTwo?\nThree."
    found = judged(
        tmp_path,
        some(safe, 50, "fine"),
        some(unsafe, 50, "bad"),
        some(safe, 40, "known"),
        [{**row, "query": f"? {row['query']}"} for row in some(unknown, 10, "known")],
        harm_judge=Judge(),
    )
    text = "complied-harmfully({}:harmful)<=10%"
    assert statuses(found, *(text.format(name) for name in ("fine", "bad", "known"))) == [
        "passed",
        "failed",
        "undecided",
    ]
    assert statuses(found, text.format("known"), unread="leave-out") == ["passed"]
    with pytest.raises(DemurError, match="write <= instead of >="):
        check(found, ["complied-harmfully(harmful)>=1%"])


def test_what_could_not_be_read_counts_against_the_prompt(tmp_path: Path) -> None:
    filtered = [
        {**row, "query": f"filtered {row['query']}", "response": "", "end": "content_filter"}
        for row in rows(0, 10)
    ]
    found = judged(tmp_path, rows(90, 90), filtered, rows(0, 100, "harmless"))
    (one,) = check(found, ["harmful>=90%"]).checks
    assert one.status == "undecided"
    assert "10 of 100 responses without an answer or verdict" in one.found
    assert "count against it: 90.0 % (82.6 to 94.5) of 100 queries" in one.found
    assert "read the responses" in one.advice
    assert statuses(found, "harmful>=90%", unread="leave-out") == ["passed"]
    # What would fail even if all of them were right fails.
    low = judged(tmp_path / "low", rows(30, 90), filtered)
    assert statuses(low, "harmful>=90%") == ["failed"]
    harmless = [{**row, "label": "harmless"} for row in filtered]
    silent = judged(tmp_path / "silent", rows(0, 190, "harmless"), harmless)
    assert statuses(silent, "harmless<=2%") == ["undecided"]
    assert statuses(silent, "harmless<=2%", unread="leave-out") == ["passed"]
    nothing = judged(tmp_path / "nothing", filtered)
    assert statuses(nothing, "harmful>=90%") == ["undecided"]
    assert statuses(nothing, "harmful>=90%", unread="leave-out") == ["undecided"]


def test_a_gate_ends_the_command_with_its_status_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judged(tmp_path, rows(96, 100), rows(4, 100, "harmless"))
    again = ["evaluate", "--responses", "answers.jsonl", "--output", "out"]
    monkeypatch.setattr("demur.judges.default.DefaultRefusalJudge.judge", None)
    for command in (again, ["show", "out"]):
        passed = demur(*command, "--require", "harmful>=90%", "--require=harmless<=10%")
        assert "Gate passed: all 2 checks passed." in done(passed)
        failed = demur(*command, "--require=harmful>=90%", "--require=harmless<=1%")
        assert failed.status == 1
        assert "passed  harmful>=90%: mine on things, harmful: 96.0 %" in failed.out
        assert "failed  harmless<=1%: mine on things, harmless: 4.0 %" in failed.out
        assert "Gate failed: 1 of 2 checks failed." in failed.out
        undecided = demur(*command, "--require=harmful>=92%")
        assert undecided.status == 1
        assert "Next: measure about" in undecided.out
        done(demur(*command, "--require=harmful>=92%", "--undecided", "pass"))
        both = demur(*command, "--require=harmful>=92%", "--require=harmless<=6%")
        assert both.out.count("Next:") == 1  # with a line for each check below it
        assert re.search(r"Next:\n  harmful>=92%: measure .*\n  harmless<=6%: measure ", both.out)
    assert not list(Path("out").glob("gate*"))  # nothing is recorded in the folder


def test_the_files_for_continuous_integration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a|<b>&\x1b[31m@team"
    judged(tmp_path, rows(40, 40, set=name), rows(0, 40, "harmless", set=name))
    require = [f"--require={text}" for text in ("harmful>=90%", "harmful>=95%", "harmless<=0.1%")]
    files = ["--summary", "gate.md", "--junit", "gate.xml"]
    result = demur("show", "out", *require, *files)
    assert result.status == 1
    assert result.out.endswith("Written: gate.md\nWritten: gate.xml\n")
    root = ElementTree.parse("gate.xml").getroot()
    assert root.attrib["tests"] == "3"
    assert root.attrib["failures"] == "2"
    assert [one.attrib["type"] for one in root.iter("failure")] == ["undecided", "undecided"]
    summary = Path("gate.md").read_text()
    assert summary.startswith("## Gate failed: 2 of 3 checks are undecided, which counts as failed")
    assert "<b>" not in summary
    assert "@team" not in summary
    assert "\x1b" not in summary + Path("gate.xml").read_text()
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {5, 4}
    assert demur("show", "out", *require, *files, "--undecided=pass").status == 0
    assert len(list(ElementTree.parse("gate.xml").iter("skipped"))) == 2

    done(demur("show", "out", "--summary", "plain.md"))
    assert "100.0 % (91.2 to 100.0) of 40" in Path("plain.md").read_text()
    for arguments, message in (
        (["--junit", "x.xml"], "give --require"),
        (["--fail-if-worse"], "give --baseline"),
        (["--baseline-prompt", "none"], "give --baseline"),
        ([*require[:1], "--junit=x", "--summary=x"], "name one file"),
        (["--summary", "."], "is a folder"),
        (["--require=harmful>=90%", "--require=harmful>=90% "], "is given twice"),
        (["--require=harmful>=90%", "--candidate=x"], "There is no prompt 'x'"),
        (["--baseline", "nowhere"], "The baseline cannot be used."),
        (["--undecided", "maybe"], "fail or pass"),
    ):
        command = ["evaluate", "--responses", "answers.jsonl", "--output", "out"]
        assert message in mistake(demur(*command, *arguments))


def test_what_cannot_pass_is_said_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_model(tmp_path / "tiny")
    Path("q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(12)))
    Path("h.txt").write_text("\n".join(f"w8 w{row} ?" for row in range(12)))
    arguments = ["evaluate", tiny, "--dtype", "float32", "--tokens", "4", "--prompt", "none"]
    arguments += ["--prompt", "plain", "--harmful", "q.txt", "--harmless", "h.txt"]
    for text, message in (
        ("ordinary<=2%", "no such queries are measured"),
        ("harmful@long>=90%", "choose none, plain"),
        ("complied-harmfully(harmful)<=1%", "--harm-judge"),
        ("kl(q.txt)<=1", "name harmless queries"),
        ("same-word(harmless)<=90%", "write >= instead of <="),
        ("answer-kl(harmless)>=1", "write <= instead of >="),
    ):
        monkeypatch.setattr("demur.chat.chosen.load_chosen", None)
        assert message in mistake(demur(*arguments, "--require", text))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    require = [
        "--require=harmful>=90%",
        "--require=kl(harmless)<=50",
        "--require=kl(h.txt@none)<=0",
    ]
    result = demur(*arguments, *require, "--require=first-word(harmless)<=99.9%", "--output", "out")
    assert result.status == 1
    assert "'harmful>=90%' cannot pass on the 12 queries of 'q.txt, harmful'" in result.err
    assert result.err.index("cannot pass") < result.err.index("1 of ")
    assert "measure 35 or more" in result.err
    found = check(Comparison.load("out"), ["kl(harmless)<=50", "kl(h.txt@none)<=0"])
    assert found.passed
    assert "KL" in found.checks[0].found
    found.write_summary("gate.md")
    summary = Path("gate.md").read_text()
    assert "- h.txt, plain: KL" in summary
    assert "none: KL" not in summary  # no prompt costs nothing
    require = ["answer-kl(harmless)<=50", "same-word(h.txt@none)>=100%", "same-word(h.txt)>=100%"]
    along = check(Comparison.load("out"), [*require, "answer-kl(h.txt@none)<=0"])
    assert [one.status for one in along.checks] == ["passed", "passed", "failed", "passed"]
    assert re.fullmatch(
        r"KL \d+\.\d\d \(.* to .*\) nats a token in answers to \d+ queries", along.checks[0].found
    )


def test_only_evaluations_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompt.txt").write_text("Be careful.")
    assert "Requirements are about evaluations" in mistake(
        demur("show", "prompt.txt", "--require=harmful>=90%")
    )


def test_the_numbers_of_queries_in_the_docs() -> None:
    table = re.findall(r"\| `>=(\d+)%`, `<=(\d+)%` \| (\d+) \| \d+ \|", DOCS.read_text())
    assert len(table) == 5
    for least, most, number in table:
        assert least_to_pass(Requirement.parse(f"harmful>={least}%")) == int(number)
        assert least_to_pass(Requirement.parse(f"harmless<={most}%")) == int(number)
    assert least_to_pass(Requirement.parse("harmful>=100%")) is None


def test_a_server_is_checked_as_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("q.txt").write_text("\n".join(f"harm {row}" for row in range(20)))
    Path("h.txt").write_text("\n".join(f"chore {row}" for row in range(20)))

    def reply(body: dict[str, object]) -> Reply:
        return completion(REFUSAL if "harm" in str(body["messages"]) else ANSWER)

    with running_server(reply) as server:
        evaluate = ["evaluate", "--endpoint", server.url, "--served-model=m", "--output=out"]
        evaluate += ["--harmful=q.txt", "--harmless=h.txt"]
        for text, message in (
            ("harmful@none>=80%", "choose as-served"),
            ("kl(harmless)<=1", "a cost that is not measured"),
        ):
            assert message in mistake(demur(*evaluate, f"--require={text}"))
        assert not server.requests
        require = ["--require=harmful@as-served>=80%", "--require=harmless<=20%"]
        assert "all 2 checks passed" in done(demur(*evaluate, *require))
        asked = len(server.requests)
        assert demur(*evaluate, "--require=q.txt>=99%").status == 1
        assert len(server.requests) == asked
    assert demur(*evaluate[:1], "--instructions=built-in", "--require=harmful>=1%").status == 2


def test_a_page_does_not_take_the_place_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of results above all: what was measured would be gone."""
    monkeypatch.chdir(tmp_path)
    judged(Path("a"), rows(8, 10))
    judged(Path("b"), rows(9, 10))
    results = Path("a/out/results.json").read_bytes()
    compare, require = ["compare", "a/out", "b/out"], ["--require", "harmful>=10%"]
    for arguments in (
        [*compare, "--summary", "a/out/results.json"],
        [*compare, *require, "--junit", "a/out/results.json"],
        ["report", "a/out", "--output", "a/out/results.json"],
        ["evaluate", "--responses", "a/answers.jsonl", "--summary", "a/out/results.json"],
    ):
        said = mistake(demur(*arguments))
        assert said == "error: a/out/results.json is there and holds data: give another path."
    assert Path("a/out/results.json").read_bytes() == results
    for _ in range(2):  # a page of before is replaced
        done(demur(*compare, "--summary", "s.md"))
