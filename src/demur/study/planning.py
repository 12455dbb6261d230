"""What a study will do: its grid, checked before anything slow, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from demur.bars import default_progress
from demur.errors import DemurError
from demur.evaluation.chosen import Chosen, choose
from demur.evaluation.settings import JudgeSettings
from demur.files import safe_name
from demur.optimization.plan import Plan, plan_of
from demur.optimization.validation import Pick
from demur.progress import Progress
from demur.records import NO_PROMPT, Queries
from demur.records.folder import RESULTS
from demur.study.changed import require_same_cells
from demur.study.grid import Pair, grid_of, require_distinct_folders, run_of
from demur.study.outcomes import read_outcomes
from demur.study.record import (
    Cell,
    MethodOf,
    Outcome,
    PromptOf,
    StudyRecord,
)
from demur.study.settings import StudyMethod, StudyPrompt, StudySettings

if TYPE_CHECKING:
    from demur.study.travel import CellStorage

STUDIES = Path("demur-studies")

_LOADED = ("guard:", "classifier:")
"""What judges begin with that are models, which no plan loads."""

_Identity: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class Cost:
    """What a cell or several cells cost.

    Attributes:
        responses: number of responses to sample for measurements, without those that cells share
            and that another cell samples. Methods sample more of their own while they prepare.
        tokens: number of tokens of these responses, at most.
        trained: number of queries that the training reads, over all epochs, about.
    """

    responses: int = 0
    tokens: int = 0
    trained: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.responses + other.responses,
            self.tokens + other.tokens,
            self.trained + other.trained,
        )


@dataclass(frozen=True)
class CellGroup:
    """Cells of one model and kind, which differ in prompt and seed.

    Attributes:
        model: name of the model.
        kind: `run` or `evaluation`.
        method: name of the method, or `untrained`.
        cells: number of cells.
        done: number of cells that are done.
        cost: what the cells that are left cost.
        seconds: seconds that are left, from finished cells of the same kind; None where there is
            none yet.
    """

    model: str
    kind: str
    method: str
    cells: int
    done: int
    cost: Cost
    seconds: float | None


@dataclass(frozen=True)
class _Measured:
    """One measurement that a cell needs."""

    identity: _Identity
    cost: Cost


@dataclass(frozen=True)
class StudyPlan:
    """A study that is read and checked; no model is loaded.

    Attributes:
        settings: everything that the study's file says.
        record: the cells, and what they are about.
        path: folder of the study.
        runs: for names of a basic prompt and a method the plan of a run with the first seed.
        chosen: what the evaluation of all prompts that are measured as they are measures, with the
            first seed; judges that are models are not loaded.
        outcomes: what came of cells so far, by folder.
        storage: where finished cells are stored as well, or None.
        stored: folders of the cells that were finished there when the plan was made.
        home: folder of the study as it is recorded, where that is on another machine.
    """

    settings: StudySettings
    record: StudyRecord
    path: Path
    runs: Mapping[Pair, Plan]
    chosen: Chosen
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    storage: CellStorage | None = None
    stored: frozenset[str] = frozenset()
    home: Path | None = None

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has results; whether they are whole is checked when the work begins."""
        return cell.folder in self.stored or (self.path / cell.folder / RESULTS).exists()

    @property
    def left(self) -> tuple[Cell, ...]:
        """The cells that are not done."""
        return tuple(cell for cell in self.record.cells if not self.is_done(cell))

    @cached_property
    def costs(self) -> Mapping[str, Cost]:
        """What each cell costs that is not done, by its folder."""
        seen: set[_Identity] = set()
        found: dict[str, Cost] = {}
        for cell in self.record.cells:
            total = self._training(cell)
            for one in self._measurements(cell):
                if one.identity not in seen:
                    seen.add(one.identity)
                    total += one.cost
            found[cell.folder] = Cost() if self.is_done(cell) else total
        return found

    @property
    def groups(self) -> list[CellGroup]:
        """The cells by model, kind and method, with what is left."""
        cells: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.record.cells:
            cells.setdefault((cell.model, cell.kind, cell.method), []).append(cell)
        return [self._group(several) for several in cells.values()]

    @property
    def cost(self) -> Cost:
        """What all cells that are left cost."""
        return sum(self.costs.values(), Cost())

    def told(self, cell: Cell) -> str:
        """Which cell of how many it is, for people."""
        cells = self.record.cells
        return f"Cell {cells.index(cell) + 1} of {len(cells)}, {cell.title}"

    def pick_of(self, cell: Cell) -> Pick:
        """How a run chooses its epoch."""
        assert cell.prompt is not None
        return self.runs[cell.prompt, cell.method].settings.pick

    def prompts_of(self, cell: Cell, *, recorded: bool = False) -> tuple[str, ...]:
        """What the prompts of an evaluation are loaded by.

        Args:
            cell: the evaluation.
            recorded: whether to name the run where it is recorded to be, and not where it is.
        """
        if cell.prompt is None:
            return (NO_PROMPT, *(one.spec for one in self.settings.measured_prompts))
        basic = next(one for one in self.settings.basic_prompts if one.name == cell.prompt)
        path = self.home if recorded and self.home is not None else self.path
        return (NO_PROMPT, basic.spec, str(path / run_of(cell)))

    def __str__(self) -> str:
        done = len(self.record.cells) - len(self.left)
        lines = [f"{self.record.name}: {len(self.record.cells)} cells, {done} done"]
        for one in self.groups:
            lines.append(
                f"{one.model}, {one.kind}, {one.method}: {one.cells} cells, {one.done} done, "
                f"{one.cost.responses} responses, {one.cost.tokens} tokens at most, "
                f"{one.cost.trained} training queries"
            )
        return "\n".join(lines)

    def _group(self, cells: Sequence[Cell]) -> CellGroup:
        first = cells[0]
        left = [cell for cell in cells if not self.is_done(cell)]
        took = [
            one.seconds
            for cell in cells
            if (one := self.outcomes.get(cell.folder)) is not None and one.status == "done"
        ]
        known = sum(took) / len(took) * len(left) if took else None
        return CellGroup(
            first.model,
            first.kind,
            first.method,
            len(cells),
            len(cells) - len(left),
            sum((self.costs[cell.folder] for cell in left), Cost()),
            0.0 if not left else known,
        )

    def _training(self, cell: Cell) -> Cost:
        if cell.kind != "run" or cell.prompt is None:
            return Cost()
        plan = self.runs[cell.prompt, cell.method]
        training, anchors = plan.settings.training, len(plan.anchors)
        return Cost(trained=training.epochs * min(training.epoch_size or anchors, anchors))

    def _measurements(self, cell: Cell) -> Iterator[_Measured]:
        """The measurements of a cell; equal ones of several cells are done once."""
        if cell.kind == "run":
            assert cell.prompt is not None
            plan = self.runs[cell.prompt, cell.method]
            protocol = plan.settings.protocol
            sets = [plan.held_out, *([] if plan.third_turn is None else [plan.third_turn])]
            conditions = [NO_PROMPT, plan.basic.fingerprint, cell.folder]
        else:
            protocol = self.chosen.protocol
            sets = [one.queries for one in self.chosen.sets]
            conditions = [one.fingerprint for one in self.chosen.conditions]
            if cell.prompt is not None:
                basic = self.runs[cell.prompt, cell.method].basic
                conditions = [conditions[0], basic.fingerprint, cell.folder]
        samples = protocol.sampling.samples
        limits = (protocol.tokens_harmful, protocol.tokens_harmless)
        for queries in sets:
            cost = _sampled(queries, samples, *limits)
            for condition in conditions:
                key = (cell.kind, cell.model, cell.seed, condition, queries.fingerprint, samples)
                yield _Measured((*key, *limits), cost)


