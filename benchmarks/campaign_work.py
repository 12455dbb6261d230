"""Commands of demur in processes of their own, which are measured, and what they leave.

Every command runs in a fork of this process, which has imported all packages already. So a case
takes a second, and is a process like any other: it can be killed, and has its own memory.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch

from demur.cli.app import commands

LIMIT_SECONDS = 60.0
LATE = (
    "demur.attacks.attacking",
    *(("demur.capability.harness",) if find_spec("lm_eval") else ()),
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
Prepare = Callable[[], None]
"""What a process does before its command begins, for example plan its own end."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        way: in words.
        case: what was done, and what was said.
        allowed: whether it may end so.
        peak_mb: largest memory of a process.
        seconds: longest time of a command.
    """

    way: str
    case: str
    allowed: bool
    peak_mb: float
    seconds: float


Case = Callable[[Random], Outcome]
"""Does a case with the chances that belong to it."""


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

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.cases += 1
        self.ways[outcome.way] = self.ways.get(outcome.way, 0) + 1
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        self.longest_s = max(self.longest_s, outcome.seconds)
        if not outcome.allowed:
            self.odd.append(f"{outcome.case}: {outcome.way}")


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


def outcome_of(way: str, case: str, ended: Sequence[Ended], *, allowed: bool) -> Outcome:
    """The outcome of a case with its commands; one that took too long is not allowed either."""
    peak = max(one.peak_mb for one in ended)
    seconds = max(one.seconds for one in ended)
    return Outcome(way, case, allowed, round(peak, 1), round(seconds, 2))


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
    for file in files:  # a process may be killed before it writes anything
        file.touch()
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
        # After a fork torch makes its thread pool anew at the next call of this. Two threads that
        # meet in that call fail with "Invalid thread pool", so it comes before there are any.
        torch.set_num_threads(1)
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


def stay_offline(cache: Path) -> None:
    """Keep every command from the hub, and what `datasets` keeps in a folder."""
    hub: Any = import_module("huggingface_hub.constants")
    hub.HF_HUB_OFFLINE = True
    if find_spec("lm_eval"):
        datasets: Any = import_module("datasets.config")
        datasets.HF_HUB_OFFLINE, datasets.HF_DATASETS_CACHE = True, cache


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
    "attack": [
        *("attack", "--model", "tiny", "--prompt", "none", "--prompt", "basic.txt"),
        *("--harmful", "harmful.txt", "--attack", "prefill", "--attack", "base64", "--limit", "6"),
        *SAMPLED,
    ],
    "files": ["evaluate", "--responses", "responses.csv"],
}
"""Commands that have a folder of work, by what it holds."""
if find_spec("lm_eval"):  # an extra
    LONG_WORK["capability"] = [
        *("capability", "basic.txt", "--model", "tiny", "--include-path", "tasks"),
        *("--tasks", "campaign_choice", "--limit", "4", "--dtype", "float32"),
    ]

EXPORT = ["export", "finished", "export", "--model", "tiny", "--to"]
READERS: dict[str, list[str]] = {
    "show": ["show", "finished"],
    "report": ["report", "finished", "--output", "read.html"],
    "export": [*EXPORT, "peft"],
    "push": ["push", "finished", "a/b", "--dry-run", "card"],
    "prompt": ["evaluate", "tiny", "--prompt", "finished", *SETS, *SAMPLED, "--output", "read"],
    "diagnosis": ["diagnose", "tiny", "--run", "finished", "--output", "read"],
    "attack": [
        *("attack", "finished", "--attack", "prefill", "--harmful", "harmful.txt", "--limit", "4"),
        *("--output", "read"),
    ],
}
"""Commands that read a finished run."""
WORKS: dict[str, list[str]] = {
    **{name: [*command, "--output", name] for name, command in LONG_WORK.items()},
    "gguf": ["evaluate", "tiny.gguf", "--prompt", "none", *SETS, *SAMPLED, "--output", "gguf"],
    "export": [*EXPORT, "transformers"],
    "report": READERS["report"],
    "card": READERS["push"],
}
"""Commands that write something, by the folder or file of it."""
_DATE = re.compile(rb"\b\d{1,2} [A-Z][a-z]+ 20\d\d\b")
_PASSING = (".states.json", ".lock")
"""Ends of names of files whose content differs each time, as it holds the times of other files."""


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its bytes, and every empty folder; dates are left out."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or (path.is_dir() and not any(path.iterdir()))
    }
    return {
        name: b""
        if name.endswith(_PASSING)
        else _DATE.sub(b"DATE", data)
        if name.endswith(".html")
        else data
        for name, data in found.items()
    }


def difference(found: dict[str, bytes], whole: dict[str, bytes]) -> str:
    """The names of the files that differ; empty where none does."""
    return ", ".join(
        sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
    )


@contextmanager
def restored(folder: Path) -> Iterator[None]:
    """Afterwards the folder is as it was."""
    kept = folder.with_name(f"{folder.name}-kept")
    if not kept.exists():
        shutil.copytree(folder, kept)
    yield
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def with_finished(inputs: Path) -> set[str]:
    """Do a run that other commands read; return the names of what is there then."""
    ended = run([*LONG_WORK["run"], "--output", "finished"], inputs)
    assert ended.status == 0, ended.err
    there = {one.name for one in inputs.iterdir()}
    if "capability" in WORKS:  # the first time `datasets` keeps a copy, with more operations
        ended = run(WORKS["capability"], inputs)
        assert ended.status == 0, ended.err
        go_back(inputs, there)
    return there


def go_back(inputs: Path, before: set[str]) -> None:
    """Remove what was not there before."""
    for one in inputs.iterdir():
        if one.name not in before:
            shutil.rmtree(one) if one.is_dir() else one.unlink()


def advised(line: str) -> Path | None:
    """What a message says to delete; None where it says nothing of the kind."""
    found = re.match(r"error: (\S+) exists already: choose (another|a new) folder", line)
    found = found or re.match(r"error: (\S+) belongs to .* or delete that folder\.", line)
    if found is not None:
        return Path(found[1])
    told = re.search(r"delete (\S+) and run the (?:same command|command that made it) again", line)
    if told is None:
        return None
    if told[1] != "it":
        return Path(told[1])
    named = re.match(r"error: '?(.+?)'? is damaged", line)
    return None if named is None else Path(named[1])
