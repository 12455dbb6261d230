"""Queries from datasets: the spec, configurations and splits, and a hub that does not answer."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demur import ResponseFiles, evaluate
from demur.errors import DemurError
from demur.queries import load_query_set
from demur.reading import DataSet
from demur.records import Conversation


class _Hub(BaseHTTPRequestHandler):
    """Knows every dataset but `org/other`."""

    def do_GET(self) -> None:
        known = "org/other" not in self.path
        content = json.dumps({"id": "org/name", "siblings": []} if known else {}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


class Image:
    """A kind of column that holds no texts."""


class FakeTable:
    """What the loader uses of a `datasets.Dataset`: kinds of columns, and rows."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns
        self.features = {name: Image() if name == "image" else "text" for name in columns}

    def remove_columns(self, names: list[str]) -> FakeTable:
        return FakeTable(**{name: each for name, each in self.columns.items() if name not in names})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, row, strict=True))


Splits = dict[str, FakeTable]


class FakeDatasets(types.ModuleType):
    """The package `datasets`, with one dataset."""

    def __init__(self, configs: dict[str | None, Splits]) -> None:
        super().__init__("datasets")
        self.configs = configs
        self.config = types.SimpleNamespace(HF_HUB_OFFLINE=False)
        self.offline: list[bool] = []

    def load_dataset(self, name: str, config: str | None = None, split: str | None = None) -> Any:
        self.offline.append(self.config.HF_HUB_OFFLINE)
        if name != "org/name":
            raise ValueError(f"no dataset {name}\nwith a second line")
        if config not in self.configs:
            raise ValueError(f"Config name is missing.\n{list(self.configs)}")
        splits = self.configs[config]
        return splits if split is None else splits[split]

    def get_dataset_config_names(self, name: str) -> list[str]:
        return [str(each) for each in self.configs if each]

    def get_dataset_split_names(self, name: str, config: str | None) -> list[str]:
        return list(self.configs[config])


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, splits: Splits, configs: dict[str | None, Splits] | None = None
) -> FakeDatasets:
    module = FakeDatasets({None: splits} if configs is None else configs)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def message_of(spec: str) -> str:
    """The one line that loading `spec` fails with."""
    with pytest.raises(DemurError) as caught:
        load_query_set(spec, "harmful")
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("hf:org/name:goal", ("org/name", None, None, "goal")),
        ("hf:org/name@test:a.b:c", ("org/name", None, "test", "a.b:c")),
        ("hf:org/name/part@train[:100]:goal", ("org/name", "part", "train[:100]", "goal")),
        ("hf:org/name/part:goal", ("org/name", "part", None, "goal")),
        ("hf:org/name/", ("org/name", None, None, None)),
        ("hf:name:goal", ("name", None, None, "goal")),
        ("hf:https://huggingface.co/datasets/org/name:goal", ("org/name", None, None, "goal")),
        ("hf:./here/part@test:goal", ("./here", "part", "test", "goal")),
        ("hf:./here:goal", ("./here", None, None, "goal")),
    ],
)
def test_what_a_spec_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, parsed: tuple[str | None, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "org").mkdir()  # a folder of that name does not make the name a path
    found = DataSet.parse(spec)
    assert (found.name, found.config, found.split, found.column) == parsed


@pytest.mark.usefixtures("hub")
def test_columns_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = FakeTable(goal=["a", "a ", "b", " "]), FakeTable(goal=["c"])
    fake_hub(monkeypatch, {"test": test, "train": train, "train[:100]": test})
    queries = load_query_set("hf:org/name:goal", "harmful")
    assert queries.texts == ("a", "b")
    assert queries.name == "org/name:goal"
    assert queries.remark == "org/name:goal: 1 blank row and 1 repeated query left out, 2 kept."
    assert load_query_set("hf:org/name@test:goal", "harmful").texts == ("c",)
    assert load_query_set("hf:org/name@train[:100]:goal", "harmful").texts == ("c",)
    fake_hub(monkeypatch, {"only": test})
    assert load_query_set("hf:org/name:goal", "harmful").texts == ("c",)


@pytest.mark.usefixtures("hub")
def test_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = {"train": FakeTable(goal=["a"])}, {"test": FakeTable(goal=["b"])}
    fake_hub(monkeypatch, {}, {"behaviours": one, "others": two})
    assert load_query_set("hf:org/name/behaviours@train:goal", "harmful").texts == ("a",)
    assert load_query_set("hf:org/name/others:goal", "harmful").texts == ("b",)
    missing = message_of("hf:org/name:goal")
    assert "configurations, 'behaviours', 'others', with hf:org/name/CONFIG@SPLIT" in missing
    wrong = message_of("hf:org/name/behaviour:goal")
    assert "'behaviours', 'others' (did you mean 'behaviours'?)" in wrong
    assert "its splits are 'test'" in message_of("hf:org/name/others@train:goal")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "hf:org/other:goal",
            "'org/other' is no file or folder here, and no repository on",
        ),
        ("hf:org/a..b:goal", "no repository on the hub that you may read: check the spelling"),
        ("hf:org/name@none:goal", "Cannot load dataset 'org/name'"),
        ("hf:org/name", "has the splits 'left', 'right'"),
        ("hf:org/name@left", "name of the column"),
        ("hf:org/name@left:query", "no column 'query': its columns are 'goal', 'size'"),
        ("hf:org/name@left:Goal", "did you mean 'goal'?"),
        ("hf:org/name@left:size", "row 1: 'size' is not text but int"),
        ("hf:", "write hf:ORG/NAME:COLUMN"),
        ("hf::goal", "write hf:ORG/NAME:COLUMN"),
    ],
)
def test_bad_input(monkeypatch: pytest.MonkeyPatch, spec: str, expected: str) -> None:
    table = FakeTable(goal=["a"], size=[1])
    fake_hub(monkeypatch, {"left": table, "right": table})
    assert expected in message_of(spec)


