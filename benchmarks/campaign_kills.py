"""Commands that are killed: at random moments, and before every lasting change to a file."""

from __future__ import annotations

import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

from campaign_work import LONG_WORK, Tally, content, run

OPERATIONS = ("replace", "rename", "fsync", "rmdir", "unlink")
"""What makes a change last, or takes something away."""


def killed(inputs: Path, count: int, chance: random.Random, tally: Tally) -> None:
    """Kill commands, and let the same command go on.

    Half of the kills come at random moments. The others come right before an operation on files,
    which is each of them in turn as far as the number of kills allows.

    Args:
        inputs: folder with the model and the inputs.
        count: number of kills.
        chance: source of the moments.
        tally: counts how they ended.
    """
    works = [(name, [*LONG_WORK[name], "--output", name]) for name in LONG_WORK]
    whole: dict[str, dict[str, bytes]] = {}
    seconds: dict[str, float] = {}
    operations: dict[str, int] = {}
    for name, command in works:
        log = inputs / ".operations"
        ended = run(command, inputs, prepare=partial(_watch, log, None))
        assert ended.status == 0, ended.err
        tally.measure(ended)
        whole[name], seconds[name] = content(inputs / name), ended.seconds
        operations[name] = len(log.read_bytes())
        log.unlink()
        shutil.rmtree(inputs / name)
    for number in range(count):
        name, command = works[number % len(works)]
        if number % 2:
            moment = chance.uniform(0, seconds[name])
            case = f"{name} killed after {moment:.2f} s"
            ended = run(command, inputs, kill_after=moment)
        else:
            share = (number // 2) / max(1, count // 2)
            place = int(share * operations[name])
            case = f"{name} killed before operation {place}"
            ended = run(command, inputs, prepare=partial(_watch, None, place))
        tally.measure(ended)
        again = run(command, inputs)
        tally.measure(again)
        way = again.way
        if again.status == 0:
            same = content(inputs / name) == whole[name]
            way = "identical" if same else "other files"
        tally.count(way, f"{case}: {' '.join(again.mistakes)}", allowed=way == "identical")
        shutil.rmtree(inputs / name, ignore_errors=True)


def _watch(log: Path | None, last: int | None) -> None:
    """Count the operations on files in this process, and kill it before one of them."""
    done = 0

    def watched(operation: Any) -> Any:
        def perform(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            if log is not None:
                with log.open("ab") as stream:
                    stream.write(b".")
            return operation(*arguments, **options)

        return perform

    for name in OPERATIONS:
        setattr(os, name, watched(getattr(os, name)))
