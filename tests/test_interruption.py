"""The check of interruptions finds work that loses, repeats or leaves something behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demur.files import write_bytes
from tests.interruption import check_interrupts, check_kills, content

PARTS = [b"one\n", b"two\n", b"three\n"]


def append(file: Path, data: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def append_whole_lines(folder: Path) -> None:
    """Appends the lines that are missing; half a line at the end is cut off."""
    folder.mkdir(exist_ok=True)
    file = folder / "lines"
    whole = file.read_bytes() if file.exists() else b""
    whole = whole[: whole.rfind(b"\n") + 1]
    if file.exists():
        os.truncate(file, len(whole))
    for part in PARTS[whole.count(b"\n") :]:
        append(file, part)


def append_without_care(folder: Path) -> None:
    """Takes half a line at the end for a whole one."""
    folder.mkdir(exist_ok=True)
    file = folder / "lines"
    done = len(file.read_bytes().splitlines()) if file.exists() else 0
    for part in PARTS[done:]:
        append(file, part)


def append_twice(folder: Path) -> None:
    """Begins again without a look at what is there."""
    folder.mkdir(exist_ok=True)
    if not (folder / "done").exists():
        for part in PARTS:
            append(folder / "lines", part)
        write_bytes(folder / "done", b"")


def replace_each(folder: Path) -> None:
    """Writes whole files, and clears away what a kill left of them."""
    for left in folder.glob(".*.part"):
        left.unlink()
    for number, part in enumerate(PARTS):
        if not (folder / str(number)).exists():
            write_bytes(folder / str(number), part)


def replace_and_leave(folder: Path) -> None:
    """Writes whole files under temporary names that differ each time, and leaves them."""
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(PARTS):
        if not (folder / str(number)).exists():
            temporary = folder / f"temporary-{len(list(folder.iterdir()))}"
            append(temporary, part)
            temporary.replace(folder / str(number))


def hide_interruptions(folder: Path) -> None:
    """Goes on although the user wanted it to stop."""
    try:
        replace_each(folder)
    except KeyboardInterrupt:
        replace_each(folder)


def test_work_that_goes_on_where_it_was_passes(tmp_path: Path) -> None:
    lines, files = tmp_path / "lines", tmp_path / "files"
    # Before, torn and after each of three syncs, where "after" is "before" of the next.
    assert check_kills(lambda: append_whole_lines(lines), lines) == 6
    with pytest.raises(AssertionError, match="wrote nothing"):
        check_kills(lambda: append_whole_lines(lines), lines)
    (lines / "lines").unlink()
    assert check_kills(lambda: append_whole_lines(lines), lines, most=2) == 2
    # Three syncs and three replacements, before and after.
    assert check_interrupts(lambda: replace_each(files), files) == 12
    assert content(files) == {str(number): part for number, part in enumerate(PARTS)}


def test_half_an_append_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="other content after 0-torn: lines"):
        check_kills(lambda: append_without_care(tmp_path / "a"), tmp_path / "a")


@pytest.mark.parametrize("check", [check_kills, check_interrupts])
def test_repeated_work_is_noticed(check: object, tmp_path: Path) -> None:
    assert callable(check)
    with pytest.raises(AssertionError, match="other content"):
        check(lambda: append_twice(tmp_path / "a"), tmp_path / "a")


def test_what_a_kill_leaves_behind_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="other files"):
        check_kills(lambda: replace_and_leave(tmp_path / "a"), tmp_path / "a")


def test_a_hidden_interruption_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="before operation 0 was hidden"):
        check_interrupts(lambda: hide_interruptions(tmp_path / "a"), tmp_path / "a")
