"""`demur optimize --method text`, and the other commands on what it leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")
pytest.importorskip("gepa", reason="gepa is not installed: pip install 'demur[gepa]'")

from tests.command_line import Result, demur, done, mistake
from tests.endpoint_server import Endpoint
from tests.wording_server import BASIC, MODEL, PROPOSER, queries, running, wording

BEST = wording(9, 0)


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with running() as state:
        yield state


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of queries, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for split in ("training", "validation", "test"):
        for kind in ("harmful", "harmless"):
            (tmp_path / f"{split}-{kind}.txt").write_text("\n".join(queries(kind, split)))
    (tmp_path / "basic.txt").write_text(BASIC)
    return tmp_path


def arguments(server: Endpoint) -> list[str]:
    files = {
        f"--{option}{kind}": f"{split}-{kind}.txt"
        for option, split in (
            ("", "training"),
            ("validation-", "validation"),
            ("held-out-", "test"),
        )
        for kind in ("harmful", "harmless")
    }
    own = {
        "--endpoint": server.url,
        "--served-model": MODEL,
        "--proposer-model": PROPOSER,
        "--basic-prompt": "basic.txt",
        "--budget-calls": "400",
        "--minibatch": "3",
        **files,
    }
    return ["--method", "text", *(part for pair in own.items() for part in pair)]


def optimized(server: Endpoint, *more: object) -> Result:
    return demur("optimize", *arguments(server), "--output", "run", *more)


def test_the_command_and_those_on_its_run(server: Endpoint, place: Path) -> None:
    said = done(optimized(server))
    assert BEST in said
    assert said.lstrip().startswith("Better")
    assert "5 proposals" in said
    assert f"{len(server.requests)} of 400 calls" in " ".join(said.split())
    assert (place / "run" / "report.html").is_file()
    server.requests.clear()
    again = optimized(server)
    assert BEST in done(again)
    assert "finished already" in again.err
    assert BEST in done(demur("show", "run"))
    done(demur("report", "run", "--output", "report.html"))
    assert BEST not in (place / "run" / "settings.json").read_text()
    assert "optimized" in (place / "report.html").read_text()
    done(demur("push", "run", "somebody/prompt", "--dry-run", "pushed"))
    card = (place / "pushed" / "README.md").read_text()
    assert "Its wording was found with the method [GEPA](https://arxiv.org/abs/2507.19457)" in card
    assert "hand-written safety prompt:" not in card
    assert server.url not in card
    assert server.requests == []
    sets = ["--harmful", "test-harmful.txt", "--harmless", "test-harmless.txt"]
    evaluated = demur(
        *("evaluate", "--endpoint", server.url, "--served-model", MODEL),
        *("--prompt", "run", *sets, "--output", "evaluation"),
    )
    assert "100.0 %" in done(evaluated)
    assert {body["messages"][0]["content"] for body in server.requests} == {BEST}


def test_what_does_not_fit_a_text_is_one_line(server: Endpoint, place: Path) -> None:
    done(optimized(server))
    assert "is text" in mistake(demur("export", "run", "exported"))
    assert "a wording run" in mistake(demur("optimize", "--output", "run"))
    assert "an evaluation" in mistake(
        demur("optimize", *arguments(server), "--output", "run/evaluation")
    )


def test_mistakes_are_told_before_any_request(server: Endpoint, place: Path) -> None:
    base = arguments(server)
    wrong: dict[str, list[str]] = {
        "give its address with --endpoint": ["--method", "text"],
        "--budget-calls 50": ["--budget-calls", "50"],
        "must be": ["--budget-tokens", "many"],
        "no refusal judge": ["--judge", "nothing"],
        "no file": ["--harmful", "missing.txt"],
        "not a base URL": ["--proposer-endpoint", "localhost:8000"],
        "--most-characters": ["--most-characters", "10"],
        "has no option": ["--epochs", "3"],
        "There is no file": ["--system-prompt", "missing.txt"],
    }
    for text, extra in wrong.items():
        alone = extra[0] == "--method"
        result = demur("optimize", *([] if alone else base), *extra, "--output", "run")
        assert text.lower() in mistake(result).lower(), text
    assert server.requests == []
    assert not (place / "run").exists()


def test_without_the_extra_the_message_names_it(
    server: Endpoint, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    assert "pip install 'demur[gepa]'" in mistake(optimized(server))
    assert server.requests == []


def test_an_unreachable_server_leaves_no_folder(place: Path) -> None:
    with running() as server:
        url = server
    assert "cannot be reached" in mistake(optimized(url, "--retries", "0"))
    assert not (place / "run").exists()


def test_settings_come_from_a_file_and_from_a_run(server: Endpoint, place: Path) -> None:
    options = arguments(server)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    groups = {"endpoint": "target", "served-model": "target", "proposer-model": "proposer"}
    groups |= {"budget-calls": "budget", "minibatch": "search"}
    lines: dict[str, list[str]] = {"": [], "queries": []}
    for flag, value in pairs:
        name = flag.removeprefix("--")
        group = groups.get(name, "queries" if name.endswith(("harmful", "harmless")) else "")
        text = value if value.isdecimal() else f'"{value}"'
        text = f"[{text}]" if group == "queries" else text
        lines.setdefault(group, []).append(f"{name.replace('-', '_')} = {text}")
    tables = [f"[{group}]\n" * bool(group) + "\n".join(rows) for group, rows in lines.items()]
    (place / "demur.toml").write_text("\n".join(tables))
    done(demur("optimize", "--config", "demur.toml", "--output", "run"))
    asked = len(server.requests)
    # A run's folder may be a stranger's: it has no server asked by itself.
    told = mistake(demur("optimize", "--config", "run", "--output", "other"))
    assert "--endpoint" in told
    assert len(server.requests) == asked
    endpoint = ["--endpoint", server.url]
    done(demur("optimize", "--config", "run/settings.json", *endpoint, "--output", "other"))
    first, second = (place / name / "results.json" for name in ("run", "other"))
    assert first.read_text() == second.read_text()


def test_the_help_lists_its_own_settings() -> None:
    said = done(demur("optimize", "--method", "text", "--help"))
    assert "--budget-calls" in said
    assert "--learning-rate" not in said
    assert "text" in done(demur("optimize", "--help"))
