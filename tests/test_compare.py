"""Two evaluations side by side: what changed, and whether it got worse."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from demur import Comparison, DemurError, check, compare_evaluations
from demur.cli.gate import print_changes, print_checks
from demur.cli.plain import PlainConsole
from demur.prompts import load_basic_prompt
from demur.records import fingerprint
from demur.records.codec import canonical
from tests.command_line import demur, done, mistake
from tests.report_folders import finished_run
from tests.test_gate import REFUSAL, judged, rows
from tests.tiny import save_tiny_model


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an evaluation of June that refuses 80 of 100, and 5 of 100."""
    monkeypatch.chdir(tmp_path)
    judged(tmp_path / "june", rows(80, 100), rows(5, 100, "harmless"))
    return tmp_path


def statuses(after: Comparison, **options: object) -> list[str]:
    result = check(after, baseline="june/out", fail_if_worse=True, **options)  # type: ignore[arg-type]
    return [one.status for one in result.checks]


@pytest.mark.parametrize(
    ("harmful", "harmless", "expected"),
    [
        (80, 5, ["passed", "passed"]),
        (77, 7, ["passed", "passed"]),  # within chance
        (60, 5, ["failed", "passed"]),
        (80, 30, ["passed", "failed"]),
        (100, 0, ["passed", "passed"]),
    ],
)
def test_worse_by_more_than_chance_fails(
    days: Path, harmful: int, harmless: int, expected: list[str]
) -> None:
    after = judged(days / "july", rows(harmful, 100), rows(harmless, 100, "harmless"))
    assert statuses(after) == expected
    worse = "failed" in expected
    answers = ["--responses", "july/answers.jsonl"]
    for command in (
        ["compare", "june/out", "july/out"],
        ["show", "july/out", "--baseline", "june/out"],
        ["evaluate", *answers, "--output", "july/out", "--baseline", "june/out"],
    ):
        done(demur(*command))  # a comparison alone does not fail
        assert demur(*command, "--fail-if-worse").status == int(worse)


def test_what_changed_is_named_query_by_query(days: Path) -> None:
    answers = rows(60, 100)
    answers[90] = {**answers[90], "response": REFUSAL}
    after = judged(days / "july", answers[::-1], rows(5, 100, "harmless"))
    changes = compare_evaluations("june/out", after)
    harmful, harmless = changes.find("mine").groups
    assert [one.query for one in harmful.more] == ["things harmful 90"]
    assert {one.query for one in harmful.fewer} == {f"things harmful {n}" for n in range(60, 80)}
    assert (harmful.before.count, harmful.after.count, harmful.difference) == (80, 61, -0.19)
    assert harmful.p_value < harmful.adjusted_p_value < 0.05
    assert (harmless.more, harmless.fewer, harmless.p_value) == ((), (), 1.0)
    assert changes.find("mine").verdict.kind == "harmful"
    out = done(demur("compare", "june/out", "july/out", "--listed", "2", "--summary", "s.md"))
    words = " ".join(out.split())
    assert "things, harmful: 1 of 100 refused now or more often" in words
    assert "things harmful 90 (not refused before, refused after)" in words
    assert "things, harmful: 20 of 100 refused no longer or less often" in words
    assert "18 more (--listed)" in words
    assert "Worse than before, because it lets more harm through: mine refuses 61 of 100" in words
    summary = Path("s.md").read_text()
    assert "| things, harmful | refused | 80.0 % | 61.0 % | -19.0 |" in summary
    assert summary.count("(refused before, not refused after)") == 2
    out = done(demur("compare", "june/out", "july/out", "--listed=0", "--summary", "s.md"))
    assert "things harmful" not in out + Path("s.md").read_text()


def test_many_sets_do_not_fail_by_chance(days: Path) -> None:
    """Seven queries of 100 are more than chance alone, and not as one of twelve sets."""
    names = [f"set {number}" for number in range(12)]
    judged(days / "many", *(rows(80, 100, set=name) for name in names))
    later = judged(
        days / "later",
        rows(73, 100, set=names[0]),
        *(rows(80, 100, set=name) for name in names[1:]),
    )
    (first, *_) = compare_evaluations("many/out", later).find("mine").groups
    assert first.p_value == pytest.approx(2 / 2**7)
    assert first.adjusted_p_value == pytest.approx(12 * 2 / 2**7)
    assert check(later, baseline="many/out", fail_if_worse=True).passed
    judged(days / "one", rows(80, 100, set=names[0]))
    alone = judged(days / "alone", rows(73, 100, set=names[0]))
    assert not check(alone, baseline="one/out", fail_if_worse=True).passed


