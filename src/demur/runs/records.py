"""The records of a run: queries, what a model said to them, and where it placed them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.queries import QuerySet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """Harmful and harmless queries together.

    Attributes:
        texts: the harmful ones first.
        harmful: for each whether it is harmful.
    """

    texts: tuple[str, ...]
    harmful: tuple[bool, ...]

    @classmethod
    def of(cls, harmful: QuerySet, harmless: QuerySet) -> Queries:
        """Put two sets together."""
        return cls(
            tuple(harmful.texts) + tuple(harmless.texts),
            (True,) * len(harmful) + (False,) * len(harmless),
        )

    def __len__(self) -> int:
        return len(self.texts)

    def labels(self) -> Tensor:
        """(N,) float32: 1 harmful, 0 harmless."""
        import torch

        return torch.tensor([float(harmful) for harmful in self.harmful])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of texts and labels, in hexadecimal."""
        listed = json.dumps([self.texts, self.harmful], ensure_ascii=False)
        return hashlib.sha256(listed.encode()).hexdigest()

    def rows(self, *, harmful: bool) -> list[int]:
        """The places of the queries with a label."""
        return [row for row, label in enumerate(self.harmful) if label == harmful]


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        text: model output; never trusted.
        refused: the judge's verdict.
        end: `stop`, `length` or `settled`, as the engine's samples say.
    """

    text: str
    refused: bool
    end: str


@dataclass(frozen=True)
class Measurement:
    """What a model makes of N queries under one condition.

    Attributes:
        condition: the name of the safety prompt, or `none`.
        queries: the queries.
        responses: for each query its responses.
        representations: (N, d) float32.
    """

    condition: str
    queries: Queries
    responses: tuple[tuple[Response, ...], ...]
    representations: Tensor

    def refusal_rates(self) -> list[float]:
        """For each query the share of responses that refuse, in [0, 1]."""
        return [
            sum(response.refused for response in responses) / len(responses)
            for responses in self.responses
        ]

    def refusal_probabilities(self) -> Tensor:
        """The same as a tensor: r, (N,) float32."""
        import torch

        return torch.tensor(self.refusal_rates())


def to_row(
    condition: str, query: str, harmful: bool, responses: Sequence[Response]
) -> dict[str, Any]:
    """A query and its responses as a line of JSONL."""
    return {
        "condition": condition,
        "query": query,
        "label": "harmful" if harmful else "harmless",
        "responses": [
            {"text": response.text, "refused": response.refused, "end": response.end}
            for response in responses
        ],
    }


def responses_of(row: Mapping[str, Any]) -> tuple[Response, ...]:
    """The responses in a line of JSONL."""
    return tuple(
        Response(response["text"], response["refused"], response["end"])
        for response in row["responses"]
    )
