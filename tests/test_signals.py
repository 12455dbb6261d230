"""Ctrl-C and SIGTERM, in a process of their own: what is said, the status, and how soon it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import demur, done
from tests.interruption import content
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="these are signals of POSIX")

SOON = 2.0
"""Seconds in which a command must have ended."""

WAIT = 120
START = """\
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
from demur.cli import main

main()
"""
JUDGES = {
    # Swallows everything and goes on.
    "deaf": "while True:\n            try:\n                time.sleep(60)\n"
    "            except BaseException:\n                pass",
    # One long operation outside Python, which no handler of Python's interrupts.
    "busy": "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",
    # Turns the interruption into another error, as Python does while it makes a class.
    "wrapping": "try:\n            time.sleep(60)\n        except BaseException as error:\n"
    "            raise RuntimeError('other') from error",
    # Waits for threads that never end, as a pool of requests does when it is closed.
    "waiting": "with ThreadPoolExecutor(2) as pool:\n            pool.submit(time.sleep, 60)",
}
JUDGE = """\
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Judge:
    name = "mine"
    fingerprint = "mine"

    def judge(self, queries, responses):
        Path("begun").touch()
        {body}
        return [False] * len(responses)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


class Ended:
    """How a command ended after a signal."""

    def __init__(
        self,
        folder: Path,
        arguments: list[object],
        number: signal.Signals,
        ready: Callable[[], bool],
    ) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        limit = time.monotonic() + WAIT
        while not ready() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        start = time.monotonic()
        process.send_signal(number)
        self.out, self.err = process.communicate(timeout=WAIT)
        self.seconds, self.status = time.monotonic() - start, process.returncode

    def check(self, status: int) -> None:
        """It ended soon, with this status, and said that nothing is lost."""
        assert self.status == status, self.err
        told = "Interrupted: nothing that was finished is lost; run the same command again"
        assert " ".join(self.err.split()).count(told) == 1, self.err
        assert "Traceback" not in self.err
        assert "error: " not in self.err
        assert self.seconds < SOON


@pytest.mark.parametrize("judge", JUDGES)
def test_a_command_ends_whatever_it_is_doing(judge: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE.format(body=JUDGES[judge]))
    arguments: list[object] = ["evaluate", tiny, "--judge", "judge.py:Judge", "--tokens", "2"]
    arguments += ["--output", "out"]
    ended = Ended(tmp_path, arguments, signal.SIGINT, (tmp_path / "begun").exists)
    ended.check(130)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_an_interrupted_run_goes_on_to_the_same_files(
    number: signal.Signals, status: int, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "basic.txt").write_text("w1 w2 w3 .")
    arguments: list[object] = ["optimize", tiny, "--basic-prompt", tmp_path / "basic.txt"]
    arguments += ["--method", "dro", "--judge", "paper", "--preset", "quick", "--samples", "2"]
    arguments += ["--tokens", "4", "--epochs", "3", "--dtype", "float32", "--output"]
    stored = tmp_path / "run/measurements"
    ended = Ended(
        tmp_path,
        [*arguments, "run"],
        number,
        lambda: stored.is_dir() and len(list(stored.glob("*.journal"))) > 1,
    )
    ended.check(status)
    done(demur(*arguments, tmp_path / "run"))
    done(demur(*arguments, tmp_path / "whole"))
    found, whole = content(tmp_path / "run"), content(tmp_path / "whole")
    assert sorted(found) == sorted(whole)
    for name in whole:
        if name != "report.html":
            assert found[name] == whole[name], name


LOST = """\
import os
import signal

from demur.cli.interrupts import Interrupts


class Removed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


with Interrupts():
    Removed()
    print("went on")
"""
WRAPPED = """\
import os
import signal

import demur.cli.app


class Part:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)


def main():
    class Whole:
        part = Part()


demur.cli.app.main = main
demur.cli.main()
"""
LATE = """\
import os
import signal

from demur.cli.interrupts import Interrupts

with Interrupts():
    pass
os.kill(os.getpid(), signal.SIGINT)
print("done")
"""


def test_an_interruption_that_python_would_lose_is_kept() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert "Interrupted: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "went on" not in ended.stdout


def test_an_interruption_that_python_turns_into_another_error_is_kept() -> None:
    """As it does while packages are imported, which make classes."""
    ended = subprocess.run(
        [sys.executable, "-c", WRAPPED], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert ended.stderr.count("Interrupted: ") == 1
    assert "Traceback" not in ended.stderr


def test_an_interruption_after_the_end_changes_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