def test_few_queries_are_undecided_only_where_one_got_worse(days: Path) -> None:
    judged(days / "before", rows(4, 5))
    for refused, expected in ((4, "passed"), (5, "passed"), (3, "undecided")):
        after = judged(days / f"after {refused}", rows(refused, 5))
        (one,) = check(after, baseline="before/out", fail_if_worse=True).checks
        assert one.status == expected
        assert ("at least 6 queries" in one.advice) == (expected == "undecided")


def test_the_prompts_that_are_compared(days: Path) -> None:
    judged(days / "before", rows(80, 100, prompt="none"), rows(90, 100, prompt="old"))
    after = judged(days / "after", rows(80, 100, prompt="none"), rows(60, 100, prompt="new"))

    def pairs(**options: str) -> list[tuple[str, str]]:
        found = compare_evaluations("before/out", after, **options)  # type: ignore[arg-type]
        return [(one.before, one.after) for one in found.prompts]

    assert pairs() == [("none", "none"), ("old", "new")]
    assert pairs(baseline_prompt="none") == [("none", "none"), ("none", "new")]
    assert pairs(candidate="none") == [("none", "none")]
    assert not check(after, baseline="before/out", fail_if_worse=True).passed
    assert check(after, baseline="before/out", fail_if_worse=True, candidate="none").passed
    # The rates of each are its own: the same name in both is not one prompt.
    (bare, _) = compare_evaluations("before/out", after).prompts
    assert bare.groups[0].before.queries == bare.groups[0].after.queries == 100
    for option, message in (
        ("--candidate=old", "There is no prompt 'old'"),
        ("--baseline-prompt=new", "The baseline has no prompt 'new'"),
    ):
        assert message in mistake(demur("compare", "before/out", "after/out", option))


def test_a_new_prompt_beside_the_old_ones_is_compared_only_in_a_gate(days: Path) -> None:
    judged(days / "before", rows(20, 100, prompt="none"), rows(80, 100, prompt="mine"))
    after = judged(
        days / "after",
        rows(20, 100, prompt="none"),
        rows(80, 100, prompt="mine"),
        rows(60, 100, prompt="new"),
    )
    changes = compare_evaluations("before/out", after)
    assert [(one.before, one.after) for one in changes.prompts] == [
        ("none", "none"),
        ("mine", "mine"),
    ]
    (remark,) = changes.remarks
    assert remark.startswith("The prompt new was not measured before: --candidate and ")
    compare = ["compare", "before/out", "after/out"]
    words = " ".join(done(demur(*compare)).split())
    assert remark in words
    assert "mine: None of the 100 queries changed." in words
    assert "new, before mine" not in words
    for option in ("--candidate=new", "--baseline-prompt=mine"):
        words = " ".join(done(demur(*compare, option)).split())
        assert "new, before mine: Worse than before" in words
    gate = demur(*compare, "--fail-if-worse")
    assert gate.status == 1
    assert "not worse than before/out: new on things, harmful" in " ".join(gate.out.split())


def test_what_does_not_fit_together_is_said(days: Path) -> None:
    for given in ([], ["june/out"]):
        line = mistake(demur("compare", *given))
        assert "takes two folders: two evaluations, the earlier one first, or two runs" in line
    finished_run(days / "a run")
    for given in (["june/out", "a run"], ["a run", "june/out"]):
        line = mistake(demur("compare", *given))
        assert "a run is the folder of a run: give two evaluations, or two runs, or " in line
        assert "`demur evaluate --prompt 'a run'`" in line


