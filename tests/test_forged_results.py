"""Results that are not what demur wrote, although their checksum is right."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from demur import DemurError, Run, write_report
from demur.cli.show import ShowOptions, run_show
from demur.diagnosis.layers import LayerSeparation
from demur.diagnosis.sheet import ConditionSheet, Misplaced, Sheet
from demur.records import Interval, Rate
from demur.records.codec import canonical
from tests.report_folders import finished_evaluation, finished_run

Steps = tuple[str | int, ...]
MOST_ALIKE = 2
"""Places of one kind, for example the rates of several prompts, that are tried."""


def forge(file: Path, change: Callable[[Any], None]) -> None:
    """Change a record and give it the checksum of what it holds then."""
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document["content"])
    document["sha256"] = hashlib.sha256(canonical(document["content"])).hexdigest()
    file.write_text(json.dumps(document), encoding="utf-8")


def places(value: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    yield path, value
    parts: Any = ()
    if isinstance(value, (dict, list)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield from places(part, (*path, key))


def put(content: Any, path: Steps, value: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value


def mutations(content: Any) -> Iterator[tuple[Steps, Any]]:
    """Lists that are empty, shorter or hold something twice; numbers and texts out of place."""
    seen: Counter[Steps] = Counter()
    for path, value in places(content):
        kind = tuple("*" if isinstance(step, int) else step for step in path)
        seen[kind] += 1
        if not path or seen[kind] > MOST_ALIKE:
            continue
        others: list[Any] = []
        if isinstance(value, list):
            others = [[], value[:-1], value + value[:1], value[::-1]]
        elif isinstance(value, str):
            others = ["x", "", None]
        elif isinstance(value, (int, float)):
            others = [0, -1, 10**30, 1e308, None]
        yield from ((path, other) for other in others if other != value)


def is_shown_or_refused(folder: Path) -> bool:
    """Whether the folder is shown; any error but that for users fails the test."""
    try:
        run_show(ShowOptions(folder=str(folder)))
        write_report([folder])
    except DemurError:
        return False
    return True


def rename_all(content: Any) -> None:
    for path, _ in list(places(content)):
        if path and path[-1] == "prompt":
            put(content, path, "x")


def test_rates_that_cannot_be_told_apart_are_damage(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    forge(run / "results.json", rename_all)
    for show in (lambda: Run.load(run), lambda: write_report([run])):
        with pytest.raises(DemurError, match=r"results\.json is damaged: delete it and run"):
            show()
    evaluation = finished_evaluation(tmp_path / "evaluation")
    forge(evaluation / "results.json", rename_all)
    with pytest.raises(DemurError, match=r"results\.json is damaged"):
        write_report([evaluation])


@pytest.mark.parametrize("make", [finished_run, finished_evaluation])
def test_no_forged_results_end_in_a_traceback(
    tmp_path: Path, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "work")
    file = folder / "results.json"
    whole = file.read_bytes()
    assert is_shown_or_refused(folder)
    refused = 0
    for path, value in mutations(json.loads(whole)["content"]):
        forge(file, partial(put, path=path, value=value))
        refused += not is_shown_or_refused(folder)
        file.write_bytes(whole)
        capsys.readouterr()
    assert refused > 100


def test_a_rate_is_one_of_queries() -> None:
    for count, queries in ((1, 0), (-1, 4), (5, 4)):
        with pytest.raises(ValueError, match="a rate must lie between 0 and 1"):
            Rate(count, queries, Interval(0, 1))


def test_a_sheet_has_a_number_for_each_condition() -> None:
    rate = Rate(1, 2, Interval(0, 1))
    one = ConditionSheet("none", None, None, None, rate, rate)
    whole: dict[str, Any] = {
        "conditions": (one,),
        "explained_variance": (0.5,),
        "refusal_is_readable": True,
        "refusal": None,
        "movements": (),
        "angles": (),
        "layers": (LayerSeparation(1, (0.5,), None),),
        "misplaced": (Misplaced("q", "harmful", 1.0, (0.5,)),),
    }
    assert Sheet(**whole).conditions == (one,)
    for change in (
        {"conditions": ()},
        {"conditions": (), "layers": (), "misplaced": ()},
        {"conditions": (one, one)},
        {"layers": (LayerSeparation(1, (0.5, 0.5), None),)},
        {"misplaced": (Misplaced("q", "harmful", 1.0, ()),)},
    ):
        with pytest.raises(ValueError, match="one set of conditions"):
            Sheet(**{**copy.copy(whole), **change})
    with pytest.raises(ValueError, match="is no AUC"):
        LayerSeparation(1, (1e308,), None)
