"""A tiny model, small inputs, and commands of demur in processes of their own, which are measured.

Every command runs in a fork of this process, which has imported all packages already. So a case
takes a second, and is a process like any other: it can be killed, and has its own memory.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demur.cli.app import commands

WORDS = 96
LIMIT_SECONDS = 60.0
LATE = (
    "demur.chat.chosen",
    "demur.diagnosis.work",
    "demur.endpoint.client",
    "demur.evaluation.answerers.files",
    "demur.evaluation.answerers.model",
    "demur.evaluation.answerers.server",
    "demur.exports.export",
    "demur.optimization.pipeline",
    "demur.report.writing",
)
"""Modules that commands import when they run."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message.role }} : {{ message.content }} "
    "{% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"
)
Prepare = Callable[[], None]
"""What a process does before its command begins, for example plan its own end."""


@dataclass
class Tally:
    """How the cases of one kind ended.

    Attributes:
        cases: number of cases.
        ways: number of cases by how they ended.
        peak_mb: largest memory of a process.
        longest_s: longest time of a command.
        odd: cases that ended in no allowed way.
    """

    cases: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    peak_mb: float = 0.0
    longest_s: float = 0.0
    odd: list[str] = field(default_factory=list)

    def measure(self, ended: Ended) -> None:
        """Count time and memory of a command."""
        self.peak_mb = max(self.peak_mb, round(ended.peak_mb, 1))
        self.longest_s = max(self.longest_s, round(ended.seconds, 2))

    def count(self, way: str, case: str, *, allowed: bool = True) -> None:
        """Count a case."""
        self.cases += 1
        self.ways[way] = self.ways.get(way, 0) + 1
        if not allowed:
            self.odd.append(f"{case}: {way}")
            print(f"odd: {case}: {way}", file=sys.stderr)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: exit status; negative for the number of a signal.
        out: what it wrote to its output.
        err: what it wrote to its errors.
        seconds: time that it took.
        peak_mb: largest memory that it had.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak_mb: float

    @property
    def mistakes(self) -> list[str]:
        """The lines that name a mistake of the user's."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def has_traceback(self) -> bool:
        """Whether Python's own report of an error was shown."""
        return "Traceback" in self.err or "Traceback" in self.out

    @property
    def is_named(self) -> bool:
        """Whether it ended in one clear line, with status 2."""
        return self.status == 2 and len(self.mistakes) == 1 and not self.has_traceback

    @property
    def way(self) -> str:
        """The way it ended, in words."""
        if self.has_traceback:
            return "traceback"
        if self.is_named:
            return "one line"
        return "done" if self.status == 0 else f"status {self.status}"


def run(
    arguments: Sequence[object],
    folder: Path,
    *,
    kill_after: float | None = None,
    prepare: Prepare | None = None,
) -> Ended:
    """Run a command in a process of its own.

    Args:
        arguments: the command line, without `demur`.
        folder: where it runs.
        kill_after: seconds after which it is killed; None leaves it alone up to a minute.
        prepare: what the process does first.
    """
    files = [folder / f".campaign.{name}" for name in ("out", "err")]
    start = time.monotonic()
    child = os.fork()
    if not child:
        _become(list(map(str, arguments)), folder, files, prepare)
    limit = LIMIT_SECONDS if kill_after is None else kill_after
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - start > limit:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(0.002)
    seconds = time.monotonic() - start
    out, err = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    for file in files:
        file.unlink()
    return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, usage.ru_maxrss / 1024)


def _become(arguments: list[str], folder: Path, files: list[Path], prepare: Prepare | None) -> None:
    """Be the command; this process ends here."""
    status: object = 70
    try:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.argv = ["demur", *arguments]
        if prepare is not None:
            prepare()
        from demur.cli import main

        main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def load_everything() -> None:
    """Import what commands import late, so that every fork has it."""
    commands()
    for name in LATE:
        import_module(name)
    torch.set_num_threads(1)


def make_model(folder: Path, seed: int = 0) -> Path:
    """Write a random Llama with a word tokenizer; every sixth word refuses."""
    torch.manual_seed(seed)
    config: Any = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    words = ["<pad>", "<s>", "</s>", "<unk>", "user", "system", "assistant", ":", "?", "."]
    words += [f"I apologize {i}" if i % 6 == 0 else f"w{i}" for i in range(WORDS - len(words))]
    table = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def make_inputs(folder: Path) -> None:
    """Write a model, a prompt and queries that small commands take."""
    folder.mkdir(parents=True)
    make_model(folder / "tiny")
    (folder / "basic.txt").write_text("w1 w2 w3 .")
    for label, word in (("harmful", "w7"), ("harmless", "w8")):
        lines = "".join(f"{word} w{row} w{row * 7 % 60} ?\n" for row in range(12))
        (folder / f"{label}.txt").write_text(lines)
    rows = "".join(
        f"w7 w{row} ?,harmful,I cannot help.\nw8 w{row} ?,harmless,w1\n" for row in range(9)
    )
    (folder / "responses.csv").write_text(f"query,label,response\n{rows}")


SAMPLED = ["--samples", "2", "--tokens", "4", "--dtype", "float32"]
SETS = ["--harmful", "harmful.txt", "--harmless", "harmless.txt"]
LONG_WORK: dict[str, list[str]] = {
    "run": [
        *("optimize", "tiny", "--basic-prompt", "basic.txt", "--method", "dro", *SETS),
        *("--preset", "quick", "--epochs", "2", "--most-held-out", "10", "--learning-rate", "0.05"),
        *("--judge", "paper", *SAMPLED),
    ],
    "evaluation": [
        "evaluate",
        "tiny",
        "--prompt",
        "none",
        "--prompt",
        "basic.txt",
        *SETS,
        *SAMPLED,
    ],
    "diagnosis": [
        *("diagnose", "tiny", "--preset", "quick", "--prompt", "basic.txt", *SAMPLED),
        *("--most-anchors", "12"),
    ],
    "files": ["evaluate", "--responses", "responses.csv"],
}
"""Commands that have a folder of work, by what it holds."""


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its bytes, and every empty folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def advised(line: str) -> Path | None:
    """What a message says to delete; None where it says nothing of the kind."""
    told = re.search(r"delete (\S+) and run the (?:same )?command again", line)
    if told is None:
        return None
    if told[1] != "it":
        return Path(told[1])
    named = re.match(r"error: '?(.+?)'? is damaged", line)
    return None if named is None else Path(named[1])
