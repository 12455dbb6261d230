"""Judges of attacked conversations: they read the query that was attacked, not the attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from demur.evaluation.answerers.protocol import Answer
from demur.evaluation.judging import Judges
from demur.progress import Progress
from demur.records import JudgedResponse, Queries, Query, identity_of


@dataclass(frozen=True)
class JudgesOfOriginals(Judges):
    """Judges that are given the original query of each response.

    Whether a response refuses, and whether it is harmful, depends on what is asked for, and neither
    a guard model nor a rule should have to decode it first.

    Attributes:
        originals: the original query by the identity of the attacked one.
    """

    originals: Mapping[str, Query] = field(default_factory=dict)

    @classmethod
    def of(cls, judges: Judges, attacked: Queries, originals: Queries) -> JudgesOfOriginals:
        """Judges of responses to attacked queries.

        Args:
            judges: the judges that are asked.
            attacked: the attacked queries.
            originals: the original query of each.
        """
        pairs = zip(attacked.texts, originals.texts, strict=True)
        known = {identity_of(one): original for one, original in pairs}
        return cls(judges.refusal, judges.harm, known)

    def judged(
        self, answers: Sequence[Answer], progress: Progress | None = None
    ) -> list[JudgedResponse]:
        """The answers with their verdicts; each has its attacked query.

        Raises:
            DemurError: as for `Judges.judged`.
        """
        asked = [replace(answer, query=self._original(answer.query)) for answer in answers]
        judged = super().judged(asked, progress)
        return [
            replace(response, query=answer.query)
            for response, answer in zip(judged, answers, strict=True)
        ]

    def _original(self, query: Query | None) -> Query | None:
        return None if query is None else self.originals.get(identity_of(query), query)