def test_a_terminal_of_80_columns_shows_lines_whole(days: Path) -> None:
    long = "qwen2.5-coder-0.5b-refuse.txt-answer.txt"
    for folder, refused in ((long, 4), (f"{long}-2", 9)):
        answers = rows(refused, 12, prompt="my-prompt.txt")
        answers[5]["query"] = "how " * 40
        judged(days / folder, answers)
    result = check(f"{long}-2/out", baseline=f"{long}/out", fail_if_worse=True)
    assert result.changes is not None
    out = io.StringIO()
    console = PlainConsole(width=80, force_terminal=True, no_color=True, file=out)
    print_changes(console, result.changes, 5)
    print_checks(console, result)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "my-prompt.txt, before and after" in lines
    assert f"before: {long}/out" in lines
    assert f"after: {long}-2/out" in lines
    words = " ".join(" ".join(lines).split())
    assert "how how" in words
    assert "... (not refused before, refused after)" in words
    assert f"passed not worse than {long}/out: my-prompt.txt on things, harmful: refused" in words


def test_what_could_no_longer_be_read_is_worse(days: Path) -> None:
    answers = rows(80, 100)
    silent = [{**row, "response": "", "end": "content_filter"} for row in answers[:20]]
    after = judged(days / "july", silent, answers[20:], rows(5, 100, "harmless"))
    assert statuses(after) == ["failed", "passed"]
    assert statuses(after, unread="leave-out") == ["passed", "passed"]
    group = compare_evaluations("june/out", after).find("mine").groups[0]
    assert group.fewer[0].in_words == "refused before, no answer or verdict after"


def test_several_samples_count_as_one_query(days: Path) -> None:
    judged(days / "before", rows(10, 20), rows(10, 20), rows(10, 20))
    after = judged(days / "after", rows(10, 20), rows(10, 20), rows(4, 20))
    group = compare_evaluations("before/out", after).find("mine").groups[0]
    assert group.before.queries == 20
    assert group.after.count == pytest.approx(8)
    assert group.fewer[0].in_words == "3 of 3 refused before, 2 of 3 refused after"


def test_queries_that_are_not_in_both_are_said(days: Path) -> None:
    more = [{**row, "query": f"new {row['query']}"} for row in rows(0, 3)]
    judged(days / "july", rows(80, 99), more, rows(2, 10, None, set="unlabelled"))
    out = " ".join(done(demur("compare", "june/out", "july/out")).split())
    assert "things, harmful, mine: 1 query was measured only before." in out
    assert "things, harmful, mine: 3 queries were measured only after." in out
    assert "unlabelled, mine: not measured before." in out
    assert "things, harmless, mine: not measured after." in out
    judged(days / "others", [{**row, "query": f"new {row['query']}"} for row in rows(0, 9)])
    assert "have no query in common" in mistake(demur("compare", "june/out", "others/out"))
    assert "compared with itself" in mistake(demur("compare", "june/out", "june/../june/out"))
    assert "nowhere is not the folder of an" in mistake(demur("compare", "june/out", "nowhere"))


def test_folders_of_one_name_are_told_apart(days: Path) -> None:
    judged(days / "july", rows(60, 100))
    out = done(demur("compare", "june/out", "july/out"))
    assert "mine: july/out compared with june/out" in out
    command = out.splitlines()[-1]
    assert command == "demur report june/out july/out"
    done(demur(*shlex.split(command)[1:]))
    page = Path("demur-report.html").read_text(encoding="utf-8")
    assert "<h2>july/out: Responses, judged</h2>" in page
    assert "<h3>july/out compared with june/out</h3>" in page
    gated = done(demur("compare", "june/out", "july/out", "--require", "harmful>=40%"))
    assert "demur report" not in gated


def test_queries_without_a_label_get_neither_better_nor_worse(days: Path) -> None:
    judged(days / "before", rows(50, 60, None))
    after = judged(days / "after", rows(5, 60, None))
    changes = compare_evaluations("before/out", after).find("mine")
    assert changes.groups[0].more_than_chance
    assert not changes.is_worse
    (one,) = check(after, baseline="before/out", fail_if_worse=True).checks
    assert one.status == "undecided"