@pytest.mark.usefixtures("hub")
def test_columns_may_hold_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole = [*said, {"role": "user", "content": "c"}]
    fake_hub(monkeypatch, {"left": FakeTable(messages=[whole, said[:1]])})
    loaded = load_query_set("hf:org/name:messages", "harmful")
    assert loaded.texts == (Conversation("c", (("a", "b"),)), "a")
    fake_hub(monkeypatch, {"left": FakeTable(messages=[whole, said])})
    assert "row 2: 'messages' ends with the assistant" in message_of("hf:org/name:messages")


@pytest.mark.usefixtures("hub")
def test_fields_and_tools_as_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    fake_hub(monkeypatch, {"train": FakeTable(inner=rows, image=[b"", b""])})
    assert load_query_set("hf:org/name:inner.text", "harmful").texts == ("a", "b")
    assert "its columns are 'inner'." in message_of("hf:org/name:image")
    fake_hub(monkeypatch, {"train": FakeTable(instruction=["a"], output=["b"])})
    assert load_query_set("hf:org/name", "harmful").texts == ("a",)


@pytest.mark.usefixtures("hub")
def test_responses_from_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal, answer = "I'm sorry, but I cannot help with that.", "Sure! Here you go."
    asked = [f"q{n}" for n in range(6)]
    told = FakeTable(prompt=asked, before=[answer] * 6, after=[refusal] * 6, image=[b""] * 6)
    fake_hub(
        monkeypatch, {"test": told, "test[:2]": FakeTable(query=["a", "b"], response=["", "c"])}
    )
    specs = ["hf:org/name@test:before", "hf:org/name@test:after"]
    out = tmp_path / "out"
    comparison = evaluate(ResponseFiles(specs), judge="paper", output=out)
    rates = [(one.prompt, one.refused and one.refused.value) for one in comparison.rates]
    assert rates == [("org/name@test:before", 0), ("org/name@test:after", 1)]
    assert comparison.differences[0].queries == 6
    # The same command takes what it judged, and other rows are judged as others.
    stored = {path.name for path in (out / "measurements").iterdir()}
    evaluate(ResponseFiles(specs), judge="paper", output=out)
    assert {path.name for path in (out / "measurements").iterdir()} == stored
    for spec, message in (
        ("hf:org/name@test", "row 1 has no column 'response': its columns are 'prompt', 'before'"),
        ("hf:org/name@test:aftr", "no column 'aftr' (did you mean 'after'?)"),
        ("hf:org/name@test[:2]", "Dataset 'org/name' row 1: the response is blank"),
        ("hf:org/other:a", "'org/other' is no file or folder here, and no repository on"),
        ("hf:", "write hf:ORG/NAME:COLUMN"),
        ("hf:./none:a", "'./none' is no folder here: give the folder of a data set"),
    ):
        with pytest.raises(DemurError) as caught:
            evaluate(ResponseFiles(spec), judge="paper", output=tmp_path / "other")
        assert message in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_without_the_datasets_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'demur[datasets]'" in message_of("hf:org/name:goal")


def test_without_a_connection_what_was_fetched_before_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    module = fake_hub(monkeypatch, {"train": FakeTable(goal=["a"])})
    assert load_query_set("hf:org/name:goal", "harmful").texts == ("a",)
    assert module.offline == [True]  # so that the package does not try to connect
    assert module.config.HF_HUB_OFFLINE is False
    message = message_of("hf:org/unknown:goal")
    assert "the hub does not answer" in message
    assert "was not fetched before: check the connection, HF_ENDPOINT and HF_HUB_" in message


def test_a_hub_that_never_answers_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.reading.data_sets._SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        fake_hub(monkeypatch, {"train": FakeTable(goal=["a"])})
        started = time.monotonic()
        assert "the hub does not answer" in message_of("hf:org/unknown:goal")
        assert time.monotonic() - started < 10


def test_an_answer_of_the_hub_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.reading.data_sets._SECONDS", 0.5)
    given_up = threading.Event()

    class Dripping(_Hub):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            while not given_up.wait(0.05):
                self.wfile.write(b" ")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    module = fake_hub(monkeypatch, {"train": FakeTable(goal=["a"])})
    assert load_query_set("hf:org/name:goal", "harmful").texts == ("a",)  # fetched before
    assert module.offline == [True]
    given_up.set()
    server.shutdown()
    server.server_close()


def test_real_folders_with_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "set").mkdir()
    configs = [
        "- {config_name: plain, data_files: [{split: bad, path: a.csv}, "
        "{split: good, path: b.csv}]}",
        "- {config_name: other, data_files: [{split: test, path: b.csv}]}",
    ]
    (tmp_path / "set/README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))
    (tmp_path / "set/a.csv").write_text('Goal\n"How, exactly?"\n')
    (tmp_path / "set/b.csv").write_text("Goal\nWhy?\n")
    assert load_query_set("hf:./set/plain@bad:Goal", "harmful").texts == ("How, exactly?",)
    assert load_query_set("hf:./set/other:Goal", "harmful").texts == ("Why?",)
    assert "'./set/a.csv' is a file: give the folder" in message_of("hf:./set/a.csv:Goal")
    assert "'./sets' is no folder here: give the folder" in message_of("hf:./sets:Goal")
    assert "its configurations, 'plain', 'other'" in message_of("hf:./set@bad:Goal")
    assert "'plain', 'other' (did you mean 'plain'?)" in message_of("hf:./set/plan@bad:Goal")
    assert "its splits are 'bad', 'good'" in message_of("hf:./set/plain@test:Goal")
