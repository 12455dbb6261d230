"""Files of finished work that are damaged, and what the same command makes of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from campaign_work import LONG_WORK, Tally, advised, content, run

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


def damaged(inputs: Path, count: int, chance: random.Random, tally: Tally) -> None:
    """Damage files of finished work one at a time, and run the same command.

    The result is the same to the byte, at once or after what one clear line advises.

    Args:
        inputs: folder with the model and the inputs.
        count: number of damages.
        chance: source of the damages.
        tally: counts how they ended.
    """
    kept: dict[str, dict[str, bytes]] = {}
    others: dict[str, dict[str, bytes]] = {}
    for name, command in LONG_WORK.items():
        seeds = () if name == "files" else ("--seed", "1")
        for folder, more in ((f"whole-{name}", ()), (f"other-{name}", seeds)):
            ended = run([*command, *more, "--output", name], inputs)
            assert ended.status == 0, ended.err
            (inputs / name).rename(inputs / folder)
        kept[name] = content(inputs / f"whole-{name}")
        others[name] = content(inputs / f"other-{name}")
    places = [(name, file) for name in kept for file in kept[name] if kept[name][file]]
    for number in range(count):
        name, file = places[number % len(places)]
        data = kept[name][file]
        alike = [
            one
            for path, one in others[name].items()
            if path.rpartition("/")[0] == file.rpartition("/")[0]
            and path.rpartition(".")[2] == file.rpartition(".")[2]
            and one != data
        ]
        found: bytes | None
        if alike and not chance.randrange(len(DAMAGES) + 1):
            title, found = "swapped", chance.choice(alike)
        else:
            damage = chance.choice(DAMAGES)
            title, found = damage.__name__, damage(data, chance)
        if found == data:
            found, title = b"", "emptied"
        shutil.copytree(inputs / f"whole-{name}", inputs / name)
        place = inputs / name / file
        place.unlink()
        if found is not None:
            place.write_bytes(found)
        way, told = _way(inputs, name, kept[name], tally)
        allowed = way in ("identical", "one line, then identical")
        tally.count(way, f"{name}/{file} {title}: {' '.join(told)}", allowed=allowed)
        shutil.rmtree(inputs / name, ignore_errors=True)


def _way(inputs: Path, name: str, whole: dict[str, bytes], tally: Tally) -> tuple[str, list[str]]:
    """How the same command ends, and what it said on the way."""
    told: list[str] = []
    for _ in range(MOST_TRIES):
        ended = run([*LONG_WORK[name], "--output", name], inputs)
        tally.measure(ended)
        if ended.status == 0:
            same = content(inputs / name) == whole
            way = "identical" if same else "other files"
            return (f"one line, then {way}" if told else way), told
        if not ended.is_named:
            return ended.way, told
        told += ended.mistakes
        target = advised(ended.mistakes[0])
        if target is None and "delete that folder" in ended.mistakes[0]:
            target = Path(name)
        if target is None:
            return "one line without advice", told
        path = inputs / target
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "no end of advice", told
