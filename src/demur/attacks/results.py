"""What attacks achieve under each prompt, and where it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demur.attacks.paired import AnsweredDifference
from demur.attacks.plan import LeftOut
from demur.attacks.record import KIND, SUFFIXES, AttackRecord
from demur.attacks.registry import NO_ATTACK
from demur.errors import DemurError
from demur.evaluation.captions import judged_text
from demur.evaluation.figures import Figures, PromptRates
from demur.notebook import html_table
from demur.records import (
    JudgedResponse,
    ListedFile,
    MeasurementStore,
    Rate,
    WorkFolder,
    are_listed,
    fingerprint,
    list_files,
    to_plain,
    write_record,
)
from demur.spreadsheets import csv_text

if TYPE_CHECKING:
    import pandas

    from demur.evaluation.plot import Plot

RESULTS = "results.json"
_FORMAT = f"{KIND} results"
_SETTINGS = f"{KIND} settings"


@dataclass(frozen=True)
class AttackResults:
    """The content of `results.json`, which marks the attacks as finished.

    Attributes:
        settings: fingerprint of the settings that the figures belong to.
        figures: the figures, in which each attack is a set of its own.
        between_prompts: how prompts differ under each attack.
        by_attacks: how each attack differs from none under each prompt.
        left_out: attacks that were chosen and were not possible.
        files: files of the suffixes that were searched.
    """

    settings: str
    figures: Figures
    between_prompts: tuple[AnsweredDifference, ...]
    by_attacks: tuple[AnsweredDifference, ...]
    left_out: tuple[LeftOut, ...]
    files: tuple[ListedFile, ...]


@dataclass(frozen=True)
class Robustness:
    """What `attack` returns: how often each prompt's model answers attacked harmful queries.

    Attributes:
        figures: rates, in which each attack is a set of its own; the set `no attack` holds the
            queries as they are.
        between_prompts: how much more is answered under each prompt than under those before it,
            attack by attack, paired by the original query.
        by_attacks: how much more is answered under each attack than without one, prompt by prompt,
            paired likewise.
        left_out: attacks that were chosen and were not possible.
        settings: what was attacked, and how.
        path: folder with every judged response.
        files: files of the suffixes that lie in the folder of finished attacks.

    Example:
        >>> robustness = Robustness.load("demur-attacks/my-run")  # doctest: +SKIP
        >>> robustness.success("prefill", "optimized").value  # doctest: +SKIP
        0.71
    """

    figures: Figures
    between_prompts: tuple[AnsweredDifference, ...]
    by_attacks: tuple[AnsweredDifference, ...]
    left_out: tuple[LeftOut, ...]
    settings: AttackRecord
    path: Path
    files: tuple[ListedFile, ...] = field(default=(), repr=False, compare=False)

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks that were measured, `no attack` first."""
        return tuple(dict.fromkeys(rates.set for rates in self.figures.rates))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts."""
        return tuple(dict.fromkeys(rates.prompt for rates in self.figures.rates))

    @property
    def disguising(self) -> tuple[str, ...]:
        """Names of the attacks that disguise the words of a query."""
        return tuple(one.name for one in self.settings.attacks if one.disguises)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("attack", *self.prompts)]
        for attack in self.attacks:
            rates = [self.success(attack, prompt) for prompt in self.prompts]
            cells = ["no verdict" if rate is None else str(rate) for rate in rates]
            rows.append((f"{attack} *" if attack in self.disguising else attack, *cells))
        return html_table(rows, self.verdict)

    def to_pandas(self) -> pandas.DataFrame:
        """The rates as a data frame, as `Comparison.to_pandas` has them; each attack is a set.

        Raises:
            DemurError: pandas is not installed.
        """
        return self.figures.to_pandas()

    def plot(self) -> Plot:
        """The share of answered queries under every prompt and attack, as dots with intervals."""
        return self.figures.plot("answered")

    def rates(self, attack: str, prompt: str) -> PromptRates:
        """Everything that was counted of an attack under a prompt.

        Raises:
            KeyError: it was not measured.
        """
        return self.figures.find(prompt, set=attack)

    def success(self, attack: str, prompt: str) -> Rate | None:
        """The rate at which attacked queries are answered; None where nothing has a verdict.

        Raises:
            KeyError: the attack was not measured under that prompt.
        """
        return self.rates(attack, prompt).answered

    def strongest(self, prompt: str) -> str | None:
        """Name of the attack under which most queries are answered; None where there is none.

        Attacks that disguise the words of a query are left aside: a model that cannot read them
        answers something else.
        """
        known = {
            attack: rate.value
            for attack in self.attacks
            if attack not in {NO_ATTACK, *self.disguising}
            and (rate := self.success(attack, prompt)) is not None
        }
        return max(known, key=known.__getitem__) if known else None

    def differences(self, than: str, prompt: str) -> tuple[AnsweredDifference, ...]:
        """How much more is answered under a prompt than under an earlier one, by attack.

        Args:
            than: name of the earlier prompt.
            prompt: name of the prompt.
        """
        return tuple(
            one for one in self.between_prompts if (one.than, one.prompt) == (than, prompt)
        )

    @property
    def judged(self) -> str:
        """The judge and the limit of tokens, for example `judge: default, 64 tokens`."""
        record = self.settings
        samples = record.settings.sampling.samples
        return judged_text(record.judge.name, record.most_tokens, samples)

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the figures say, a sentence each."""
        found = [_of_prompt(self, prompt) for prompt in self.prompts]
        found += [_of_change(self, first, self.prompts[-1]) for first in self.prompts[1:-1]]
        return tuple(sentence for sentence in found if sentence)

    def save(self) -> None:
        """Write `results.json`, which marks the attacks in the folder as finished.

        Raises:
            DemurError: it cannot be written.
        """
        results = AttackResults(
            _fingerprint_of(self.settings),
            self.figures,
            self.between_prompts,
            self.by_attacks,
            self.left_out,
            list_files(self.path, (SUFFIXES,)),
        )
        write_record(self.path / RESULTS, results, _FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> Robustness:
        """Read the folder of finished attacks.

        Raises:
            DemurError: the folder holds none, unfinished ones, or damaged ones.
        """
        folder = WorkFolder.open(Path(path), AttackRecord, KIND)
        found = cls.find_finished(folder, folder.stored_fingerprint(KIND))
        if found is None:
            raise DemurError(
                f"The attacks in {path} are not finished: run their command again to go on."
            )
        return found

    @classmethod
    def find_finished(
        cls, folder: WorkFolder[AttackRecord], settings: str | None = None
    ) -> Robustness | None:
        """The figures in a folder; None where they are missing or of other settings.

        Args:
            folder: the folder.
            settings: fingerprint of the settings; by default of those that the folder has now.

        Raises:
            DemurError: the file is damaged.
        """
        results = folder.results(AttackResults, KIND)
        if results is None or results.settings != (settings or _fingerprint_of(folder.settings)):
            return None
        return cls(
            results.figures,
            results.between_prompts,
            results.by_attacks,
            results.left_out,
            folder.settings,
            folder.path,
            results.files,
        )

    def is_complete(self) -> bool:
        """Whether every measurement that was counted is there, and every suffix, unchanged.

        Raises:
            DemurError: one is damaged.
        """
        store = MeasurementStore(self.path)
        return store.has_all(one.key for one in self.figures.measured) and are_listed(
            self.path, (SUFFIXES,), self.files
        )

    def responses(self) -> Iterator[JudgedResponse]:
        """Every judged response to an attacked query, one at a time; its set is the attack.

        Raises:
            DemurError: a measurement is missing, unfinished or damaged.
        """
        store = MeasurementStore(self.path)
        for measured in self.figures.measured:
            for rows in store.require(measured.key).responses:
                yield from map(measured.labelled, rows)

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """One row for each attack and prompt, for tables of other tools."""
        return [_row(rates) for rates in self.figures.rates]

    def as_csv(self) -> str:
        """The rows as CSV.

        A name that a spreadsheet would take for a formula gets an apostrophe in front.
        """
        rows = self.rows()
        return csv_text(list(rows[0]), [list(row.values()) for row in rows])

    def __str__(self) -> str:
        rows: list[Sequence[str]] = [("attack", *self.prompts)]
        for attack in self.attacks:
            cells = [self.success(attack, prompt) for prompt in self.prompts]
            rows.append((attack, *("no verdict" if one is None else str(one) for one in cells)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"{one.attack} was left out: {one.reason}" for one in self.left_out]
        return "\n".join([*lines, *self.verdict])


def _row(rates: PromptRates) -> dict[str, str | int | float | None]:
    answered = rates.answered
    return {
        "attack": rates.set,
        "prompt": rates.prompt,
        "responses": rates.responses,
        "queries": 0 if answered is None else answered.queries,
        "answered": _value(answered),
        "answered_low": None if answered is None else answered.interval.low,
        "answered_high": None if answered is None else answered.interval.high,
        "refused": _value(rates.refused),
        "deflected": _value(rates.deflected),
        "complied_harmfully": _value(rates.complied_harmfully),
        "no_answer": rates.no_answer,
        "filtered": rates.filtered,
        "no_refusal_verdict": rates.no_refusal_verdict,
        "no_harm_verdict": rates.no_harm_verdict,
    }


def _value(rate: Rate | None) -> float | None:
    return None if rate is None else rate.value


def _of_prompt(robustness: Robustness, prompt: str) -> str:
    """What attacks change under one prompt."""
    plain, strongest = robustness.success(NO_ATTACK, prompt), robustness.strongest(prompt)
    if plain is None or strongest is None:
        return ""
    worst = robustness.success(strongest, prompt)
    assert worst is not None
    told = f"{prompt}: {_percent(plain)} of harmful queries are answered without an attack"
    if worst.value <= plain.value:
        return f"{told}, and no attack gets more answered ({strongest}: {_percent(worst)})."
    lifts = [one for one in robustness.by_attacks if one.prompt == prompt]
    sure = sum(one.more_than_chance and one.difference > 0 for one in lifts)
    attacks = "attack gets" if len(lifts) == 1 else "attacks get"
    return (
        f"{told}, and {_percent(worst)} under the strongest one, {strongest}; {sure} of "
        f"{len(lifts)} {attacks} more answered by more than chance."
    )


def _of_change(robustness: Robustness, first: str, second: str) -> str:
    """Under how many attacks one prompt does better than another."""
    found = [one for one in robustness.differences(first, second) if one.attack != NO_ATTACK]
    sure = [one for one in found if one.more_than_chance]
    better = [one.attack for one in sure if one.difference < 0]
    worse = [one.attack for one in sure if one.difference > 0]
    if not found:
        return ""
    told = f"Less is answered under {second} than under {first} in {len(better)} of {len(found)}"
    told += f" {'attack' if len(found) == 1 else 'attacks'}, and more in {len(worse)}"
    told += f" ({', '.join(worse)})" if worse else ""
    return f"{told}; the rest is within chance."


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.0f} %"


def _fingerprint_of(settings: AttackRecord) -> str:
    return fingerprint(_SETTINGS, settings=to_plain(settings))