def plan_study(
    settings: StudySettings, output: str | Path | None = None, progress: Progress | None = None
) -> StudyPlan:
    """Read and check everything that a study names, without loading a model.

    Args:
        settings: everything that the study's file says.
        output: folder of the study; by default one below `demur-studies` with the study's name.
        progress: reports downloads.

    Raises:
        DemurError: something cannot be read or does not fit together, or the folder holds cells
            with other settings.
    """
    path = folder_of(settings, output)
    require_distinct_folders(settings)
    runs = {
        (prompt.name, method.name): run_plan(prompt, method, settings)
        for prompt in settings.basic_prompts
        for method in settings.methods
    }
    first = settings.common.seeds[0]
    everything = [NO_PROMPT, *(one.spec for one in settings.measured_prompts)]
    named = settings.evaluation(first, everything)
    judges = named.judges
    light = named.model_copy(update={"judges": _light(judges)})
    chosen = choose(light, everything, progress or default_progress())
    chosen = replace(chosen, settings=named)
    trained = [one.name for one in chosen.conditions if _is_trained(one)]
    served = next((one for one in settings.models if one.is_served), None)
    if served is not None and trained:
        raise DemurError(
            f"The prompt {trained[0]!r:.80} is trained, and the model {served.name!r:.80} is "
            "behind a server, which takes text only: leave one of them out."
        )
    record = StudyRecord(
        name=settings.name,
        models=tuple(one.name for one in settings.models),
        prompts=(
            PromptOf(NO_PROMPT, False),
            *(PromptOf(one.name, True) for one in settings.basic_prompts),
            *(PromptOf(one.name, False) for one in settings.prompts),
        ),
        methods=tuple(MethodOf(one.name, one.base) for one in settings.methods),
        seeds=settings.common.seeds,
        evaluation=named,
        cells=tuple(grid_of(settings, runs, chosen)),
    )
    require_same_cells(path, record, runs, chosen)
    return StudyPlan(settings, record, path, runs, chosen, read_outcomes(path))


