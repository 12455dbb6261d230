"""Inputs that cannot be right: values, paths, files of queries, settings, models."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from campaign_work import LONG_WORK, Tally, run
from demur.cli.app import commands
from demur.settings import Option, options_in

NUMBERS = ("-1", "inf", "nan", "1e400", "4294967296", "18446744073709551616", "9" * 5000, "x", "")
LONG = "a" * 300
TABLES: dict[str, bytes] = {
    "comma.csv": b"query,label\nw1, w2, w3,harmful\n",
    "open.csv": b'query\n"w1 w2\nw3\n',
    "beside.csv": b'query\n"w1" w2\n',
    "null.csv": b"query\nw1\x00w2\n",
    "empty.csv": b"",
    "header.csv": b"query\n",
    "latin.csv": b"query\n\xe4\xf6\xfc\n",
    "utf16.csv": "query\nw1 w2\n".encode("utf-16"),
    "gzip.csv": b"\x1f\x8b\x08\x00broken",
    "parquet.csv": b"PAR1" + bytes(100),
    "twice.csv": b"query,query\nw1,w2\n",
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "list.jsonl": b"[1, 2]\n",
    "half.jsonl": b'{"query": "w1"}\n{"query": ',
    "number.jsonl": b'{"query": ' + b"9" * 10_000 + b"}\n",
    "surrogate.jsonl": b'{"query": "\\ud800"}\n',
    "messages.jsonl": b'{"query": [{"role": "robot", "content": "w1"}]}\n',
    "long.csv": b"query\n" + b"w1 " * 200_000 + b"\n",
}
SETTINGS: dict[str, bytes] = {
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "text": b'"x"',
    "nothing": b"",
    "deep": b"[" * 100_000,
    "format": b'{"format": 3}',
    "no content": b'{"format": "demur run", "version": 2, "sha256": "0", "content": {}}',
    "other version": b'{"format": "demur run", "version": 99, "sha256": "0", "content": {}}',
    "bytes": b"\xff\xfe\x00",
}
TOMLS: dict[str, bytes] = {
    "unknown": b"colour = 1\n",
    "open": b"seed = [1,\n",
    "null": b'output = "a\\u0000b"\n',
    "infinite": b"learning_rate = inf\n",
    "huge": b"seed = 99999999999999999999999\n",
    "deep": b"a = " + b"[" * 20_000,
    "list": b'seed = ["x"]\n',
    "latin": b"output = '\xe4'\n",
}
CONFIGS: dict[str, object] = {
    "hidden_size": -1,
    "num_hidden_layers": "two",
    "vocab_size": 10**12,
    "num_attention_heads": 0,
    "rope_parameters": "x",
    "model_type": "no such type",
    "max_position_embeddings": None,
    "intermediate_size": 7,
    "architectures": 3,
    "quantization_config": {"quant_method": "none"},
}


@dataclass(frozen=True)
class Case:
    """A command with one input that cannot be right.

    Attributes:
        title: what is wrong.
        arguments: the command line.
        prepare: makes the input in the folder.
    """

    title: str
    arguments: list[str]
    prepare: Callable[[Path], None] = lambda _: None


def refused(inputs: Path, count: int, chance: random.Random, tally: Tally) -> None:
    """Give commands inputs that cannot be right.

    Each ends in one clear line, or is done where the input turns out to be allowed.

    Args:
        inputs: folder with the model and the inputs.
        count: number of cases; all there are, where that is fewer.
        chance: source of the choice.
        tally: counts how they ended.
    """
    ended = run([*LONG_WORK["run"], "--output", "finished"], inputs)
    assert ended.status == 0, ended.err
    cases = [*_values(), *_paths(), *_tables(), *_settings(), *_tomls(), *_models()]
    chance.shuffle(cases)
    before = {one.name for one in inputs.iterdir()}
    for case in cases[:count]:
        case.prepare(inputs)
        ended = run(case.arguments, inputs)
        tally.measure(ended)
        said = ended.mistakes or ended.err.splitlines()[-1:]
        tally.count(
            ended.way, f"{case.title}: {' '.join(said)}", allowed=ended.way in ("one line", "done")
        )
        for one in inputs.iterdir():
            if one.name not in before:
                shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()


def _values() -> Iterator[Case]:
    """Numbers out of their range, for every option that is a number."""
    for command in commands():
        if command.verb not in ("optimize", "evaluate", "diagnose"):
            continue
        model = ["tiny"]
        for option in options_in(command.settings):
            if option.kind in (int, float) and not option.positional:
                for value in NUMBERS:
                    if _is_out(option, value):
                        yield Case(
                            f"{command.verb} {option.flag}={value:.20}",
                            [command.verb, *model, f"{option.flag}={value}", "--output", "new"],
                        )


def _is_out(option: Option, value: str) -> bool:
    """Whether a value can be none of an option's."""
    if value in ("x", "nan", "inf", "1e400") or len(value) > 100:
        return True
    if value == "":
        return not option.optional
    if value == "-1":
        return "0 or more" in option.bounds or "more" in option.bounds or "to" in option.bounds
    return option.has_limit or option.kind is int


