"""Progress: numbered stages, one line that fits the terminal, and lines with times in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from demur.cli.stages import ShownStage, TerminalProgress, duration
from demur.progress import StagePlan

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_planned_stages_are_numbered_and_no_other_is() -> None:
    plan = StagePlan(["Measuring: none", "Reading", "Training", "Measuring: optimized"])
    assert plan.number("Measuring: none") == "1 of 4"
    assert plan.number("Downloading") == ""
    # A stage within a planned one has its number, one of a longer name has not.
    assert plan.number("Reading: none") == plan.number("Reading: long") == "2 of 4"
    assert plan.number("Reading more") == ""
    assert plan.number("Training") == "3 of 4"
    # What is done once more, between two parts of a later stage, has no place of its own.
    assert plan.number("Reading: after epoch 1") == ""
    assert plan.number("Training") == "3 of 4"
    assert plan.number("Measuring: optimized") == "4 of 4"


def test_stages_that_are_left_out_keep_their_place() -> None:
    plan = StagePlan(["Measuring: none", "Measuring: long", "Training"])
    assert plan.number("Measuring: long") == "2 of 3"
    assert StagePlan().number("Training") == ""


def shown(clock: Clock, title: str = "Held-out queries: my-prompt.txt") -> ShownStage:
    return ShownStage("3 of 7", title, 400, "responses", clock)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_numbers_and_the_clock_stay_whole_and_the_title_is_cut_first(width: int) -> None:
    clock = Clock()
    stage = shown(clock)
    stage.note("loss 0.312")
    clock.now += 50
    stage.advance(100)
    line = stage.line(width).plain
    assert len(line) <= width
    assert line.startswith("3 of 7  Held" if width == 60 else "3 of 7  Held-out queries: my-")
    assert "100/400 responses  about 2:30 left" in line
    assert ("my-prompt.txt" in line) == (width >= 80)
    assert ("━" in line) == (width == 120)
    assert ("loss 0.312" in line) == (width == 120)
    stage.advance(300)
    stage.ended = True
    assert "400/400 responses  took 0:50" in stage.line(width).plain


def test_only_the_name_is_cut_where_that_is_enough() -> None:
    long = "qwen2.5-coder-0.5b-my-prompt.txt-quick"
    line = shown(Clock(), f"Asking refuse.txt: {long}").line(80).plain
    assert re.search(r"Asking refuse\.txt: qwen2\.5-\S*\.\.\.\S+  0/400", line)
    line = shown(Clock(), f"Asking {'a-set-of-many-words-' * 3}.txt: {long}").line(80).plain
    assert re.search(r"Asking a-s\S*\.\.\.\S*\.txt: qwen\.\.\.ick  0/400", line)


def test_the_clock_says_what_it_counts_where_that_is_a_part_of_the_work() -> None:
    clock, out = Clock(), io.StringIO()
    stage = ShownStage("3 of 7", "Training: from epoch 2 on", 20, "steps", clock)
    stage.advance(5)  # the epoch before
    clock.now += 209
    stage.advance(5)
    stage.ended = True
    assert stage.line(80).plain.endswith("10/20 steps  5 took 3:29")
    progress = TerminalProgress(Console(file=out, width=80), clock)
    with progress.stage("Training: from epoch 2 on", 20, "steps") as logged:
        logged.advance(5)
        clock.now += 209
        logged.advance(5)
    assert out.getvalue().splitlines()[-1].endswith("on: 5 steps done in 3:29")


def test_wide_characters_and_controls_do_not_break_the_line() -> None:
    stage = shown(Clock(), "測" * 60 + "\x1b[2J")
    assert stage.line(80).cell_len <= 80
    assert "\x1b" not in stage.line(200).plain
    assert "0/400 responses  0:00 so far" in stage.line(80).plain


def test_the_time_left_is_told_once_enough_is_done() -> None:
    clock = Clock()
    stage = shown(clock)
    stage.advance(200)  # done before this process began
    assert stage.left is None
    clock.now += 1
    stage.advance(20)
    assert stage.left is None
    clock.now += 9
    assert stage.left == pytest.approx(10 * 180 / 20)
    stage.advance(180)
    assert stage.left == 0


def test_a_log_has_a_line_at_the_start_each_minute_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    progress = TerminalProgress(Console(file=out, width=80), clock)
    progress.plan(["Measuring: none", "Measuring: long"])
    progress.message("float32 on the processor, as the model's files have it, which is a long line")
    with progress.stage("Measuring: long", 400, "responses") as stage:
        for _ in range(40):
            clock.now += 10
            stage.advance(10)
    lines = out.getvalue().splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    told = [re.sub(STAMP, "", line) for line in lines]
    assert told[0].endswith("which is a long line")
    assert told[1] == "2 of 2  Measuring: long: begins"
    assert told[2] == "2 of 2  Measuring: long: 60/400 responses, about 5:40 left"
    assert told[-1] == "2 of 2  Measuring: long: done in 6:40"
    assert len(told) == 3 + 6


def test_a_log_says_when_a_stage_stops() -> None:
    clock, out = Clock(), io.StringIO()
    progress = TerminalProgress(Console(file=out, width=80), clock)

    def work() -> None:
        with progress.stage("Training", 10, "steps"):
            clock.now += 5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert re.sub(STAMP, "", out.getvalue().splitlines()[-1]) == "Training: stopped after 0:05"


def test_a_terminal_shows_the_stage_and_the_one_within_it() -> None:
    out = io.StringIO()
    progress = TerminalProgress(
        Console(file=out, width=80, force_terminal=True, force_interactive=True)
    )
    progress.plan(["Measuring: none"])
    with progress.stage("Measuring: none", 4, "responses") as stage:
        with progress.stage("Judging", 2, "answers") as inner:
            inner.advance(2)
        stage.advance(4)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-1]
    assert last.startswith("1 of 1  Measuring: none")
    assert "4/4 responses  took 0:00" in last
    with progress.stage("Another", 1):  # one that ended leaves nothing behind
        pass
    assert "Another" in out.getvalue()


def test_durations() -> None:
    assert [duration(each) for each in (0, 7.4, 725, 3723)] == ["0:00", "0:07", "12:05", "1:02:03"]
