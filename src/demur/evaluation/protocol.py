"""`Protocol`: how responses are sampled, cut, counted and judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from demur.judges.protocol import Judge, settling
from demur.records import fingerprint

if TYPE_CHECKING:
    from demur.chat.engine import Sample, SamplingSettings

_NONE = "no judge"


@dataclass(frozen=True)
class Protocol:
    """How responses are sampled and counted.

    Attributes:
        sampling: how each response is sampled; `most_tokens` is the larger of the two limits.
        tokens_harmful: largest number of new tokens in a response to a harmful query.
        tokens_harmless: largest number of new tokens in a response to a harmless query.
        kept: number of responses to a query that count, the longest in words first.
        cut_unfinished: whether the last paragraph of a response that reached its limit is cut.
        whole: whether whole responses are needed, and not only their verdicts of refusal.
        opening: what every response is made to begin with, as whoever controls the decoding can
            make it; None for nothing.
    """

    sampling: SamplingSettings
    tokens_harmful: int
    tokens_harmless: int
    kept: int
    cut_unfinished: bool
    whole: bool = False
    opening: str | None = None

    @property
    def reads_whole_responses(self) -> bool:
        """Whether more than the verdict counts, so that no response may stop early."""
        return self.whole or self.cut_unfinished or self.kept < self.sampling.samples

    def fingerprint(self, judge: Judge, harm_judge: Judge | None = None) -> str:
        """Identity of the protocol with its judges (64 hex digits).

        Args:
            judge: judge of refusal.
            harm_judge: judge of harm, or None.
        """
        early = not self.reads_whole_responses and settling(judge) is not None
        values = asdict(self)
        if self.opening is None:  # as in measurements that were made before there were openings
            del values["opening"]
        return fingerprint(
            "protocol",
            **values,
            judge=judge.fingerprint,
            harm_judge=_NONE if harm_judge is None else harm_judge.fingerprint,
            early=early,
        )

    def limits(self, harmful: Sequence[bool]) -> list[int]:
        """The largest number of new tokens for each query."""
        return [self.tokens_harmful if each else self.tokens_harmless for each in harmful]

    def counted(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of one query that count, cut, in the order of sampling."""
        cut = [self._cut(sample) for sample in samples]
        longest = sorted(range(len(cut)), key=lambda index: -len(cut[index].text.split()))
        return [cut[index] for index in sorted(longest[: self.kept])]

    def _cut(self, sample: Sample) -> Sample:
        if not self.cut_unfinished or sample.end != "length":
            return sample
        return replace(sample, text=cut_unfinished_paragraph(sample.text))


def cut_unfinished_paragraph(text: str) -> str:
    """The text without its last paragraph, where there is more than one."""
    paragraphs = re.split(r"\n+", text.rstrip("\n"))
    return text if len(paragraphs) < 2 else text[: text.rindex(paragraphs[-1])].rstrip("\n")
