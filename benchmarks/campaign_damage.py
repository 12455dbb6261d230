"""Files of finished work that are damaged, and what the same command makes of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from campaign_work import (
    READERS,
    WORKS,
    Case,
    Ended,
    Outcome,
    advised,
    content,
    difference,
    go_back,
    outcome_of,
    run,
    with_finished,
)

Damage = Callable[[bytes, random.Random], bytes | None]
"""From a file's bytes to other ones; None deletes it."""

MOST_TRIES = 4


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit is another one."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    """A page is zero."""
    start = chance.randrange(len(data))
    return data[:start] + bytes(min(4096, len(data) - start)) + data[start + 4096 :]


def without_a_line(data: bytes, chance: random.Random) -> bytes:
    """A line is missing."""
    lines = data.splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    return b"".join(lines)


def with_a_line_twice(data: bytes, chance: random.Random) -> bytes:
    """A line is there twice."""
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    return b"".join([*lines[: place + 1], *lines[place:]])


def cut(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def longer(data: bytes, chance: random.Random) -> bytes:
    """Something follows."""
    return data + data[-chance.randrange(1, 60) :]


def emptied(data: bytes, chance: random.Random) -> bytes:
    """Nothing is left."""
    return b""


def deleted(data: bytes, chance: random.Random) -> None:
    """The file is gone."""


DAMAGES: tuple[Damage, ...] = (
    *(flipped, zeroed, without_a_line, with_a_line_twice, cut, longer, emptied, deleted),
)


@dataclass(frozen=True)
class Place:
    """A file that is damaged.

    Attributes:
        name: the command that comes then, a key of `WORKS` or `READERS`.
        file: path of the file.
        reads: whether the command reads a finished run that was damaged, and does not go on with
            work of its own.
    """

    name: str
    file: str
    reads: bool = False


def damaged(inputs: Path, count: int, seed: int) -> Iterator[Case]:
    """Files of finished work that are damaged one at a time.

    Every file has its turn: those of runs, evaluations, diagnoses, exports, reports and cards,
    whose command comes again and must end with the same files; those of the unpacked copy of a GGUF
    file, which must be unpacked again; and those of a run that other commands read, which must say
    the same (they do not use that file) or name what is wrong.

    Args:
        inputs: folder with the model and the inputs.
        count: number of damages.
        seed: chooses the order of the files.
    """
    before = with_finished(inputs)
    kept, others = _undisturbed(inputs, before)
    read: dict[str, tuple[str, dict[str, bytes]]] = {}
    for name, command in READERS.items():
        ended = run(command, inputs)
        assert ended.status == 0, ended.err
        read[name] = ended.out, content(inputs)
        go_back(inputs, before)
    chance = random.Random(f"{seed} places")
    own = [
        Place(name, file)
        for name in WORKS
        for file, data in kept[name].items()
        if (data or file.endswith(".states.json"))
        and (file.startswith("cache/dequantized/") or name != "gguf")
    ]
    strange = [
        Place(name, file, True)
        for file, data in content(inputs).items()
        if file.startswith("finished/") and data
        for name in READERS
    ]
    own, strange = chance.sample(own, len(own)), chance.sample(strange, len(strange))
    for number in range(count):
        if number % 4 == 3:
            place = strange[number // 4 % len(strange)]
            yield partial(_read, inputs, place, read[place.name], others)
        else:
            place = own[(number - number // 4) % len(own)]
            yield partial(_done_again, inputs, place, kept[place.name], others)


def _undisturbed(
    inputs: Path, before: set[str]
) -> tuple[dict[str, dict[str, bytes]], dict[str, bytes]]:
    """What each command leaves, without what was there; and all files of other work."""
    kept: dict[str, dict[str, bytes]] = {}
    others: dict[str, bytes] = {}
    there = content(inputs)
    for name, command in WORKS.items():
        ended = run(command, inputs)
        assert ended.status == 0, ended.err
        kept[name] = {file: data for file, data in content(inputs).items() if file not in there}
        go_back(inputs, before)
        if name in ("run", "evaluation", "diagnosis"):
            ended = run([*command, "--seed", "1"], inputs)
            assert ended.status == 0, ended.err
            others.update(content(inputs / name))
            go_back(inputs, before)
    return kept, others


def _damage(place: Path, others: dict[str, bytes], chance: random.Random) -> str:
    """Damage a file, and say how."""
    data = place.read_bytes()
    found: bytes | None
    alike = [
        one for file, one in others.items() if file.endswith(place.suffix) and one and one != data
    ]
    if alike and not chance.randrange(len(DAMAGES) + 1):
        title, found = "swapped", chance.choice(alike)
    else:
        damage = chance.choice(DAMAGES)
        title, found = damage.__name__, damage(data, chance)
    if found == data:
        found, title = b"", "emptied"
    place.unlink()
    if found is not None:
        place.write_bytes(found)
    return title


def _done_again(
    inputs: Path,
    place: Place,
    whole: dict[str, bytes],
    others: dict[str, bytes],
    chance: random.Random,
) -> Outcome:
    """The command that made a file comes again."""
    there = content(inputs)
    first = run(WORKS[place.name], inputs)
    assert first.status == 0, first.err
    title = _damage(inputs / place.file, others, chance)
    if place.name == "gguf":  # the copy is read again
        shutil.rmtree(inputs / "gguf")
    case = f"{place.name}: {place.file} {title}"
    ended: list[Ended] = []
    told: list[str] = []
    for _ in range(MOST_TRIES):
        again = run(WORKS[place.name], inputs)
        ended.append(again)
        if again.status == 0:
            found = {file: data for file, data in content(inputs).items() if file not in there}
            other = difference(found, whole)
            way = "other files" if other else "identical"
            way = f"one line, then {way}" if told else way
            return outcome_of(way, f"{case}: {' '.join(told)} {other}", ended, allowed=not other)
        if not again.is_named:
            return outcome_of(again.way, f"{case}: {again.err[-500:]}", ended, allowed=False)
        told += again.mistakes
        target = advised(again.mistakes[0])
        if target is None or not (inputs / target).exists():
            way = "one line without advice"
            return outcome_of(way, f"{case}: {' '.join(told)}", ended, allowed=False)
        path = inputs / target
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return outcome_of("no end of advice", f"{case}: {' '.join(told)}", ended, allowed=False)


def _read(
    inputs: Path,
    place: Place,
    read: tuple[str, dict[str, bytes]],
    others: dict[str, bytes],
    chance: random.Random,
) -> Outcome:
    """Another command reads a run with a damaged file: it says the same, or names what is wrong."""
    title = _damage(inputs / place.file, others, chance)
    ended = run(READERS[place.name], inputs)
    case = f"{place.name} of a run: {place.file} {title}"
    if ended.status == 0:
        out, whole = read[0], dict(read[1])
        found = {file: data for file, data in content(inputs).items() if file != place.file}
        other = difference(
            found, {file: data for file, data in whole.items() if file != place.file}
        )
        if ended.out != out:
            other = f"what is printed {other}"
        way = "used" if other else "identical"
        return outcome_of(way, f"{case}: {other}", [ended], allowed=not other)
    names = ended.is_named and "finished" in ended.mistakes[0]
    way = "one line" if names else ended.way
    return outcome_of(way, f"{case}: {ended.err[-500:]}", [ended], allowed=names)
