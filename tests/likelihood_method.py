"""A method of the user's own in one file: the paper's vanilla prompt tuning.

The tests load it as `likelihood_method.py:PromptTuning`; nothing else in demur knows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from demur.chat import Read
from demur.optimization.methods import (
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
)


class PromptTuningSettings(MethodSettings):
    """Method: vanilla prompt tuning."""

    response_tokens: int = Field(
        default=100, ge=1, description="tokens of each response that are trained on, at most"
    )
    weight_undesirable: float = Field(
        default=1.0, ge=0, description="weight of the tokens of undesirable responses"
    )


class PromptTuning(Method[PromptTuningSettings]):
    """Makes the model's own desirable responses likelier, and the undesirable ones less likely.

    A response is desirable when it refuses a harmful query or answers a harmless one.
    """

    name = "tuning"
    title = "Vanilla prompt tuning"
    paper = "https://arxiv.org/abs/2401.18018"
    terms: ClassVar[Mapping[str, str]] = {
        "desirable": "loss of desirable responses: -log p, mean over tokens",
        "undesirable": "loss of undesirable responses: -log (1 - p), mean over tokens",
    }
    Settings = PromptTuningSettings
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"paper": {"epochs": 5}}

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Sample responses: all under the basic prompt, and the wrong ones under none."""
        examples: list[TrainingExample] = []
        self._desirable: list[bool] = []
        unprompted = context.unprompted
        for condition in (context.basic, unprompted):
            measured = context.measure(
                context.anchors,
                condition,
                description="Sampling responses to train on",
                protocol=replace(context.protocol, whole=True),
            )
            for query, label, responses in zip(
                measured.queries.texts, measured.queries.labels, measured.responses, strict=True
            ):
                for one in responses:
                    desirable = one.refused == (label == "harmful")
                    if not one.response or (desirable and condition is unprompted):
                        continue
                    ids = context.model.target_ids(one.response)[: self.settings.response_tokens]
                    examples.append(TrainingExample(query, label, (ids,)))
                    self._desirable.append(desirable)
        self._tokens = [len(one.targets[0]) for one in examples]
        return examples

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """The mean over all desirable tokens of the batch, plus that over the undesirable ones."""
        counts = {
            wanted: sum(self._tokens[row] for row in batch if self._desirable[row] == wanted)
            for wanted in (True, False)
        }
        columns: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for row, (likely,) in zip(rows, read.by_target(), strict=True):
            wanted = self._desirable[row]
            each = -likely if wanted else -(1 - likely.exp()).clamp_min(1e-5).log()
            # The step takes the mean over the batch's examples, and the loss is one over tokens.
            columns[wanted].append(each.sum() * len(batch) / counts[wanted])
            columns[not wanted].append(likely.new_zeros(()))
        desirable, undesirable = torch.stack(columns[True]), torch.stack(columns[False])
        return Losses(
            desirable + self.settings.weight_undesirable * undesirable,
            {"desirable": desirable, "undesirable": undesirable},
        )