def _paths() -> Iterator[Case]:
    """Paths that are too long, or lead to devices, pipes and folders."""
    paths = {"long": LONG, "device": "/dev/null", "endless": "/dev/zero", "pipe": "pipe"}
    uses = {
        "show": ["show", "PATH"],
        "report": ["report", "PATH"],
        "report --output": ["report", "finished", "--output", "PATH"],
        "export": ["export", "PATH", "new"],
        "export to": ["export", "finished", "PATH", "--model", "tiny"],
        "push": ["push", "PATH", "a/b", "--dry-run", "new"],
        "evaluate": ["evaluate", "PATH"],
        "evaluate --output": ["evaluate", "tiny", "--output", "PATH"],
        "evaluate --harmful": ["evaluate", "tiny", "--harmful", "PATH"],
        "evaluate --harmful column": ["evaluate", "tiny", "--harmful", "PATH:query"],
        "evaluate --responses": ["evaluate", "--responses", "PATH"],
        "evaluate --prompt": ["evaluate", "tiny", "--prompt", "PATH"],
        "evaluate --judge": ["evaluate", "tiny", "--judge", "PATH.py:X"],
        "evaluate --system-prompt": ["evaluate", "tiny", "--system-prompt", "PATH"],
        "optimize --config": ["optimize", "--config", "PATH"],
        "optimize --basic-prompt": ["optimize", "tiny", "--basic-prompt", "PATH"],
        "optimize --method": ["optimize", "tiny", "--method", "PATH.py:X"],
        "diagnose --run": ["diagnose", "--run", "PATH"],
        "chat --prompt": ["chat", "tiny", "--prompt", "PATH"],
    }

    def make_pipe(folder: Path) -> None:
        os.mkfifo(folder / "pipe")

    for title, arguments in uses.items():
        for kind, path in paths.items():
            yield Case(
                f"{title} {kind}",
                [one.replace("PATH", path) for one in arguments],
                make_pipe if kind == "pipe" else lambda _: None,
            )


def _tables() -> Iterator[Case]:
    """Files of queries and responses that are damaged or something else."""
    for name, data in TABLES.items():

        def make(folder: Path, name: str = name, data: bytes = data) -> None:
            (folder / name).write_bytes(data)

        for option in ("--harmful", "--harmless", "--instructions"):
            spec = f"{name}:query"
            arguments = ["evaluate", "tiny", option, spec, "--tokens", "2", "--output", "new"]
            yield Case(f"{option} {name}", arguments, make)
        arguments = ["evaluate", "--responses", name, "--output", "new"]
        yield Case(f"--responses {name}", arguments, make)


def _settings() -> Iterator[Case]:
    """A `settings.json` that is none."""
    uses = {
        "show": ["show", "bad"],
        "report": ["report", "bad"],
        "output": [*LONG_WORK["run"], "--output", "bad"],
        "config": ["optimize", "--config", "bad"],
        "run": ["diagnose", "--run", "bad"],
        "export": ["export", "bad", "new", "--model", "tiny"],
    }
    for name, data in SETTINGS.items():

        def make(folder: Path, data: bytes = data) -> None:
            (folder / "bad").mkdir()
            (folder / "bad" / "settings.json").write_bytes(data)

        for title, arguments in uses.items():
            yield Case(f"settings.json {name}, {title}", arguments, make)


def _tomls() -> Iterator[Case]:
    """Files of settings that hold something else."""
    for name, data in TOMLS.items():

        def make(folder: Path, data: bytes = data) -> None:
            (folder / "bad.toml").write_bytes(data)

        for verb in ("optimize", "evaluate", "diagnose"):
            yield Case(f"{verb} toml {name}", [verb, "tiny", "--config", "bad.toml"], make)


def _models() -> Iterator[Case]:
    """Folders of models that are damaged."""

    def changed(key: str, value: object) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            file = folder / "odd" / "config.json"
            found = json.loads(file.read_text())
            file.write_text(json.dumps({**found, key: value}))

        return make

    def cut(name: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            shutil.copytree(folder / "tiny", folder / "odd")
            file = folder / "odd" / name
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

        return make

    command = ["evaluate", "odd", "--tokens", "2", "--output", "new"]
    for key, value in CONFIGS.items():
        yield Case(f"config.json {key}={value}", command, changed(key, value))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        yield Case(f"{name} cut", command, cut(name))
