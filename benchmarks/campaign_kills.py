"""Commands that are killed: at random moments, and before every lasting change to a file."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from functools import partial, wraps
from itertools import zip_longest
from pathlib import Path
from typing import Any

from campaign_work import (
    WORKS,
    Case,
    Ended,
    Outcome,
    content,
    difference,
    go_back,
    outcome_of,
    run,
    with_finished,
)

RENAMES = ("replace", "rename")
OPERATIONS = (*RENAMES, "fsync", "mkdir", "rmdir", "unlink")
"""What makes a change last, or takes something away."""
MOST_TRIES = 8


def killed(inputs: Path, count: int, seed: int) -> Iterator[Case]:
    """Commands that are killed; then the same command goes on, to the same files.

    What is compared is everything: the folder of the work, what lies beside it, and the cache.
    Every second kill comes at a random moment, and a quarter of these commands is killed once more
    when it goes on. The others come right before an operation on files: before each rename of each
    command in turn, and then before each other operation.

    Args:
        inputs: folder with the model and the inputs.
        count: number of kills.
        seed: chooses the order of the operations.
    """
    before = with_finished(inputs)
    whole: dict[str, dict[str, bytes]] = {}
    seconds: dict[str, float] = {}
    renames: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    log = inputs.with_name("operations")
    for name, command in WORKS.items():
        ended = run(command, inputs, prepare=partial(_watch, log, None))
        assert ended.status == 0, ended.err
        whole[name], seconds[name] = content(inputs), ended.seconds
        done = log.read_text(encoding="ascii").split()
        log.unlink()
        chance = random.Random(f"{seed} order {name}")
        for places, is_rename in ((renames, True), (others, False)):
            found = [place for place, one in enumerate(done) if (one in RENAMES) is is_rename]
            places[name] = chance.sample(found, len(found))
        go_back(inputs, before)
    points = [*_in_turn(renames), *_in_turn(others)]
    for number in range(count):
        if number % 2:
            name = list(WORKS)[number // 2 % len(WORKS)]
            yield partial(_at_random, inputs, name, whole[name], seconds[name], before)
        else:
            name, place = points[number // 2 % len(points)]
            yield partial(_at_operation, inputs, name, whole[name], place)


def _in_turn(places: dict[str, list[int]]) -> list[tuple[str, int]]:
    rows = zip_longest(*([(name, one) for one in found] for name, found in places.items()))
    return [one for row in rows for one in row if one is not None]


def _at_operation(
    inputs: Path, name: str, whole: dict[str, bytes], place: int, chance: random.Random
) -> Outcome:
    first = run(WORKS[name], inputs, prepare=partial(_watch, None, place))
    case = f"{name} killed before operation {place}"
    if first.status != -signal.SIGKILL:
        return outcome_of("not killed", f"{case}: {first.err[-500:]}", [first], allowed=False)
    return _gone_on(inputs, name, whole, case, [first])


def _at_random(
    inputs: Path,
    name: str,
    whole: dict[str, bytes],
    seconds: float,
    before: set[str],
    chance: random.Random,
) -> Outcome:
    ended: list[Ended] = []
    case = name
    for _ in range(1 if chance.random() < 0.75 else 2):
        moment = chance.uniform(0, seconds)
        for _ in range(MOST_TRIES):  # a command may have ended before
            left = run(WORKS[name], inputs, kill_after=moment)
            ended.append(left)
            if left.status == -signal.SIGKILL:
                break
            go_back(inputs, before)
            moment *= 0.7
        else:
            return outcome_of("not killed", case, ended, allowed=False)
        case += f" killed after {moment:.2f} s"
    return _gone_on(inputs, name, whole, case, ended)


def _gone_on(
    inputs: Path, name: str, whole: dict[str, bytes], case: str, ended: list[Ended]
) -> Outcome:
    again = run(WORKS[name], inputs)
    way, said = again.way, again.err[-500:]
    if again.status == 0:
        said = difference(content(inputs), whole)
        way = "other files" if said else "identical"
    return outcome_of(way, f"{case}: {said}", [*ended, again], allowed=way == "identical")


def _watch(log: Path | None, last: int | None) -> None:
    """Count the operations on files in this process, and kill it before one of them."""
    done = 0
    inside = False

    def watched(operation: Any) -> Any:
        @wraps(operation)
        def perform(*arguments: Any, **options: Any) -> Any:
            nonlocal done, inside
            if inside:  # those of `Path` call those of `os` in some versions of Python only
                return operation(*arguments, **options)
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            if log is not None:
                with log.open("a", encoding="ascii") as stream:
                    stream.write(f"{operation.__name__}\n")
            inside = True
            try:
                return operation(*arguments, **options)
            finally:
                inside = False

        return perform

    for owner in (os, Path):
        for name in OPERATIONS:
            if hasattr(owner, name):
                setattr(owner, name, watched(getattr(owner, name)))
