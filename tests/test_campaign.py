"""The campaign in `benchmarks/`: it can fail, goes on where it was, and kills where it says."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import campaign
import campaign_damage
import campaign_kills
import campaign_work
from campaign_work import Case, Ended, Outcome, Tally, advised, content, difference, outcome_of, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the campaign forks")


def test_every_difference_of_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/report.html").write_text("on 3 November 2026")
    (tmp_path / "a/x.f32").write_bytes(b"\0\1")
    (tmp_path / "empty").mkdir()
    whole = content(tmp_path)
    assert difference(content(tmp_path), whole) == ""
    (tmp_path / "a/report.html").write_text("on 4 November 2026")  # the day of the campaign
    assert difference(content(tmp_path), whole) == ""
    (tmp_path / "a/x.f32").write_bytes(b"\0\2")
    (tmp_path / ".left.part").touch()
    (tmp_path / "empty").rmdir()
    assert difference(content(tmp_path), whole) == ".left.part, a/x.f32, empty"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (
            "error: r/results.json is damaged: delete it and run the command that made it again.",
            "r/results.json",
        ),
        (
            "error: m/a.f32 is damaged (x): delete m/a.journal and run the command that made it "
            "again.",
            "m/a.journal",
        ),
        ("error: export exists already: choose another folder, or delete it.", "export"),
        ("error: There is no file 'x': check the path.", None),
    ],
)
def test_advice_is_followed_where_there_is_one(line: str, path: str | None) -> None:
    assert advised(line) == (None if path is None else Path(path))


def test_a_campaign_goes_on_from_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(campaign, "stay_offline", lambda cache: None)
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))

    def kind(inputs: Path, count: int, seed: int) -> Iterator[Case]:
        inputs.mkdir(exist_ok=True)
        for number in range(count):
            yield partial(one, number)

    def one(number: int, chance: object) -> Outcome:
        done.append(number)
        return Outcome("traceback" if number == 1 else "identical", str(number), number != 1, 1, 1)

    monkeypatch.setattr(campaign, "KINDS", {"kills": kind})
    monkeypatch.setattr(campaign, "make_inputs", lambda inputs: inputs.mkdir())
    monkeypatch.setattr(campaign, "load_everything", lambda: None)
    log = tmp_path / "log"

    def main(count: int) -> int:
        given = ["campaign", "--kills", str(count), "--dry", "--log", str(log)]
        monkeypatch.setattr(sys, "argv", given)
        return campaign.main()

    assert main(1) == 0
    with log.open("a") as stream:
        stream.write('{"seed": 0, "kind": "ki')  # a kill while it wrote
    assert main(3) == 1  # the second case is odd
    assert main(3) == 1
    assert done == [0, 1, 2]


def test_a_command_is_killed_before_an_operation(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("query,label,response\nw1?,harmful,no\nw2?,harmless,yes\n")
    command = ["evaluate", "--responses", "r.csv", "--output", "out"]
    log = tmp_path.with_name(f"{tmp_path.name}-log")
    whole = run(command, tmp_path, prepare=partial(campaign_kills._watch, log, None))
    assert (whole.status, whole.way) == (0, "done")
    assert whole.peak_mb > 1
    names = log.read_text().split()
    assert names.count("replace") >= 3
    first = names.index("replace")
    campaign_work.go_back(tmp_path, {"r.csv"})
    killed = run(command, tmp_path, prepare=partial(campaign_kills._watch, None, first))
    assert killed.status == -signal.SIGKILL
    assert [one.name for one in (tmp_path / "out").iterdir()] != []
    assert not (tmp_path / "out/settings.json").exists()


def test_a_case_that_ended_badly_is_odd() -> None:
    ended = Ended(1, "", "Traceback (most recent call last):\n", 2.0, 100.0)
    assert (ended.way, ended.is_named) == ("traceback", False)
    tally = Tally()
    tally.add(outcome_of(ended.way, "case", [ended], allowed=False))
    assert (tally.ways, tally.odd, tally.longest_s) == ({"traceback": 1}, ["case: traceback"], 2.0)


def test_every_damage_changes_a_file() -> None:
    data = b"".join(b"line %d\n" % number for number in range(2000))
    for damage in campaign_damage.DAMAGES:
        assert all(damage(data, random.Random(seed)) != data for seed in range(20))