def folder_of(settings: StudySettings, output: str | Path | None = None) -> Path:
    """The folder of a study.

    Args:
        settings: everything that the study's file says.
        output: the folder that was chosen, or None for one with the study's name.
    """
    return STUDIES / safe_name(settings.name) if output is None else Path(output)


def run_plan(
    prompt: StudyPrompt, method: StudyMethod, settings: StudySettings, seed: int | None = None
) -> Plan:
    """The plan of a run; a judge that is a model is not loaded, and the default one stands in.

    Args:
        prompt: basic prompt.
        method: method with its settings.
        settings: settings of the study.
        seed: seed; by default the first one.
    """
    chosen = method.settings.model_copy(
        update={
            "basic_prompt": prompt.spec,
            "system_prompt": settings.common.system_prompt,
            "seed": settings.common.seeds[0] if seed is None else seed,
        }
    )
    light = chosen.model_copy(update={"judge": _light_judge(chosen.judge)})
    return replace(plan_of(light), settings=chosen)


def _light(judges: JudgeSettings) -> JudgeSettings:
    """The judges without those that would be loaded."""
    harm = judges.harm_judge
    return judges.model_copy(
        update={
            "judge": _light_judge(judges.judge),
            "other_judge": tuple(x for x in judges.other_judge if not x.startswith(_LOADED)),
            "harm_judge": None if harm is None or harm.startswith(_LOADED) else harm,
        }
    )


def _light_judge(spec: str) -> str:
    return "default" if spec.startswith(_LOADED) else spec


def _is_trained(condition: object) -> bool:
    prompt = getattr(condition, "safety_prompt", None)
    return prompt is not None and bool(prompt.is_trained)


def _sampled(queries: Queries, samples: int, harmful: int, harmless: int) -> Cost:
    count = sum(queries.harmful)
    rest = len(queries) - count
    return Cost(len(queries) * samples, (count * harmful + rest * harmless) * samples)