def test_another_judge_cannot_be_compared(days: Path) -> None:
    judged(days / "july", rows(80, 100), rows(5, 100, "harmless"), judge="paper")
    line = mistake(demur("compare", "june/out", "july/out"))
    assert "The judge is 'default' before and 'paper' after" in line
    assert "measure with --judge 'default'" in line
    answers = ["evaluate", "--responses", "july/answers.jsonl", "--output", "new"]
    line = mistake(demur(*answers, "--judge=paper", "--baseline", "june/out", "--fail-if-worse"))
    assert "The judge is 'default' before" in line
    assert not Path("new").exists()


def test_evaluations_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_model(tmp_path / "tiny")
    Path("mine.txt").write_text("w1 w2 .")
    queries = [f"w7 w{row} ?" for row in range(20)]
    Path("q.txt").write_text("\n".join(queries))
    Path("same.txt").write_text("\n".join(queries))
    Path("fewer.txt").write_text("\n".join(queries[:-1]))
    evaluate = ["evaluate", tiny, "--dtype", "float32", "--prompt", "none", "--prompt"]
    gate = ["--baseline", "june", "--fail-if-worse"]
    done(demur(*evaluate, "mine.txt", "--harmful=q.txt", "--tokens=4", "--output=june"))

    # Another name of the same prompt and queries, and another seed, are compared.
    shutil.move("mine.txt", "renamed.txt")
    renamed = [*evaluate, "renamed.txt", "--harmful=same.txt", "--tokens=4", "--seed=1"]
    result = demur(*renamed, "--output=july", *gate)
    assert result.status in (0, 1)
    words = " ".join(result.out.split())
    assert "The prompt renamed.txt was called mine.txt before." in words
    assert "The seed was 0 before and is 1 after." in words
    assert "not worse than june: renamed.txt on same.txt, harmful" in words
    assert demur(*renamed, "--output=july", *gate).out == result.out
    monkeypatch.chdir("july")
    out = done(demur("compare", "../june", "."))
    assert "july compared with june" in out
    monkeypatch.chdir(tmp_path)

    # Another prompt under the old name is compared with that name, and said.
    Path("mine.txt").write_text("w9 w14 w3 .")
    other = [*evaluate, "mine.txt", "--tokens=4", "--harmful=q.txt"]
    demur(*other, "--output=other")
    changes = compare_evaluations("june", "other")
    assert [(one.before, one.after) for one in changes.prompts] == [
        ("none", "none"),
        ("mine.txt", "mine.txt"),
    ]
    assert "The prompt mine.txt is not the one that was measured before." in changes.remarks
    assert changes.prompts[0].is_same

    # A new prompt is compared with the one that is not there any more.
    Path("new.txt").write_text("w9 w14 w3 w8 .")
    done(demur(*evaluate, "new.txt", "--tokens=4", "--harmful=q.txt", "--output=new prompt"))
    changes = compare_evaluations("june", "new prompt")
    assert changes.prompts[-1].before == "mine.txt"
    assert "The prompt new.txt was not measured before: it is compared with mine.txt." in (
        changes.remarks
    )

    # What does not fit is found before the model is loaded.
    monkeypatch.setattr("demur.chat.chosen.load_chosen", None)
    for arguments, message in (
        ([*other, "--samples=2"], "differ in samples, 1 before and 2 after"),
        ([*other[:-2], "--harmful=q.txt", "--tokens=5"], "measure with --tokens 4"),
        ([*other, "--judge=paper"], "The judge is 'default' before"),
        ([*other[:-1], "--harmful=held-out"], "share no queries"),
        ([*other[:-1], "--harmful=fewer.txt"], "share no queries"),
        ([*other, "--baseline-prompt=long"], "The baseline has no prompt 'long'"),
        ([*other, "--candidate=long"], "There is no prompt 'long'"),
    ):
        assert message in mistake(demur(*arguments, "--output=new", *gate))
    shutil.move("fewer.txt", "q.txt")
    line = mistake(demur(*other, "--output=new", *gate))
    assert "The queries of 'q.txt' are others than in the baseline" in line
    assert not Path("new").exists()


