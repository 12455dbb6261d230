"""What the batches of an epoch came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demur.chat import Read
from demur.errors import DemurError
from demur.optimization.methods import Context, Losses, Method, TrainingExample
from demur.optimization.recorded import EpochRecord
from demur.records import Query


class Seen:
    """The losses and the representations of an epoch's examples, as they were read.

    Attributes:
        skipped: steps that were left out because their gradients were not finite.
    """

    def __init__(self, method: Method[Any]) -> None:
        self.skipped = 0
        self._method = method
        self._values: list[Mapping[str, float]] = []
        self._loss = 0.0
        self._read: dict[int, Tensor] = {}

    @property
    def loss(self) -> float:
        """The mean loss so far, without a pass over all that was seen."""
        return self._loss / len(self._values)

    def add(self, rows: Sequence[int], losses: Losses, read: Read) -> None:
        """Keep what a part of a batch came to."""
        columns = {"loss": losses.total, **losses.terms}
        if set(losses.terms) != set(self._method.terms):
            raise DemurError(
                f"The method {self._method.name!r} returned the terms "
                f"{', '.join(losses.terms) or 'none'} but describes "
                f"{', '.join(self._method.terms)}: return those that it describes."
            )
        wrong = [name for name, column in columns.items() if column.shape != (len(rows),)]
        if wrong:
            raise DemurError(
                f"The method {self._method.name!r} returned {wrong[0]!r} in the shape "
                f"{tuple(columns[wrong[0]].shape)} for {len(rows)} examples: return one number for "
                "each."
            )
        values = {name: column.tolist() for name, column in columns.items()}
        for place, row in enumerate(rows):
            self._loss += values["loss"][place]
            self._values.append({name: column[place] for name, column in values.items()})
            self._read[row] = read.representations[place].detach().float().cpu()

    def record(self) -> EpochRecord:
        """The mean loss and the mean of each term so far."""
        count = len(self._values)
        # In the order in which a stored record is read, so that both are written alike.
        names = sorted(self._values[0])
        means = {name: sum(one[name] for one in self._values) / count for name in names}
        return EpochRecord(means.pop("loss"), means, skipped=self.skipped)

    def representations(
        self, examples: Sequence[TrainingExample], context: Context
    ) -> Tensor | None:
        """Where the anchor queries lay, (N, d); None where not all of them were read.

        Each was read once or more, under the prompt of that moment; the first example of each
        counts. This costs nothing, and shows how the groups part.
        """
        first: dict[Query, int] = {}
        for row, example in enumerate(examples):
            first.setdefault(example.query, row)
        rows = [first.get(text) for text in context.anchors.texts]
        found = [None if row is None else self._read.get(row) for row in rows]
        if any(one is None for one in found):
            return None
        return torch.stack([one for one in found if one is not None])
