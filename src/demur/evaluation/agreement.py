"""How far further judges of refusal agree with the one whose verdicts the rates count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from demur.evaluation.agreements import Agreement
from demur.evaluation.changed_options import keep_changes
from demur.evaluation.judging import COSTLY_AT_ONCE, verdicts_on
from demur.judges.protocol import Judge
from demur.progress import Progress
from demur.records import (
    FILTERED,
    REFUSAL,
    JudgedResponse,
    MeasurementKey,
    MeasurementStore,
    StoredMeasurement,
    Verdict,
    fingerprint,
    to_plain,
)
from demur.records.kept import KeptRecords

FOLDER = "verdicts"


@dataclass(frozen=True)
class VerdictKey:
    """Identity of a judge's verdicts.

    Attributes:
        measurement: identity of the responses.
        judge: fingerprint of the judge.
    """

    measurement: MeasurementKey
    judge: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the two together."""
        return fingerprint("verdicts", **to_plain(self))


@dataclass(frozen=True)
class VerdictRow:
    """Whether one response refuses or deflects; None without a verdict."""

    refused: bool | None


def agreement(
    judge: Judge, measured: Sequence[StoredMeasurement], folder: Path, progress: Progress
) -> Agreement:
    """Judge all responses once more, and count where both judges agree.

    What a server itself marked as a refusal or a filter withheld, and what holds no answer, is not
    judged and not counted.

    What deflects counts as refusing, because most judges do not tell it from that.

    Args:
        judge: the further judge of refusal.
        measured: the responses, with the verdicts of the first judge.
        folder: folder of the evaluation. Verdicts are stored there as they come, so that none is
            asked for twice.
        progress: reports progress.

    Raises:
        DemurError: a stored file is damaged, or the judge fails.
    """
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    missing = 0
    for stored in measured:
        verdicts = _verdicts(judge, stored, folder, progress)
        for row, again in zip(_judgeable(stored), verdicts, strict=True):
            if row.answered is None or again is None:
                missing += 1
            else:
                counts[not row.answered, again] += 1
    return Agreement(
        judge=judge.name,
        fingerprint=judge.fingerprint,
        both=counts[True, True],
        first=counts[True, False],
        second=counts[False, True],
        neither=counts[False, False],
        no_verdict=missing,
    )


def _judgeable(stored: StoredMeasurement) -> Iterator[JudgedResponse]:
    """The responses that a judge reads."""
    for row in stored.rows():
        if row.is_answer and row.end not in (REFUSAL, FILTERED):
            yield row


def _refuses(verdict: Verdict | None) -> bool | None:
    return None if verdict is None else verdict is not Verdict.ANSWERS


def _verdicts(
    judge: Judge, stored: StoredMeasurement, folder: Path, progress: Progress
) -> list[bool | None]:
    """Whether each response refuses or deflects; what is not stored yet is asked for."""
    key = VerdictKey(stored.key, judge.fingerprint)
    kept = KeptRecords(
        folder / FOLDER, key.fingerprint[:16], VerdictRow, to_plain(key), "other responses"
    )
    rows = islice(_judgeable(stored), len(kept.found), None)
    while not kept.finished:
        batch = list(islice(rows, COSTLY_AT_ONCE))
        found = verdicts_on(judge, batch, range(len(batch)), progress)
        keep_changes(MeasurementStore(folder), (judge,))
        kept.append(
            [VerdictRow(_refuses(verdict)) for _, verdict in found],
            finished=len(batch) < COSTLY_AT_ONCE,
        )
    return [row.refused for row in kept.found]
