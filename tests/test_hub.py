"""Safety prompts on the hub, against a stand-in for its HTTP API."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demur import DemurError, Run, SafetyPrompt, push
from demur.cli.app import main
from demur.hub import HubName
from demur.prompts import Fact, Provenance, load_basic_prompt, load_prompt
from demur.sharing.published import without_folders
from tests.hub_server import READ_ONLY, TOKEN, Hub, serving_hub
from tests.report_folders import finished_run
from tests.tiny import save_tiny_model

NAME = "someone/careful"
SECRET = "The application's own secret text."
Result = tuple[int, str, str]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, the user logged in to it, and a cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # The stand-in takes files as they are, not the hub's own chunks.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    with serving_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def demur(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    return run


def trained(provenance: Provenance | None = None) -> SafetyPrompt:
    embeddings = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return SafetyPrompt("optimized", "Be careful.", embeddings, provenance or Provenance())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of a local model, with an application's own system text."""
    path = finished_run(tmp_path / "runs" / "mine", system=SECRET)
    known = Run.load(path).safety_prompt.provenance
    assert known.model is not None
    local = replace(
        known,
        model=replace(known.model, name="/home/someone/private-folder/tiny", identity="folder:0"),
        settings=(
            *known.settings,
            Fact("harmful", "anchors+/home/someone/private-folder/bad.csv:query"),
            Fact("judge", "private-folder/judge.py:mine"),
        ),
    )
    replace(Run.load(path).safety_prompt, provenance=local).save(path / "safety_prompt")
    return path


def line(result: Result) -> str:
    status, out, err = result
    assert status == 2, (out, err)
    assert out == ""
    lines = [one for one in err.splitlines() if one.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


# Names


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("org/name", "org/name", None),
        ("Org-1/na_me.v2", "Org-1/na_me.v2", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
    ],
)
def test_names_are_read(text: str, repository: str, revision: str | None) -> None:
    assert HubName.parse(text) == HubName(repository, revision)
    assert str(HubName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("name", "a/b/c", "./a/b", "../b", "/a/b", "a/", "a/b@", "a--b/c", "a/b..c", "a/b.git"),
        *("a b/c", "a/b\n", "-a/b", "a/b-", "a/" + "b" * 99, "~/b", "a/b@../../x y", "a/b@-x"),
    ],
)
def test_what_cannot_be_a_name_is_none(text: str) -> None:
    assert HubName.parse(text) is None


# There and back


def test_a_prompt_goes_to_the_hub_and_comes_back(hub: Hub) -> None:
    address = push(trained(), NAME)
    commit = hub.repositories[NAME].commits[-1][0]
    assert address == f"{hub.url}/{NAME}/commit/{commit}"
    assert sum("/commit/" in request for request in hub.requests) == 1
    back = load_prompt(NAME)
    assert (back.name, back.text, back.rows, back.width) == (NAME, "Be careful.", 2, 3)
    assert back.embeddings is not None
    assert torch.equal(back.embeddings, torch.arange(6.0).reshape(2, 3))


def test_a_revision_pins_what_is_loaded(hub: Hub) -> None:
    first = push(trained(), NAME).rsplit("/", 1)[-1]
    push(replace(trained(), text="Other words."), NAME)
    pinned = load_prompt(f"{NAME}@{first}")
    assert (pinned.name, pinned.text) == (f"{NAME}@{first}", "Be careful.")
    assert load_prompt(NAME, revision=first).text == "Be careful."
    assert load_prompt(NAME).text == "Other words."


def test_a_local_folder_of_that_name_wins(hub: Hub, tmp_path: Path) -> None:
    push(trained(), NAME)
    asked = len(hub.requests)
    replace(trained(), text="From here.").save(tmp_path / NAME)
    assert load_prompt(NAME).text == "From here."
    assert load_prompt(NAME).text == "From here."
    assert len(hub.requests) == asked


def test_a_missing_file_is_not_asked_for_on_the_hub(hub: Hub) -> None:
    with pytest.raises(DemurError, match="no file"):
        load_prompt("prompts/mine.txt")
    assert hub.requests == []


def test_a_text_prompt_on_the_hub_is_a_basic_prompt_and_a_trained_one_is_not(hub: Hub) -> None:
    push(SafetyPrompt("mine", "Be kind."), NAME)
    assert load_basic_prompt(NAME).text == "Be kind."
    push(trained(), "someone/trained")
    with pytest.raises(DemurError, match="a basic prompt is text"):
        load_basic_prompt("someone/trained")