def test_costs_are_set_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_model(tmp_path / "tiny")
    Path("h.txt").write_text("\n".join(f"w8 w{row} ?" for row in range(12)))
    evaluate = ["evaluate", tiny, "--dtype=float32", "--tokens=8", "--harmless=h.txt"]
    evaluate += ["--prompt=none", "--prompt=mine.txt"]
    texts = (load_basic_prompt("plain").text, "w5 w6 w9 w1 w1 w1 w1 w1 w2")
    for day, text in zip(("june", "july"), texts, strict=True):
        Path("mine.txt").write_text(text or "")
        done(demur(*evaluate, f"--output={day}"))
    changes = compare_evaluations("june", "july")
    june, july = (Comparison.load(day).costs for day in ("june", "july"))
    # Nothing changed without a prompt, and the rows of the other one are the figures of each day.
    assert {one.prompt for one in changes.costs} == {"mine.txt"}
    found = {one.figure: one for one in changes.costs}
    assert (found["KL cost (nats)"].before, found["KL cost (nats)"].after) == (
        str(june[1]),
        str(july[1]),
    )
    assert {"KL a token (nats)", "same word likeliest", "first word changed"} < set(found)
    lower, higher = june[1].interval, july[1].interval
    assert lower is not None
    assert higher is not None
    apart = higher.low > lower.high or higher.high < lower.low
    assert (found["KL cost (nats)"].told == "within chance") != apart
    # The other way round, what costs more costs less.
    back = {one.figure: one for one in compare_evaluations("july", "june").costs}
    opposite = {True: False, False: True, None: None}
    assert {name: opposite[one.is_worse] for name, one in found.items()} == {
        name: one.is_worse for name, one in back.items()
    }
    assert any(one.is_worse is not None for one in found.values())
    out = done(demur("compare", "june", "july", "--summary", "s.md"))
    for shown in ("Cost on harmless queries: july compared with june", "KL a token (nats)"):
        assert shown in out
    assert "| prompt | harmless queries | cost | before | after |" in Path("s.md").read_text()


def test_a_set_of_the_baseline_that_is_left_out_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = save_tiny_model(tmp_path / "tiny")
    for name in ("a.txt", "b.txt", "c.txt"):
        Path(name).write_text("\n".join(f"{name} w{row} ?" for row in range(4)))
    evaluate = ["evaluate", tiny, "--dtype=float32", "--prompt=none", "--tokens=4"]
    done(demur(*evaluate, "--harmful=a.txt", "--harmful=b.txt", "--output=june"))
    gate = ["--baseline=june", "--fail-if-worse"]
    line = mistake(demur(*evaluate, "--harmful=a.txt", "--output=july", *gate))
    assert "The baseline has queries 'b.txt', which are not measured now" in line
    sets = ["--harmful=a.txt", "--harmful=b.txt", "--harmful=c.txt"]
    out = done(demur(*evaluate, *sets, "--output=july", *gate))
    assert "c.txt, harmful, none: not measured before." in " ".join(out.split())
    done(demur("compare", "july", "june"))
    turn = [*evaluate, "--harmful=a.txt", "--turn=3"]
    done(demur(*turn, "--output=third"))
    later = [*turn, "--seed=7", "--output=later", "--baseline=third", "--fail-if-worse"]
    assert "follows from the seed, so measure with --seed 0" in mistake(demur(*later))
    with pytest.raises(DemurError, match=r"queries 'c.txt', which are not measured now"):
        check(Comparison.load("june"), baseline="july", fail_if_worse=True)


def test_a_baseline_from_before_demur_got_a_setting(days: Path) -> None:
    after = judged(days / "july", rows(80, 100), rows(5, 100, "harmless"))
    folder = days / "june" / "out"
    settings = json.loads((folder / "settings.json").read_text())
    del settings["content"]["settings"]["queries"]["turn"]
    results = json.loads((folder / "results.json").read_text())
    results["content"]["settings"] = fingerprint(
        "evaluation settings", settings=settings["content"]
    )
    for name, document in (("settings", settings), ("results", results)):
        document["sha256"] = hashlib.sha256(canonical(document["content"])).hexdigest()
        (folder / f"{name}.json").write_text(json.dumps(document))
    assert statuses(after) == ["passed", "passed"]
    results["content"]["settings"] = "0" * 64
    results["sha256"] = hashlib.sha256(canonical(results["content"])).hexdigest()
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(DemurError, match="is not finished"):
        statuses(after)
