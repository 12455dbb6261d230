"""How quickly a study of 1,000 cells is planned, and its finished folders are tabulated.

python benchmarks/study.py [FOLDER]

How much faster two workers are than one, and what a study adds to its cells, is another script:
benchmarks/study_workers.py.

A study of a trivial model with random weights is done: one prompt, four variants of a method, five
seeds. Its finished folders are then copied under the names of other models until there are 1,000
cells, because only reading them is timed.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from campaign_setup import make_model
from common import run_in_folder, write_results
from demur.records import read_record, write_record
from demur.study import KIND, FinishedStudy, Study
from demur.study.drawing import figures_of
from demur.study.record import RESULTS_FORMAT, Outcome, StudyRecord, StudyResults

CELLS = 1000
VARIANTS = 4
SEEDS = 5
QUERIES = 20


def main(folder: Path) -> None:
    """Time both, and print what it took."""
    texts = {}
    for label, word in (("harmful", "w7"), ("harmless", "w8")):
        texts[label] = [f"w{10 + row % 40} {word} w{row} ?" for row in range(QUERIES)]
    model = make_model(folder / "model")
    base = _study(folder, [model.name], model, texts)
    base.run()
    cells = len(base.plan().record.cells)
    models = [f"model-{number}" for number in range(-(-CELLS // cells))]
    start = time.perf_counter()
    plan = _study(folder, models, model, texts).plan()
    planned = time.perf_counter() - start
    count = len(plan.record.cells)
    print(f"planned {count} cells in {planned:.2f} s")
    study = _copied(folder, base.path, plan.record)
    start = time.perf_counter()
    table = study.tabulate()
    tabulated = time.perf_counter() - start
    start = time.perf_counter()
    figures_of(table, study.record.methods)
    drawn = time.perf_counter() - start
    rows = sum(1 for _ in study.rows())
    print(f"tabulated {len(study.done)} cells with {rows} responses in {tabulated:.2f} s")
    print(f"drew the figures of {len(models)} models in {drawn:.2f} s")
    timed = {"planned": planned, "tabulated": tabulated, "figures drawn": drawn}
    seconds = {name: round(value, 2) for name, value in timed.items()}
    write_results("study", {"cells": count, "responses": rows, "seconds": seconds})


def _study(folder: Path, models: list[str], model: Path, texts: dict[str, list[str]]) -> Study:
    """The study on a model under one or several names."""
    prompt = folder / "calm.txt"
    prompt.write_text("w1 w2 w3 w4 w5 .")
    names: dict[str, str] = {}
    for label, queries in texts.items():
        file = folder / f"{label}.txt"
        file.write_text("\n".join(queries))
        names[label] = str(file)
    held_out = {f"held_out_{label}": [name] for label, name in names.items()}
    sizes = {"samples": 2, "tokens": 4, "epochs": 1, "batch": 8, "third_turn": 0}
    return Study(
        "benchmark",
        output=folder / ("done" if len(models) == 1 else "many"),
        models={name: str(model) for name in models},
        basic_prompts=[prompt],
        methods={f"variant-{number}": {"method": "dro"} for number in range(VARIANTS)},
        seeds=list(range(SEEDS)),
        load={"dtype": "float32", "device": "cpu"},
        queries={label: [name] for label, name in names.items()},
        judges={"judge": "paper"},
        sampling={"samples": 1, "tokens": 4},
        training={
            "preset": "quick",
            "judge": "paper",
            **{label: [name] for label, name in names.items()},
            **held_out,
            **sizes,
        },
    )


def _copied(folder: Path, done: Path, record: StudyRecord) -> FinishedStudy:
    """The same finished cells under the names of many models."""
    known = read_record(done / "settings.json", StudyRecord, KIND)
    many = folder / "many"
    outcomes: list[Outcome] = []
    for cell in record.cells:
        like = next(
            one
            for one in known.cells
            if (one.kind, one.prompt, one.method, one.seed)
            == (cell.kind, cell.prompt, cell.method, cell.seed)
        )
        shutil.copytree(done / like.folder, many / cell.folder)
        outcomes.append(Outcome(cell.folder, cell.content, "done", 1.0))
    write_record(many / "settings.json", replace(record, name="many"), KIND)
    write_record(many / "results.json", StudyResults(tuple(outcomes)), RESULTS_FORMAT)
    return FinishedStudy.load(many)


if __name__ == "__main__":
    run_in_folder(main, __doc__)
