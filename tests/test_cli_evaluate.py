"""`demur evaluate`: what a user types and sees."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from demur.evaluation.comparison import Comparison
from demur.judges import EndpointSettings
from tests.command_line import demur, done, mistake
from tests.endpoint_server import Reply, completion, running_endpoint
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_evaluate_prints_one_table_and_show_prints_it_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2 .")
    Path("q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(12)))
    arguments = ["evaluate", tiny, "--dtype", "float32", "--tokens", "4", "--judge", "paper"]
    arguments += ["--prompt", "none", "--prompt", "basic.txt", "--prompt", "plain"]
    arguments += ["--harmful", "q.txt", "--harmless", "held-out"]
    first = demur(*arguments)
    out, err = done(first), first.err
    for expected in ("none", "basic.txt", "plain", "q.txt, harmful", "held-out, harmless", "(12)"):
        assert expected in out
    assert "wrong: a harmful query not refused" in out
    assert "least once" not in out
    assert "KL cost" in out
    assert "first word changed: share of the queries" in out
    assert "judge: paper, 4 tokens" in out
    ending = " ".join(out.split("demur show ")[1].split())
    for prompt in ("basic.txt", "plain"):
        assert f": {prompt} refuses " in ending
    assert ending.count("than no prompt") == 2
    # Blank answers of the tiny model leave a query out.
    assert len(re.findall(r" of 1[0-2] harmful queries instead of ", ending)) == 2
    assert "the likeliest first word changed for" in ending
    assert ". Next: " in ending
    assert "held-out (100)" in out
    assert out.count("basic.txt to plain") == 2
    (folder,) = Path("demur-evaluations").iterdir()
    assert folder.name == "tiny-q.txt-held-out"
    assert "1 of 7  Asking q.txt: none: begins" in err
    assert "6 of 7  Asking held-out: plain: done in" in err
    assert "7 of 7  Measuring the cost: plain: done in" in err
    assert done(demur("show", folder)) == out
    again = demur(*arguments)
    assert done(again) == out
    assert "finished already" in again.err
    named = [*arguments, "--output", folder, "--tokens", "5"]
    assert "another tokens" in mistake(demur(*named))
    other = demur(*arguments, "--tokens", "5")
    assert "judge: paper, 5 tokens" in done(other)
    assert f"goes to {folder}-2" in " ".join(other.err.split())


def test_the_next_command_repeats_the_prompt_and_the_queries_that_were_given(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my prompt.txt").write_text("w1 w2 .")
    Path("judge.py").write_text(
        "def none(queries, responses):\n    return [False] * len(queries)\n"
    )
    for name in ("refuse", "answer"):
        Path(f"{name}.txt").write_text("\n".join(f"{name} w{row} ?" for row in range(30)))
    out = done(
        demur(
            *("evaluate", tiny, "--tokens", "4", "--judge", "judge.py:none"),
            *("--prompt", "none", "--prompt", "my prompt.txt"),
            *("--harmful", "refuse.txt", "--harmless", "held-out", "--harmless", "answer.txt"),
        )
    )
    opening, command = out.split("Next: ")[1].splitlines()
    assert opening == "train a prompt for this model, on your queries and built-in ones:"
    assert command == (
        "demur optimize --basic-prompt 'my prompt.txt' --harmful training --harmful refuse.txt "
        f"--harmless training --harmless answer.txt {tiny}"
    )
    out = done(
        demur(
            *("evaluate", tiny, "--tokens", "4", "--judge", "judge.py:none"),
            *("--prompt", "none", "--prompt", "plain", "--dtype", "float32"),
        )
    )
    opening, command = out.split("Next: ")[1].splitlines()
    assert opening == "train a prompt for this model, with queries of your own:"
    assert command == f"demur optimize --basic-prompt plain {tiny}"


@pytest.mark.parametrize(
    ("given", "opening", "both"),
    [
        ("none", "compare it with a prompt:", "long"),
        ("my.txt", "compare it with no prompt:", "my.txt"),
    ],
)
def test_a_single_prompt_ends_with_how_to_compare_it(
    given: str, opening: str, both: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("w1 w2 .")
    Path("q.txt").write_text("w7 ?\nw8 ?")
    arguments = ["evaluate", tiny, "--prompt", given, "--harmful", "q.txt", "--tokens", "4"]
    out = done(demur(*arguments, "--judge", "paper", "--output", "out"))
    told, command = out.split("Next: ")[1].splitlines()
    assert told == opening
    assert command == (
        f"demur evaluate {tiny} --prompt none --prompt {both} --harmful q.txt --judge paper "
        "--tokens 4"
    )
    assert done(demur("show", "out")) == out


def test_sets_of_one_name_are_told_apart_and_those_of_one_file_joined(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, word in ((".", "w7"), ("one", "w8"), ("two", "w9")):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "q.txt").write_text("\n".join(f"{word} w{row} ?" for row in range(4)))
    arguments = ["evaluate", tiny, "--dtype", "float32", "--tokens", "4", "--prompt", "none"]
    sets = ["--harmful", "q.txt", "--harmful", "one/q.txt", "--harmful", "held-out"]
    sets += ["--harmless", "two/q.txt", "--harmless", "./one/../q.txt", "--harmless", "held-out"]
    done(demur(*arguments, *sets, "--output", "out"))
    found = Comparison.load("out")
    assert [(one.set, one.label) for one in found.rates if one.category is None] == [
        ("q.txt", "harmful"),
        ("q.txt", "harmless"),
        ("q.txt (2)", "harmful"),
        ("held-out", "harmful"),
        ("held-out", "harmless"),
        ("q.txt (3)", "harmless"),
    ]
    line = mistake(demur(*arguments, "--harmful", "q.txt", "--harmful", "./q.txt"))
    assert "The harmful queries 'q.txt' are given twice: leave one out." in line


def test_responses_are_judged_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("response\nI cannot help with that.\nSure.\n")
    monkeypatch.setattr("demur.chat.ChatModel.load", None)
    out = done(demur("evaluate", "--responses", "r.csv"))
    assert "50.0 %" in out
    assert "wrong" not in out
    (rates,) = Comparison.load("demur-evaluations/responses-r-default").rates
    assert rates.refused is not None
    assert rates.refused.value == 0.5


def test_a_harm_judge_behind_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = ["One.\nTwo.\nThree.", "One line.", "I cannot help.\nNo.\nReally."]
    rows = [{"query": f"q{row}", "label": "harmful"} for row in range(3)]
    lines = [json.dumps({**row, "response": text}) for row, text in zip(rows, answers, strict=True)]
    Path("r.jsonl").write_text("\n".join(lines))
    with running_endpoint(lambda _: completion("unsafe")) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        out = done(demur("evaluate", "--responses", "r.jsonl", *judge))
    assert len(endpoint.requests) == 1  # only one response could comply
    assert "complied" in out
    assert "33.3 %" in out


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of answers to harmful queries, each of which a harm judge is asked about."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"query": f"q{row}", "label": "harmful", "response": "One.\nTwo.\nThree."}
        for row in range(4)
    ]
    Path("r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "r.jsonl"


def test_a_judge_of_harm_that_reads_nothing_is_said(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads answers to harmful queries, and not every file says which those are."""
    monkeypatch.chdir(tmp_path)
    Path("j.py").write_text("def judge(queries, responses):\n    return [True] * len(responses)\n")
    Path("some.csv").write_text("response,label\nSure.,harmful\nYes.,\n")
    Path("none.csv").write_text("response\nSure.\nYes.\n")
    judge = ["--harm-judge", "j.py:judge"]
    for name, said in (
        ("none.csv", "read nothing, because no response has the label harmful"),
        ("some.csv", "read only the responses with the label harmful"),
    ):
        first = done(demur("evaluate", "--responses", name, *judge))
        assert f"the judge of harm, j.py:judge, {said}" in " ".join(first.split())
    Path("q.txt").write_text("w1 w2 ?")
    assert mistake(demur("evaluate", tiny, "--harmless", "q.txt", *judge)) == (
        "error: A judge of harm reads answers to harmful queries, and none are chosen: give "
        "--harmful, or leave out --harm-judge."
    )


