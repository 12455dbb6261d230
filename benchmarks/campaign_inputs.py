"""Inputs that cannot be right: values, paths, files of queries, settings, models."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

from campaign_bad_models import BadInput, ggufs, models, templates, weights
from campaign_work import LONG_WORK, Case, Outcome, outcome_of, run, with_finished
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


def refused(inputs: Path, count: int, seed: int) -> Iterator[Case]:
    """Commands with inputs that cannot be right. Each ends in one clear line.

    The kinds of inputs take turns, so that each has its share.

    Args:
        inputs: folder with the model and the inputs.
        count: number of cases; all there are, where that is fewer.
        seed: chooses the inputs of each kind.
    """
    with_finished(inputs)
    chance = random.Random(f"{seed} inputs")
    kinds = [list(kind()) for kind in KINDS]
    rows = zip_longest(*(chance.sample(kind, len(kind)) for kind in kinds))
    cases = [one for row in rows for one in row if one is not None]
    for case in cases[:count]:
        yield partial(_refused, inputs, case)


def _refused(inputs: Path, case: BadInput, chance: random.Random) -> Outcome:
    case.prepare(inputs)
    ended = run(case.arguments, inputs)
    said = ended.mistakes or ended.err.splitlines()[-1:]
    ways = ("one line", "done") if case.may_be_done else ("one line",)
    return outcome_of(
        ended.way, f"{case.title}: {' '.join(said)}", [ended], allowed=ended.way in ways
    )


def _values() -> Iterator[BadInput]:
    """Numbers out of their range, for every option that is a number."""
    for command in commands():
        if command.verb not in ("optimize", "evaluate", "diagnose"):
            continue
        model = ["tiny"]
        for option in options_in(command.settings):
            if option.kind in (int, float) and not option.positional:
                for value in NUMBERS:
                    if _is_out(option, value):
                        yield BadInput(
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


def _paths() -> Iterator[BadInput]:
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
            yield BadInput(
                f"{title} {kind}",
                [one.replace("PATH", path) for one in arguments],
                make_pipe if kind == "pipe" else lambda _: None,
            )


def _tables() -> Iterator[BadInput]:
    """Files of queries and responses that are damaged or something else."""
    for name, data in TABLES.items():

        def make(folder: Path, name: str = name, data: bytes = data) -> None:
            (folder / name).write_bytes(data)

        for option in ("--harmful", "--harmless", "--instructions"):
            spec = f"{name}:query"
            arguments = ["evaluate", "tiny", option, spec, "--tokens", "2", "--output", "new"]
            yield BadInput(f"{option} {name}", arguments, make, name == "utf16.csv")
        arguments = ["evaluate", "--responses", name, "--output", "new"]
        yield BadInput(f"--responses {name}", arguments, make)


def _settings() -> Iterator[BadInput]:
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
            yield BadInput(f"settings.json {name}, {title}", arguments, make)


def _tomls() -> Iterator[BadInput]:
    """Files of settings that hold something else."""
    for name, data in TOMLS.items():

        def make(folder: Path, data: bytes = data) -> None:
            (folder / "bad.toml").write_bytes(data)

        for verb in ("optimize", "evaluate", "diagnose"):
            yield BadInput(f"{verb} toml {name}", [verb, "tiny", "--config", "bad.toml"], make)


def _prompts() -> Iterator[BadInput]:
    """Safety prompts and system prompts that are no text, or too long."""
    files: dict[str, bytes] = {
        "empty.txt": b"",
        "blank.txt": b" \n\t\n",
        "latin.txt": b"S\xe4y no.",
        "null.txt": b"Say\x00no.",
        "binary.txt": bytes(range(256)) * 50,
        "long.txt": b"w1 " * 1_000,
        "huge.txt": b"w1 " * 1_000_000,
    }
    uses = {
        "evaluate --prompt": ["evaluate", "tiny", "--output", "new", "--prompt"],
        "evaluate --system-prompt": ["evaluate", "tiny", "--output", "new", "--system-prompt"],
        "optimize --basic-prompt": ["optimize", "tiny", "--output", "new", "--basic-prompt"],
        "diagnose --prompt": ["diagnose", "tiny", "--output", "new", "--prompt"],
    }
    for name, data in files.items():

        def make(folder: Path, name: str = name, data: bytes = data) -> None:
            (folder / name).write_bytes(data)

        for title, arguments in uses.items():
            if name in ("null.txt", "binary.txt", "latin.txt", "huge.txt") or "prompt" in title:
                yield BadInput(f"{title} {name}", [*arguments, name], make)


def _code() -> Iterator[BadInput]:
    """Judges and methods of the user's own that are none, or fail."""
    files = {
        "syntax": "def judge(:\n",
        "raises": "raise RuntimeError('no')\n",
        "exits": "import sys\nsys.exit(3)\n",
        "missing": "x = 1\n",
        "no function": "judge = 3\n",
        "fails": "def judge(queries, responses):\n    raise ValueError('\\x1b[2J')\n",
        "short": "def judge(queries, responses):\n    return []\n",
        "text": "def judge(queries, responses):\n    return ['yes'] * len(responses)\n",
        "None": "def judge(queries, responses):\n    return None\n",
        "arguments": "def judge():\n    return []\n",
        "imports": "import no_such_package\n",
    }
    for name, text in files.items():

        def make(folder: Path, text: str = text) -> None:
            (folder / "own.py").write_text(text)

        judge = ["evaluate", "--responses", "responses.csv", "--output", "new", "--judge"]
        yield BadInput(f"judge {name}", [*judge, "own.py:judge"], make)
        method = ["optimize", "tiny", "--output", "new", "--method", "own.py:judge"]
        yield BadInput(f"method {name}", method, make)


def _names() -> Iterator[BadInput]:
    """Names of models, servers, data sets, judges and presets that are none."""
    names = ["", "no/such/thing", "../..", "https://", "hf:", "a" * 300, "x y", "\x1b[2J", "[red]x"]
    uses = {
        "model": ["evaluate", "NAME", "--output", "new"],
        "endpoint": ["evaluate", "--endpoint", "NAME", "--output", "new"],
        "judge": ["evaluate", "tiny", "--output", "new", "--judge", "NAME"],
        "method": ["optimize", "tiny", "--output", "new", "--method", "NAME"],
        "preset": ["diagnose", "tiny", "--output", "new", "--preset", "NAME"],
        "queries": ["evaluate", "tiny", "--output", "new", "--harmful", "NAME"],
        "data set": ["evaluate", "tiny", "--output", "new", "--harmful", "hf:NAME@train:query"],
        "benchmark": ["evaluate", "tiny", "--output", "new", "--benchmark", "NAME"],
        "prompt": ["chat", "tiny", "--prompt", "NAME"],
        "engine": ["export", "finished", "new", "--model", "tiny", "--to", "NAME"],
        "dtype": ["chat", "tiny", "--dtype", "NAME"],
        "device": ["chat", "tiny", "--device", "NAME"],
        "command": ["NAME"],
        "option": ["evaluate", "--NAME"],
        "repository": ["push", "finished", "NAME"],
    }
    for title, arguments in uses.items():
        for name in names:
            command = [one.replace("NAME", name) for one in arguments]
            yield BadInput(f"{title} {name:.20}", command)


KINDS = (
    *(_values, _paths, _tables, _settings, _tomls, models),
    *(weights, ggufs, templates, _prompts, _code, _names),
)
"""The kinds of bad inputs."""
