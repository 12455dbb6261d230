"""A judge whose verdicts are kept, so that a run that goes on does not judge anything twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.judges import Judge
from demur.judges.asking import EndpointIdentity
from demur.judges.protocol import Decision, needs_query, settling
from demur.progress import Progress
from demur.records import fingerprint
from demur.records.kept import KeptRecords

FOLDER = "verdicts"


@dataclass(frozen=True)
class KeptVerdict:
    """A verdict as it is stored: one line of `verdicts.jsonl`.

    Attributes:
        key: fingerprint of the query and the response.
        refused: the verdict, or None where the judge had none.
    """

    key: str
    refused: bool | None


class RememberingJudge:
    """A judge that is asked about each response to a query once; see `demur.judges.Judge`.

    Args:
        judge: the judge that is asked.
        folder: folder of the run.
    """

    def __init__(self, judge: Judge, folder: Path) -> None:
        self._judge = judge
        self.name, self.fingerprint = judge.name, judge.fingerprint
        self.needs_query = needs_query(judge)
        self._kept = KeptRecords(folder / FOLDER, "verdicts", KeptVerdict)
        self._verdicts = {one.key: one.refused for one in self._kept.found}

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        """Judge each response to the query at the same index.

        Raises:
            DemurError: the judge fails, or the verdicts cannot be stored.
        """
        keys = [
            fingerprint("judged", judge=self.fingerprint, query=query, response=response)
            for query, response in zip(queries, responses, strict=True)
        ]
        new = {key: place for place, key in enumerate(keys) if key not in self._verdicts}
        if new:
            places = list(new.values())
            verdicts = self._judge.judge(
                [queries[place] for place in places],
                [responses[place] for place in places],
                progress,
            )
            kept = [KeptVerdict(*one) for one in zip(new, verdicts, strict=True)]
            self._kept.append(kept)
            self._verdicts.update((one.key, one.refused) for one in kept)
        return [self._verdicts[key] for key in keys]


def remembering(judge: Judge, folder: Path) -> Judge:
    """The judge with its verdicts kept, unless they cost nothing or are kept elsewhere.

    The verdicts of rules are at hand, and a judge behind an endpoint has its answers in the
    ledger, where they count.

    Args:
        judge: judge of refusal.
        folder: folder of the run.
    """
    if settling(judge) is not None or isinstance(judge, EndpointIdentity):
        return judge
    return RememberingJudge(judge, folder)