def test_a_judge_that_answers_nonsense_is_reported_and_never_safe(answers: str) -> None:
    said = iter(["unsafe", "safe", "As a judge, I find it safe.", "{}"])
    with running_endpoint(lambda _: completion(next(said))) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        result = demur("evaluate", "--responses", answers, *judge)
    out, err = done(result), result.err
    assert "Responses without a verdict on harm, left out of these rates: 2." in " ".join(
        out.split()
    )
    assert "no verdict on 2 of 4" in " ".join(err.split())
    assert "50.0 %" in out  # one of the two that have a verdict


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": {"message": "who are you"}}), "refuses the key"),
        ((404, {"error": {"message": "no such model"}}), "knows no model 'some-judge'"),
        ((200, "<html>hello</html>"), "does not answer as OpenAI's endpoints do"),
    ],
)
def test_an_endpoint_that_does_not_serve_ends_in_one_line(
    answers: str, reply: Reply, message: str
) -> None:
    with running_endpoint(lambda _: reply) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        assert message in mistake(demur("evaluate", "--responses", answers, *judge))
    with running_endpoint(lambda _: completion("safe")) as endpoint:
        again = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        assert "0.0 %" in done(demur("evaluate", "--responses", answers, *again))


@pytest.mark.parametrize("how", ["down", "slow"])
def test_an_endpoint_that_is_down_or_slow_ends_in_one_line(
    answers: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = partial(EndpointSettings, timeout=0.5, retries=0)
    monkeypatch.setattr("demur.judges.registry.EndpointSettings", impatient)
    with running_endpoint(lambda _: completion("safe")) as endpoint:
        endpoint.delay = 2.0
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        if how == "slow":
            assert "no answer within 0.5 s" in mistake(
                demur("evaluate", "--responses", answers, *judge)
            )
    if how == "down":
        assert "cannot be reached" in mistake(demur("evaluate", "--responses", answers, *judge))
    assert not Path("demur-evaluations/responses-r-default").exists()


def test_a_benchmark_with_another_hash_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    Path("files/advbench.txt").write_text("not as published\n")
    line = mistake(demur("evaluate", "--benchmark", "advbench", "--benchmark-dir", "files"))
    assert "has the SHA-256" in line
    assert "get that file again" in line
    assert Path("files/advbench.txt").read_text() == "not as published\n"


def test_two_prompts_of_one_name_are_told_apart(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "mine.txt").write_text(f"w1 w2 {folder}.")
    Path("q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(4)))
    prompts = ["--prompt", "a/mine.txt", "--prompt", "b/mine.txt"]
    out = done(demur("evaluate", tiny, *prompts, "--harmful", "q.txt", "--tokens", "4"))
    assert "mine.txt to mine.txt (2)" in " ".join(out.split())


def test_own_code_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("response\nNo.\nYes.\nYes.\nYes.\n")
    Path("mine.py").write_text(
        "def says_no(queries, responses):\n    return [text == 'No.' for text in responses]\n"
    )
    out = done(demur("evaluate", "--responses", "r.csv", "--judge", "mine.py:says_no"))
    assert "25.0 %" in out
    (folder,) = Path("demur-evaluations").iterdir()
    line = mistake(demur("evaluate", "--config", folder / "settings.json", "--output", folder))
    assert "has code run through --judge: give that option here as well" in line
    again = ["--config", folder / "settings.json", "--output", folder]
    assert done(demur("evaluate", *again, "--judge", "mine.py:says_no")) == out


def test_large_responses_with_a_byte_order_mark_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "I cannot help with that. " + "Words and more. " * 660_000
    with Path("r.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        stream.write("query,response\r\n")
        stream.writelines(f"q{row},{text}\r\n" for row in range(5))
    assert Path("r.csv").stat().st_size > 50_000_000
    out = done(demur("evaluate", "--responses", "r.csv"))
    assert "100.0 %" in out


def test_outputs_are_compared_through_an_endpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2 .")
    Path("tasks.txt").write_text("\n".join(f"w9 w{row} ?" for row in range(6)))
    answers = {"w9 w0 ?": "neither", "w9 w1 ?": "a"}  # no verdict, and one that hangs on the order

    def reply(texts: dict[str, str]) -> Reply:
        longer = "a" if texts["a"] > texts["b"] else "b"
        return completion(answers.get(texts["instruction"], longer))

    arguments = ["evaluate", tiny, "--dtype", "float32", "--tokens", "8"]
    arguments += ["--prompt", "none", "--prompt", "basic.txt", "--instructions", "tasks.txt"]
    with running_endpoint(reply) as endpoint:
        judge = ["--preference-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        endpoint.failures = [(401, {"error": {"message": "no"}})]
        assert "refuses the key" in mistake(demur(*arguments, *judge))
        result = demur(*arguments, *judge)  # nothing of the outputs is lost
        out, err = done(result), result.err
        assert "Answering instructions" not in err
        asked = len(endpoint.requests)
        assert done(demur(*arguments, *judge)) == out
        assert len(endpoint.requests) == asked
    assert "preferred to those without a prompt" in " ".join(out.split())
    assert "Refused" not in out
    assert "tokens read" in err
    folder = Path("demur-evaluations/tiny-tasks.txt")
    comparison = Comparison.load(folder)
    (wins,) = comparison.wins
    assert (wins.won.undecided, wins.won.ties) == (1, 1)
    assert wins.won.rate is not None
    assert wins.won.rate.queries == 5
    for output in comparison.outputs:
        assert (folder / output.file).is_file()
        assert output.file in out
    assert done(demur("show", folder)) == out


def test_names_cannot_drive_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"prompt": "[bold]p\x1b[2J", "set": "\u202es\x07[/]", "category": "[red]c\x1b"}
    rows = [{**names, "response": "Sure.", "query": f"q{row}"} for row in range(6)]
    rows += [{**row, "prompt": "other"} for row in rows]
    Path("r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = done(demur("evaluate", "--responses", "r.jsonl"))
    for expected in ("[bold]p", "[red]c", "[/]"):
        assert expected in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prompt", "long", "--prompt", "long"], "The prompt 'long' is given twice: leave one"),
        (["--prompt", "./none", "--prompt", "none.txt"], "'./none' and 'none.txt' are the same"),
        (["--prompt", "missing.txt"], "missing.txt"),
        (["--judge", "jury"], "jury"),
        (["--samples", "0"], "--samples 0"),
        (["--harm-judge", "jury"], "guard:NAME_OR_FOLDER, endpoint:MODEL or FILE.py:NAME"),
        (["--base-url", "http://localhost"], "--base-url belongs to a judge endpoint:MODEL"),
        (["--responses", "r.csv", "--harm-judge", "jury"], "no harm judge 'jury'"),
        (
            ["--preference-judge", "endpoint:m", "--base-url", "http://localhost/v1"],
            "for example --instructions built-in",
        ),
        (["--preference-judge", "x", "--instructions", "built-in"], "give endpoint:MODEL"),
        (["--endpoint", "http://localhost/v1", "--dtype", "float32"], "leave out --dtype"),
        (["m", "--endpoint", "http://localhost/v1"], "no model runs here: leave out MODEL"),
        (["--endpoint", "http://localhost/v1", "--instructions", "x"], "leave out --instructions"),
        (["--endpoint", "localhost"], "localhost"),
        (["--concurrency", "3"], "Without --endpoint, no server answers: leave out --concurrency"),
        (["--responses", "r.csv", "--endpoint", "http://localhost/v1"], "leave out --endpoint"),
        (["--responses", "r.csv", "--seed", "3"], "leave out --seed"),
        (["--instructions", "missing.txt"], "missing.txt"),
        (["--harm-judge", "guard:m", "--base-url", "http://localhost"], "--base-url belongs to"),
        (["--responses", "r.csv", "--instructions", "built-in"], "leave out --instructions"),
        (["--benchmark", "nothing"], "nothing"),
        (["--benchmark", "advbench", "--benchmark-dir", "missing"], "no folder 'missing'"),
        (["--harmful", "missing.txt"], "missing.txt"),
        (["--responses", "missing.csv"], "There is no file 'missing.csv'"),
        (["--responses", "r.csv", "--prompt", "long"], "leave out --prompt"),
        (["some-model", "--responses", "r.csv"], "leave out MODEL"),
        (["no-such-model"], "neither a catalog model"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("response\nSure.\n")
    for name in ("none", "none.txt"):
        Path(name).write_text("Be kind.")
    assert expected in mistake(demur("evaluate", *arguments))
    assert not (tmp_path / "demur-evaluations").exists()


@pytest.mark.parametrize(
    "flag", ["--prompt", "--benchmark", "--harmful", "--harmless", "--responses"]
)
def test_an_empty_text_is_not_the_default(flag: str) -> None:
    """As a variable of a shell is that was never set."""
    line = mistake(demur("evaluate", flag, ""))
    assert line == f"error: {flag} '': must not be empty: give one, or leave {flag} out."


@pytest.mark.parametrize("verb", ["optimize", "evaluate", "diagnose", "chat"])
def test_an_empty_model_is_not_the_default(verb: str) -> None:
    line = mistake(demur(verb, ""))
    assert line == "error: MODEL is empty: give one, or leave it out."
