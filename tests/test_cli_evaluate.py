"""`demur evaluate`: what a user types and sees."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from demur.cli import main
from demur.judges import EndpointSettings
from tests.endpoint_server import Reply, completion, running_endpoint
from tests.tiny import save_tiny_model

Result = tuple[int, str, str]
Command = Callable[..., Result]


@pytest.fixture
def demur(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def mistake(result: Result) -> str:
    """The one line of a user's mistake."""
    status, out, err = result
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_evaluate_prints_one_table_and_show_prints_it_again(
    demur: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basic.txt").write_text("w1 w2 .")
    Path("q.txt").write_text("\n".join(f"w7 w{row} ?" for row in range(12)))
    arguments = ["evaluate", tiny, "--dtype", "float32", "--tokens", "4", "--judge", "paper"]
    arguments += ["--prompt", "none", "--prompt", "basic.txt", "--prompt", "plain"]
    arguments += ["--harmful", "q.txt", "--harmless", "held-out"]
    status, out, err = demur(*arguments)
    assert status == 0, err
    for expected in ("none", "basic.txt", "plain", "q.txt, harmful", "held-out, harmless", "(12)"):
        assert expected in out
    assert "wrong at least once" in " ".join(out.split())
    assert "KL cost" in out
    assert "held-out (100)" in out
    assert out.count("basic.txt to plain") == 2
    (folder,) = Path("demur-evaluations").iterdir()
    assert folder.name == "tiny-q.txt-held-out"
    assert "Measuring on q.txt: none" in err
    assert demur("show", folder)[1] == out
    status, again, err = demur(*arguments)
    assert (status, again) == (0, out)
    assert "finished already" in err
    assert "another tokens" in mistake(demur(*arguments, "--tokens", "5"))


def test_responses_are_judged_without_a_model(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("response\nI cannot help with that.\nSure.\n")
    monkeypatch.setattr("demur.chat.ChatModel.load", None)
    status, out, err = demur("evaluate", "--responses", "r.csv")
    assert status == 0, err
    assert "50.0 %" in out
    assert "wrong" not in out
    results = json.loads(
        Path("demur-evaluations/responses-r-default/results.json").read_text(encoding="utf-8")
    )
    assert results["rates"][0]["refused"]["value"] == 0.5


def test_a_harm_judge_behind_an_endpoint(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = ["One.\nTwo.\nThree.", "One line.", "I cannot help.\nNo.\nReally."]
    rows = [{"query": f"q{row}", "label": "harmful"} for row in range(3)]
    lines = [json.dumps({**row, "response": text}) for row, text in zip(rows, answers, strict=True)]
    Path("r.jsonl").write_text("\n".join(lines))
    with running_endpoint(lambda _: completion("unsafe")) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        status, out, err = demur("evaluate", "--responses", "r.jsonl", *judge)
    assert status == 0, err
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


def test_a_judge_that_answers_nonsense_is_reported_and_never_safe(
    demur: Command, answers: str
) -> None:
    said = iter(["unsafe", "safe", "As a judge, I find it safe.", "{}"])
    with running_endpoint(lambda _: completion(next(said))) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        status, out, err = demur("evaluate", "--responses", answers, *judge)
    assert status == 0, err
    assert "No verdict on harm, left out of these rates: 2 responses." in " ".join(out.split())
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
    demur: Command, answers: str, reply: Reply, message: str
) -> None:
    with running_endpoint(lambda _: reply) as endpoint:
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        assert message in mistake(demur("evaluate", "--responses", answers, *judge))
    assert not Path("demur-evaluations/responses-r-default").exists()


@pytest.mark.parametrize("how", ["down", "slow"])
def test_an_endpoint_that_is_down_or_slow_ends_in_one_line(
    demur: Command, answers: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = partial(EndpointSettings, timeout=0.05, retries=0)
    monkeypatch.setattr("demur.judges.registry.EndpointSettings", impatient)
    with running_endpoint(lambda _: completion("safe")) as endpoint:
        endpoint.delay = 0.5
        judge = ["--harm-judge", "endpoint:some-judge", "--base-url", endpoint.url]
        if how == "slow":
            assert "no answer within 0.05 s" in mistake(
                demur("evaluate", "--responses", answers, *judge)
            )
    if how == "down":
        assert "cannot be reached" in mistake(demur("evaluate", "--responses", answers, *judge))
    assert not Path("demur-evaluations/responses-r-default").exists()


def test_a_benchmark_with_another_hash_ends_in_one_line(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    Path("files/advbench.txt").write_text("not as published\n")
    line = mistake(demur("evaluate", "--benchmark", "advbench", "--benchmark-dir", "files"))
    assert "has the SHA-256" in line
    assert "get that file again" in line
    assert Path("files/advbench.txt").read_text() == "not as published\n"


def test_two_prompts_with_one_name_end_in_one_line(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "mine.txt").write_text(f"Be kind, {folder}.")
    line = mistake(demur("evaluate", "--prompt", "a/mine.txt", "--prompt", "b/mine.txt"))
    assert "two prompts are called 'mine.txt': rename one" in line


def test_large_responses_with_a_byte_order_mark_are_judged(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "I cannot help with that. " + "Words and more. " * 660_000
    with Path("r.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        stream.write("query,response\r\n")
        stream.writelines(f"q{row},{text}\r\n" for row in range(5))
    assert Path("r.csv").stat().st_size > 50_000_000
    status, out, err = demur("evaluate", "--responses", "r.csv")
    assert status == 0, err
    assert "100.0 %" in out


def test_outputs_are_compared_through_an_endpoint(
    demur: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        status, out, err = demur(*arguments, *judge)  # nothing of the outputs is lost
        assert status == 0, err
        assert "Answering instructions" not in err
        asked = len(endpoint.requests)
        assert demur(*arguments, *judge)[1] == out
        assert len(endpoint.requests) == asked
    assert "preferred to those without a prompt" in " ".join(out.split())
    assert "Refused" not in out
    assert "tokens read" in err
    folder = Path("demur-evaluations/tiny-tasks.txt")
    (row,) = json.loads((folder / "results.json").read_text())["wins"]
    assert (row["undecided"], row["ties"]) == (1, 1)
    assert row["rate"]["queries"] == 5
    assert (folder / "outputs/basic.txt.json").is_file()
    assert demur("show", folder)[1] == out


def test_names_cannot_drive_the_terminal(
    demur: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"prompt": "[bold]p\x1b[2J", "set": "\u202es\x07[/]", "category": "[red]c\x1b"}
    rows = [{**names, "response": "Sure.", "query": f"q{row}"} for row in range(6)]
    rows += [{**row, "prompt": "other"} for row in rows]
    Path("r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = demur("evaluate", "--responses", "r.jsonl")
    assert status == 0, err
    for expected in ("[bold]p", "[red]c", "[/]"):
        assert expected in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prompt", "long", "--prompt", "long"], "two prompts are called 'long'"),
        (["--prompt", "missing.txt"], "missing.txt"),
        (["--judge", "jury"], "jury"),
        (["--samples", "0"], "--samples 0"),
        (["--harm-judge", "jury"], "guard:NAME_OR_FOLDER, endpoint:MODEL or FILE.py:NAME"),
        (["--base-url", "http://localhost"], "--base-url belongs to --harm-judge"),
        (["--responses", "r.csv", "--harm-judge", "jury"], "no harm judge 'jury'"),
        (["--preference-judge", "jury"], "name some, for example --instructions built-in"),
        (["--preference-judge", "x", "--instructions", "built-in"], "give endpoint:MODEL"),
        (["--instructions", "missing.txt"], "missing.txt"),
        (["--harm-judge", "guard:m", "--base-url", "http://localhost"], "--base-url belongs to"),
        (["--responses", "r.csv", "--instructions", "built-in"], "leave out --instructions"),
        (["--benchmark", "nothing"], "nothing"),
        (["--benchmark", "advbench", "--benchmark-dir", "missing"], "no folder 'missing'"),
        (["--harmful", "missing.txt"], "missing.txt"),
        (["--responses", "missing.csv"], "there is no file 'missing.csv'"),
        (["--responses", "r.csv", "--prompt", "long"], "leave out --prompt"),
        (["some-model", "--responses", "r.csv"], "leave out a model"),
        (["no-such-model"], "neither a catalog model"),
    ],
)
def test_mistakes_end_in_one_line(
    demur: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("response\nSure.\n")
    assert expected in mistake(demur("evaluate", *arguments))
    assert not (tmp_path / "demur-evaluations").exists()


def test_help_names_the_options(demur: Command) -> None:
    status, out, _ = demur("evaluate", "--help")
    assert status == 0
    for option in ("--prompt", "--benchmark", "--responses", "--judge", "--benchmark-dir"):
        assert option in out
