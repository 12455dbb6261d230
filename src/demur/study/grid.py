"""The cells of a study: what each is, where it lies, and what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from demur.errors import DemurError
from demur.evaluation.chosen import Chosen
from demur.files import safe_name
from demur.optimization.plan import Plan
from demur.records import SETTINGS, damaged, fingerprint
from demur.settings import values_of
from demur.study.record import FIGURES, UNTRAINED, Cell, StudyRecord
from demur.study.settings import StudyModel, StudySettings

Pair: TypeAlias = tuple[str, str]
"""Names of a basic prompt and a method."""


def run_of(cell: Cell) -> str:
    """The folder of the run whose prompt an evaluation measures."""
    return cell.folder.replace("evaluations/", "runs/", 1)


def require_own_folders(path: Path, record: StudyRecord) -> None:
    """Check that all cells lie in the folder of their study, which may be a stranger's.

    Args:
        path: folder of the study.
        record: what the study is.

    Raises:
        DemurError: a cell has a folder of another name, or a link leads out of the study's.
    """
    inside = path.resolve()
    for cell in record.cells:
        parts = cell.folder.split("/")
        if len(parts) != 3 or any(safe_name(part) != part for part in parts):
            raise damaged(path / SETTINGS)
    for name in (FIGURES, *(cell.folder for cell in record.cells)):
        place = path / name
        if not place.resolve().is_relative_to(inside):
            raise DemurError(
                f"{place} leads out of the folder of the study, by a link: delete the link."
            )


def needs_of(cells: Iterable[Cell]) -> Mapping[str, frozenset[str]]:
    """What must have ended before a cell may begin, where several cells are done at once.

    The measurements under no prompt and under a basic prompt belong to the first cell that needs
    them; the others copy them when it has ended. An evaluation needs its run as well.

    Args:
        cells: the cells of a study in their order.

    Returns:
        By the folder of each cell the folders of others.
    """
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, frozenset[str]] = {}
    for cell in cells:
        same = (cell.kind, cell.model, cell.seed)
        shared = {first.setdefault(same, cell.folder)}
        if cell.kind == "run":
            shared.add(first.setdefault((*same, cell.prompt), cell.folder))
        elif cell.prompt is not None:
            shared.add(run_of(cell))
        found[cell.folder] = frozenset(shared - {cell.folder})
    return found


def grid_of(settings: StudySettings, runs: Mapping[Pair, Plan], chosen: Chosen) -> Iterator[Cell]:
    """The cells in the order of the work: a model's cells together, and shared ones first.

    Args:
        settings: everything that the study's file says.
        runs: for names of a basic prompt and a method the plan of a run with the first seed.
        chosen: what the evaluation of all prompts that are measured as they are measures.
    """
    contents = {pair: _content_of_run(plan) for pair, plan in runs.items()}
    measured = _content_of_evaluation(chosen)
    for model in settings.models:
        own, folder = _content_of_model(model), safe_name(model.name)
        for seed in settings.common.seeds:
            content = fingerprint("cell", model=own, seed=seed, evaluation=measured)
            place = f"evaluations/{folder}/{UNTRAINED}-seed-{seed}"
            yield Cell("evaluation", model.name, None, UNTRAINED, seed, place, content)
            for prompt in settings.basic_prompts:
                for method in settings.methods:
                    trained = contents[prompt.name, method.name]
                    parts = (prompt.name, method.name, seed)
                    name = f"{_folder_of(prompt.name, method.name)}-seed-{seed}"
                    content = fingerprint("cell", model=own, seed=seed, run=trained)
                    yield Cell("run", model.name, *parts, f"runs/{folder}/{name}", content)
                    content = fingerprint("cell", run=content, evaluation=_shared(chosen))
                    place = f"evaluations/{folder}/{name}"
                    yield Cell("evaluation", model.name, *parts, place, content)


def require_distinct_folders(settings: StudySettings) -> None:
    """Check that no two pairs of a basic prompt and a method have one folder.

    The names of prompts differ, and so do those of methods, but `long` with `strict-dro` and
    `long-strict` with `dro` would both lie in `long-strict-dro`.

    Raises:
        DemurError: two of them have.
    """
    taken: dict[str, Pair] = {}
    for prompt in settings.basic_prompts:
        for method in settings.methods:
            pair = (prompt.name, method.name)
            other = taken.setdefault(_folder_of(*pair).lower(), pair)
            if other != pair:
                (first, second), (third, fourth) = other, pair
                raise DemurError(
                    f"The folders of {first!r:.60} with {second!r:.60} and of {third!r:.60} with "
                    f"{fourth!r:.60} have one name: call a prompt or a method something else."
                )


def _folder_of(prompt: str, method: str) -> str:
    return f"{safe_name(prompt)}-{safe_name(method)}"


def _content_of_model(model: StudyModel) -> str:
    values = values_of(model.settings)
    # Whichever server it is has the same weights, which is checked.
    if values.pop("sample_at") is not None:
        values["sampler"] = "vllm"
    return fingerprint("model of a study", settings=values)


def _content_of_run(plan: Plan) -> str:
    chosen = plan.settings.model_dump(mode="json", exclude={"seed", "basic_prompt", "pick"})
    sets = (plan.anchors, plan.validation, plan.held_out)
    return fingerprint(
        "run of a study",
        basic=plan.basic.fingerprint,
        queries=[None if one is None else one.fingerprint for one in sets],
        settings=chosen,
        pick=plan.settings.pick,
    )


def _shared(chosen: Chosen) -> str:
    """What the evaluations of all prompts have in common."""
    settings, asked = chosen.settings, chosen.instructions
    return fingerprint(
        "evaluations of a study",
        sets=[one.queries.fingerprint for one in chosen.sets],
        instructions=None if asked is None else asked.queries.fingerprint,
        judges=settings.judges.model_dump(mode="json"),
        samples=settings.sampling.samples,
        tokens=settings.most_tokens,
        system=None if not chosen.conditions else chosen.conditions[0].system_prompt,
    )


def _content_of_evaluation(chosen: Chosen) -> str:
    conditions = [one.fingerprint for one in chosen.conditions]
    return fingerprint("evaluation", conditions=conditions, shared=_shared(chosen))
