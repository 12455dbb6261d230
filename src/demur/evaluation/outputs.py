"""Outputs for ordinary instructions under each prompt, and which of them a judge prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError
from demur.evaluation.alpaca import DATASET, AlpacaOutputs, WinRate
from demur.evaluation.jsonl import damaged, read_rows, write_rows
from demur.evaluation.statistics import Interval, Rate
from demur.files import distinct_names, safe_name
from demur.judges import Preference
from demur.judges.preference import PairwiseJudge
from demur.progress import Progress
from demur.prompts import SafetyPrompt
from demur.queries import load_instructions, load_query_set
from demur.runs import Queries, RunFolder

if TYPE_CHECKING:
    from demur.chat import ChatModel, Condition
    from demur.evaluation.measuring import Protocol
    from demur.judges import RefusalJudge

BUILT_IN = "built-in"
PAIRS_AT_ONCE = 64
"""How many pairs are judged before their preferences are saved."""

_PREFERENCES = ("first", "second", "tie", None)


@dataclass(frozen=True)
class Instructions:
    """Ordinary instructions under one name."""

    name: str
    texts: tuple[str, ...]

    @property
    def queries(self) -> Queries:
        """The instructions as harmless queries."""
        return Queries(self.texts, (False,) * len(self.texts))

    @property
    def dataset(self) -> str:
        """The field `dataset` of the outputs."""
        return DATASET if self.name == BUILT_IN else self.name


def choose_instructions(
    spec: str | None, prompts: Sequence[SafetyPrompt | None], *, compared: bool
) -> Instructions | None:
    """The instructions that a user named, None where there are none.

    Args:
        spec: `built-in`, or what `load_query_set` reads: a text file with one a line,
            `file.csv:column`, `file.jsonl:column` or `hf:org/name:column`.
        prompts: under which they are answered.
        compared: whether a judge compares the outputs under each prompt with those without one.

    Raises:
        DemurError: `spec` names nothing that can be read, or there is nothing to compare.
    """
    if compared and spec is None:
        raise DemurError(
            "a preference judge compares outputs for instructions: name some, for example "
            "--instructions built-in"
        )
    if compared and all(prompt is None for prompt in prompts):
        raise DemurError(
            "a preference judge compares the outputs under a prompt with those without one: give "
            "a prompt other than none"
        )
    if spec is None:
        return None
    if spec == BUILT_IN:
        return Instructions(BUILT_IN, load_instructions())
    read = load_query_set(spec, "harmless")
    return Instructions(read.name, read.texts)


@dataclass(frozen=True)
class PromptWins:
    """How often the outputs under one prompt are preferred to those under another.

    Attributes:
        prompt: a prompt.
        baseline: another one, `none` in an evaluation.
        won: the win rate of `prompt`.
    """

    prompt: str
    baseline: str
    won: WinRate

    def __str__(self) -> str:
        return f"{self.prompt} is preferred to {self.baseline}: {self.won}"

    def to_row(self) -> dict[str, Any]:
        """Plain data."""
        return {"prompt": self.prompt, "baseline": self.baseline, **asdict(self.won)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PromptWins:
        """Read what `to_row` gave; raises `KeyError` or `TypeError` for anything else."""
        values = dict(row)
        prompt, baseline, rate = (values.pop(key) for key in ("prompt", "baseline", "rate"))
        if rate is not None:
            rate = Rate(rate["count"], rate["queries"], Interval(**rate["interval"]))
        return cls(prompt, baseline, WinRate(rate=rate, **values))


@dataclass(frozen=True)
class OutputsWork:
    """What it takes to get the outputs of each prompt, and to have them compared.

    Attributes:
        model: answers the instructions.
        instructions: what it is asked.
        path: the evaluation's folder; outputs are kept in `outputs`, preferences in `preferences`.
        measured: where unfinished measurements of outputs lie, and no others.
        protocol: of the sampling; one sample each.
        judge: of refusal, whose verdicts are kept in unfinished measurements only.
        progress: hears of it.
    """

    model: ChatModel
    instructions: Instructions
    path: Path
    measured: RunFolder
    protocol: Protocol
    judge: RefusalJudge
    progress: Progress

    def run(
        self, conditions: Sequence[Condition], preference_judge: PairwiseJudge | None
    ) -> tuple[PromptWins, ...]:
        """Write the outputs under every condition; compare each with those without a prompt.

        Args:
            conditions: of distinct names; one without a safety prompt is added where there is a
                judge and none of them is.
            preference_judge: None where nothing is to be compared.
        """
        unprompted = next((each for each in conditions if each.safety_prompt is None), None)
        if unprompted is None and preference_judge is not None:
            unprompted = replace(conditions[0], safety_prompt=None)
            conditions = [unprompted, *conditions]
        name_of = distinct_names()
        names = {each.name: name_of(each.name[:120]) for each in conditions}
        outputs = {each.name: self.outputs(names[each.name], each) for each in conditions}
        if unprompted is None or preference_judge is None:
            return ()
        base = unprompted.name
        return tuple(
            PromptWins(
                prompt, base, self.wins(names[prompt], each, outputs[base], preference_judge)
            )
            for prompt, each in outputs.items()
            if prompt != base
        )

    def outputs(self, name: str, condition: Condition) -> AlpacaOutputs:
        """Read them where they have been sampled already, else sample and write them.

        Args:
            name: of the file in `outputs`.
            condition: what stands before each instruction.
        """
        from demur.evaluation.measuring import measure

        file = self.path / "outputs" / f"{name}.json"
        if file.exists():
            found = AlpacaOutputs.load(file)
            if found.instructions != self.instructions.texts:
                raise damaged(file)
            return found
        measurement = measure(
            self.model,
            self.instructions.queries,
            condition,
            self.protocol,
            self.judge,
            self.progress,
            folder=self.measured,
            name=name,
            description="Answering instructions",
        )
        outputs = AlpacaOutputs(
            self.instructions.texts,
            tuple(responses[0].text for responses in measurement.responses),
            generator=safe_name(f"{Path(self.model.name).name}-{condition.name}") or "model",
            dataset=self.instructions.dataset,
        )
        outputs.save(file)
        return AlpacaOutputs.load(file)

    def wins(
        self, name: str, outputs: AlpacaOutputs, baseline: AlpacaOutputs, judge: PairwiseJudge
    ) -> WinRate:
        """Judge pair by pair; what was judged before an interruption is not judged again.

        Args:
            name: of the file in `preferences`.
            outputs: of one prompt.
            baseline: of the prompt that it is compared with, for the same instructions.
            judge: prefers one of each pair.
        """
        file = self.path / "preferences" / f"{name}.jsonl"
        done = _read_preferences(file, outputs.instructions) if file.exists() else []
        while len(done) < len(outputs.instructions):
            pairs = slice(len(done), len(done) + PAIRS_AT_ONCE)
            asked = outputs.instructions[pairs]
            preferred = judge.prefer(
                asked, outputs.outputs[pairs], baseline.outputs[pairs], self.progress
            )
            if len(preferred) != len(asked):
                raise DemurError(
                    f"the preference judge {judge.name!r} gave {len(preferred)} verdicts on "
                    f"{len(asked)} pairs: use one that gives a verdict each"
                )
            done += preferred
            _write_preferences(file, outputs.instructions, done)
        return WinRate.of(done)


def _write_preferences(
    file: Path, instructions: Sequence[str], preferences: Sequence[Preference]
) -> None:
    write_rows(
        file,
        (
            {"instruction": instruction, "preferred": preferred}
            for instruction, preferred in zip(instructions, preferences, strict=False)
        ),
    )


def _read_preferences(file: Path, instructions: Sequence[str]) -> list[Preference]:
    rows = read_rows(file)
    if [row.get("instruction") for row in rows] != list(instructions[: len(rows)]):
        raise damaged(file)
    if not all("preferred" in row and row["preferred"] in _PREFERENCES for row in rows):
        raise damaged(file)
    return [row["preferred"] for row in rows]