def test_what_was_fetched_serves_when_the_hub_is_silent(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(trained(), NAME)
    load_prompt(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_prompt(NAME).rows == 2
    assert load_prompt(NAME, local_files_only=True).rows == 2
    with pytest.raises(DemurError, match="the hub does not answer"):
        load_prompt("someone/other")


def test_offline_folders_serve_without_a_network(hub: Hub, tmp_path: Path) -> None:
    push(trained(), NAME)
    load_prompt(NAME)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    script = (
        "import sys; from demur import DemurError, SafetyPrompt, push\n"
        "from demur.prompts import load_prompt\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(load_prompt(name).rows)\n"
        "    except DemurError as error: print(error)\n"
        "try: push(SafetyPrompt('a', 'b'), 'a/b')\n"
        "except DemurError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, NAME, "someone/other"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    rows, missing, pushing = done.stdout.splitlines()
    assert rows == "2"
    assert "cache does not have it" in missing
    assert "HF_HUB_OFFLINE" in pushing


# What is fetched is checked


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rows": 3}, "does not belong"),
        ({"width": 4}, "does not belong"),
        ({"embeddings": "0" * 64}, "does not belong"),
        ({"name": "two\nlines"}, "one line"),
        ({"provenance": {"results": [{"role": "best"}]}}, "damaged"),
        ({"text": 3}, "damaged"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    hub: Hub, change: dict[str, object], expected: str
) -> None:
    push(trained(), NAME)
    saved = json.loads(hub.files(NAME)["safety_prompt.json"])
    content = {**saved["content"], **change}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    saved |= {"content": content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    hub.add(NAME, {"safety_prompt.json": json.dumps(saved).encode()})
    with pytest.raises(DemurError, match=expected) as caught:
        load_prompt(NAME)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(NAME)


def test_pickles_and_code_are_never_fetched(hub: Hub) -> None:
    hub.add(NAME, {"pytorch_model.bin": b"x", "safety_prompt.pt": b"x", "modeling.py": b"x"})
    with pytest.raises(DemurError, match="holds no safety prompt"):
        load_prompt(NAME)
    push(trained(), "someone/other")
    hub.add("someone/other", {"pytorch_model.bin": b"x", "modeling.py": b"x"})
    load_prompt("someone/other")
    fetched = [request for request in hub.requests if "/resolve/" in request]
    assert fetched
    assert all(one.endswith(("safety_prompt.json", ".safetensors")) for one in fetched)


def test_a_pickle_under_the_tensor_name_is_refused(hub: Hub) -> None:
    push(trained(), NAME)
    hub.add(NAME, {"safety_prompt.safetensors": b"\x80\x04cos\nsystem\n."})
    with pytest.raises(DemurError, match="not a safetensors file"):
        load_prompt(NAME)


def test_a_file_too_large_is_not_fetched(hub: Hub) -> None:
    push(trained(), NAME)
    hub.add(NAME, {"safety_prompt.json": b" " * 10_000_001})
    with pytest.raises(DemurError, match="too large"):
        load_prompt(NAME)
    assert not [request for request in hub.requests if "/resolve/" in request]


def test_no_such_prompt_or_revision_is_one_line(hub: Hub) -> None:
    with pytest.raises(DemurError, match="no file or folder here, and no repository on the hub"):
        load_prompt("someone/nothing")
    push(trained(), NAME)
    with pytest.raises(DemurError, match="revision that the repository does not have"):
        load_prompt(f"{NAME}@v9")


def test_a_private_prompt_needs_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(trained(), NAME, private=True)
    assert hub.repositories[NAME].private
    assert load_prompt(NAME).rows == 2
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DemurError, match="hf auth login"):
        load_prompt(NAME)


# What leaves the machine


def test_a_run_is_pushed_without_queries_responses_and_secrets(hub: Hub, run: Path) -> None:
    push(run, NAME)
    files = hub.files(NAME)
    assert set(files) == {
        *(".gitattributes", "README.md", "figure.png"),
        *("safety_prompt.json", "safety_prompt.safetensors"),
    }
    assert files["figure.png"].startswith(b"\x89PNG")
    texts = [files["README.md"].decode(), files["safety_prompt.json"].decode()]
    sent = hub.received.decode("latin-1")
    for private in (SECRET, "private-folder", "harmful 1 ", "answer 1 of"):
        assert not any(private in text for text in texts)
        assert private not in sent
    assert "That text is not published here" in texts[0]
    known = load_prompt(NAME).provenance
    assert known.model is not None
    assert known.model.name == "tiny"
    assert Fact("harmful", "anchors+bad.csv:query") in known.settings
    assert Fact("judge", "judge.py:mine") in known.settings


def test_a_run_and_a_prompt_are_pushed_as_objects(hub: Hub, run: Path) -> None:
    push(Run.load(run), NAME)
    assert "figure.png" in hub.files(NAME)
    push(Run.load(run).safety_prompt, "someone/prompt", commit_message="Mine")
    assert set(hub.files("someone/prompt")) == {
        *(".gitattributes", "README.md", "safety_prompt.json", "safety_prompt.safetensors"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/x/mine.csv:query", "mine.csv:query"),
        ("C:\\Users\\me\\mine.txt", "mine.txt"),
        ("~/mine.txt", "mine.txt"),
        ("../mine.txt", "mine.txt"),
        ("anchors+a/b/mine.csv:query", "anchors+mine.csv:query"),
        ("/home/a+b/mine.csv", "mine.csv"),
        ("long, /srv/x/my prompt.txt", "long, my prompt.txt"),
        ("someone/careful@12", "someone/careful@12"),
        ("anchors", "anchors"),
        ("0.001", "0.001"),
    ],
)
def test_folders_are_left_out_of_what_is_published(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_the_dry_run_writes_what_would_be_pushed(
    hub: Hub, run: Path, tmp_path: Path, demur: Callable[..., Result]
) -> None:
    status, out, err = demur("push", run, NAME, "--dry-run", tmp_path / "copy")
    assert status == 0, err
    assert "Nothing was pushed" in out
    assert hub.requests == []
    push(run, NAME)
    written = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    assert written == {
        name: data for name, data in hub.files(NAME).items() if name != ".gitattributes"
    }
    assert SafetyPrompt.load(tmp_path / "copy").rows == 2
    again = line(demur("push", run, NAME, "--dry-run", tmp_path / "copy"))
    assert "choose a new folder" in again


def test_the_command_pushes_and_show_reads_it(
    hub: Hub, run: Path, demur: Callable[..., Result]
) -> None:
    status, out, err = demur("push", run, NAME, "--private", "--license", "apache-2.0")
    assert status == 0, err
    commit = hub.repositories[NAME].commits[-1][0]
    assert f"{hub.url}/{NAME}/commit/{commit}" in out
    assert f"--prompt {NAME}@{commit[:12]}" in out
    assert hub.repositories[NAME].private
    assert b"license: apache-2.0" in hub.files(NAME)["README.md"]
    status, out, err = demur("show", f"{NAME}@{commit}")
    assert status == 0, err
    assert "2 trained embeddings of 8 numbers" in out
    assert "harmful" in out
    assert "judge: paper" in out
    assert "KL 0.25 nats: the likeliest first word changed for 3 of 20 harmless queries" in out


def test_the_owners_license_is_kept(hub: Hub) -> None:
    push(trained(), NAME)
    assert b"license" not in hub.files(NAME)["README.md"].split(b"---")[1]
    page = b"---\nlicense: other\nlicense_name: mine\nbase_model: x/y\n---\n# My own words\n"
    hub.add(NAME, {"README.md": page})
    push(trained(), NAME)
    card = hub.files(NAME)["README.md"]
    assert b"license: other\nlicense_name: mine\n" in card
    assert b"x/y" not in card
    push(trained(), NAME, license="mit")
    assert b"license: mit\n" in hub.files(NAME)["README.md"]
    assert b"license_name" not in hub.files(NAME)["README.md"]


def test_files_of_an_earlier_prompt_do_not_stay(hub: Hub, run: Path) -> None:
    push(run, NAME)
    hub.add(NAME, {"LICENSE": b"mine"})
    push(SafetyPrompt("words", "Be kind."), NAME)
    assert set(hub.files(NAME)) == {
        *(".gitattributes", "LICENSE", "README.md", "safety_prompt.json"),
    }


def test_another_kind_of_repository_is_left_alone(hub: Hub) -> None:
    hub.add(NAME, {"config.json": b"{}", "model.safetensors": b"x", "README.md": b"mine"})
    with pytest.raises(DemurError, match="something other than a safety prompt"):
        push(trained(), NAME)
    assert hub.files(NAME)["README.md"] == b"mine"


def test_private_is_never_public(hub: Hub) -> None:
    push(trained(), NAME)
    before = hub.repositories[NAME].commits[-1][0]
    with pytest.raises(DemurError, match="public"):
        push(trained(), NAME, private=True)
    assert hub.repositories[NAME].commits[-1][0] == before


# Failures


def test_failures_of_a_push_are_one_line(
    hub: Hub, run: Path, demur: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be a repository's name" in line(demur("push", run, "nameless"))
    assert "a push makes a new revision" in line(demur("push", run, f"{NAME}@v1"))
    assert "There is no safety prompt at" in line(demur("push", "nowhere", NAME))
    assert "cannot be a repository's name" in line(demur("push", run, NAME, "--base-model", "x"))
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    assert "may not write to someone" in line(demur("push", run, NAME))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept your token" in line(demur("push", run, NAME))
    monkeypatch.delenv("HF_TOKEN")
    assert "without a token" in line(demur("push", run, NAME))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.always = 418
    assert "status 418" in line(demur("push", run, NAME))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in line(demur("push", run, NAME))
    assert hub.repositories == {}


def test_an_unfinished_run_is_not_pushed(hub: Hub, run: Path) -> None:
    (run / "results.json").unlink()
    with pytest.raises(DemurError, match="not finished"):
        push(run, NAME)
    assert hub.requests == []


def test_a_run_without_representations_has_no_figure(hub: Hub, run: Path) -> None:
    for file in (run / "measurements").glob("*.journal"):
        file.unlink()
    push(run, NAME)
    assert "figure.png" not in hub.files(NAME)
    assert b"figure.png" not in hub.files(NAME)["README.md"]


def test_a_run_with_a_damaged_measurement_is_not_pushed(hub: Hub, run: Path) -> None:
    """Its card would have no figure, as if the run had no representations."""
    file = sorted((run / "measurements").glob("*.f32"))[0]
    data = file.read_bytes()
    file.write_bytes(data[:8] + bytes(8) + data[16:])
    with pytest.raises(DemurError, match=rf"{file.name} is damaged .*: delete"):
        push(run, NAME)
    assert hub.requests == []


def test_errors_about_a_prompt_on_the_command_line_are_one_line(
    hub: Hub, demur: Callable[..., Result]
) -> None:
    for verb in ("evaluate", "diagnose"):
        assert "no repository on the hub" in line(demur(verb, "--prompt", "someone/nothing"))
    assert "no repository on the hub" in line(demur("show", "someone/nothing"))


def test_a_model_that_was_fetched_is_found_when_the_hub_is_silent(
    hub: Hub, saved: Path, tmp_path: Path
) -> None:
    commit = hub.add("someone/tiny", {file.name: file.read_bytes() for file in saved.iterdir()})
    script = (
        "from demur.chat.hub import hub_snapshot; from demur.progress import SilentProgress\n"
        "from demur.hub import HubModel\n"
        "print(hub_snapshot(HubModel.parse('someone/tiny'), False, SilentProgress()).commit)"
    )
    for endpoint in (hub.url, "http://127.0.0.1:9"):
        environment = {
            **os.environ,
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_ENDPOINT": endpoint,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == commit


def test_a_prompt_on_the_hub_is_evaluated_and_diagnosed(
    hub: Hub, tmp_path: Path, demur: Callable[..., Result]
) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    width = json.loads((model / "config.json").read_text())["hidden_size"]
    push(SafetyPrompt("p", "w1 w2", torch.ones(2, width)), NAME)
    queries = tmp_path / "queries.txt"
    others = tmp_path / "others.txt"
    for file, word in ((queries, "w3"), (others, "w17")):
        file.write_text("".join(f"w{number} {word} ?\n" for number in range(4, 16)))
    sets = ("--harmful", queries, "--harmless", others)
    few = ("--tokens", "4", "--dtype", "float32")
    status, out, err = demur("evaluate", model, "--prompt", "none", "--prompt", NAME, *sets, *few)
    assert status == 0, err
    assert NAME in out
    arguments = ("--prompt", NAME, *sets, "--preset", "quick", "--components", "2", *few)
    status, out, err = demur("diagnose", model, *arguments)
    assert status == 0, err
    assert NAME in out
    push(trained(), "someone/narrow")
    assert "of 3 numbers" in line(demur("evaluate", model, "--prompt", "someone/narrow", *sets))


def test_an_optimization_starts_from_a_text_prompt_on_the_hub(
    hub: Hub, tmp_path: Path, demur: Callable[..., Result]
) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    push(SafetyPrompt("words", "w1 w2 w3 ."), NAME)
    arguments = ("--basic-prompt", NAME, "--preset", "quick", "--epochs", "1", "--samples", "2")
    few = ("--tokens", "4", "--dtype", "float32", "--output", "run")
    status, out, err = demur("optimize", model, *arguments, *few)
    assert status == 0, err
    assert NAME in out
    assert "(basic)" in out
    status, out, err = demur("push", "run", "someone/optimized", "--base-model", "org/base")
    assert status == 0, err
    card = hub.files("someone/optimized")["README.md"].decode()
    assert "base_model: org/base\n" in card
    assert "figure.png" in card
    status, out, err = demur("diagnose", "--run", "run", "--prompt", "someone/optimized")
    assert status == 0, err
