"""The studies in the repository, and the examples of the documentation, are studies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from demur import Study
from demur.queries import BENCHMARKS
from demur.settings import load_toml
from demur.study.settings import read_study, study_settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_documentation_are_studies(text: str, tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(text)
    given: dict[str, Any] = load_toml(file)
    if "methods" in given:
        assert read_study(file).methods
    assert study_settings(given, "example").models


def test_there_are_five_examples() -> None:
    assert len(EXAMPLES) == 5


def test_the_small_study_is_planned(tmp_path: Path) -> None:
    plan = Study.load(ROOT / "studies" / "small.toml", tmp_path / "small").plan()
    runs = [cell for cell in plan.record.cells if cell.kind == "run"]
    assert len(runs) == 2 * 3 * 3 * 2
    assert len(plan.record.cells) == 2 * len(runs) + 2 * 2
    assert {plan.settings.methods[0].settings.preset} == {"quick"}
    assert plan.cost.trained > 0


def test_the_study_of_the_paper_is_that_of_its_preset() -> None:
    study = read_study(ROOT / "studies" / "paper.toml")
    assert len(study.models) == 8
    assert [one.name for one in study.basic_prompts] == ["long", "short", "plain"]
    by_name = {one.name: one.settings for one in study.methods}
    assert by_name["dro"].training.epochs == 40
    assert by_name["dro"].sampling.samples == 25
    assert by_name["dro"].method_settings.anchor_prompts == ("long", "short", "plain")
    assert by_name["vpt"].training.epochs == 5
    assert set(study.common.queries.benchmark) <= set(BENCHMARKS)
