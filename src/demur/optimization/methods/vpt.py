"""Vanilla prompt tuning (vPT), the strong baseline of the DRO paper.

From "On Prompt-Driven Safeguarding for Large Language Models" (Zheng et al., ICML 2024, arXiv
2401.18018), section 5 and its appendix. The rows of the prompt are trained on the model's own
responses: those that are right become likelier, and those that are wrong less likely.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from demur.errors import DemurError
from demur.optimization.methods.protocol import (
    Context,
    Losses,
    Method,
    MethodSettings,
    TrainingExample,
)
from demur.optimization.preset_values import ON_ANCHORS

if TYPE_CHECKING:
    import torch

    from demur.chat import Read

_LEAST_UNLIKELY = 1e-5
"""Smallest 1 - p whose logarithm is taken."""

_SAMPLING = "Sampling responses"

_WEIGHED_FIVEFOLD = re.compile(r"llama-?2.*chat|code-?llama.*instruct", re.IGNORECASE)
"""Models whose undesirable tokens the paper weighs five times."""


class VPTSettings(MethodSettings):
    """Method: vPT."""

    response_tokens: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="tokens of each response that are trained on, at most",
    )
    weight_undesirable: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description="weight of the tokens of undesirable responses; by default the paper's: 5 for "
        "Llama-2-chat and CodeLlama-Instruct, else 1",
    )


class VanillaPromptTuning(Method[VPTSettings]):
    """Makes the model's own desirable responses likelier, and the undesirable ones less likely.

    A response is desirable when it refuses a harmful query or answers a harmless one.
    """

    name = "vpt"
    title = "Vanilla prompt tuning"
    paper = "https://arxiv.org/abs/2401.18018"
    terms: ClassVar[Mapping[str, str]] = {
        "desirable": "loss of desirable responses: -log p, mean over their tokens",
        "undesirable": "loss of undesirable responses: -log (1 - p), mean over their tokens",
    }
    Settings = VPTSettings
    stages = (_SAMPLING,)
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "standard": {**ON_ANCHORS, "most_held_out": None},
        "quick": {"epochs": 2},
        "thorough": {"epochs": 5, "batch": 8, "learning_rate": 1e-3},
        "paper": {"epochs": 5},
    }

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Sample responses: all of them under the basic prompt, the wrong ones under no prompt.

        Raises:
            DemurError: all responses are empty.
        """
        self._weight = self._weight_for(context.model.name)
        examples: list[TrainingExample] = []
        self._desirable: list[bool] = []
        for condition in (context.basic, context.unprompted):
            measured = context.measure(
                context.anchors,
                condition,
                description=_SAMPLING,
                protocol=replace(context.protocol, whole=True),
            )
            for query, label, responses in zip(
                measured.queries.texts, measured.queries.labels, measured.responses, strict=True
            ):
                for one in responses:
                    desirable = one.answered == (label == "harmless")
                    if one.answered is None or not one.response.strip():
                        continue
                    if desirable and condition is not context.basic:
                        continue
                    ids = context.model.target_ids(one.response)[: self.settings.response_tokens]
                    examples.append(TrainingExample(query, label, (ids,)))
                    self._desirable.append(desirable)
        if not examples:
            raise DemurError(
                f"{context.model.name} gave no response to train on: give it other queries."
            )
        self._tokens = [len(one.targets[0]) for one in examples]
        return examples

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """The mean over all desirable tokens of the batch, plus that over the undesirable ones."""
        import torch

        counts = {
            wanted: sum(self._tokens[row] for row in batch if self._desirable[row] == wanted)
            for wanted in (True, False)
        }
        columns: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for row, (likely,) in zip(rows, read.by_target(), strict=True):
            wanted = self._desirable[row]
            each = -likely if wanted else -(-torch.expm1(likely)).clamp_min(_LEAST_UNLIKELY).log()
            # The step takes the mean over the batch's examples, and this loss is one over tokens.
            columns[wanted].append(each.sum() * len(batch) / counts[wanted])
            columns[not wanted].append(likely.new_zeros(()))
        desirable, undesirable = torch.stack(columns[True]), torch.stack(columns[False])
        return Losses(
            desirable + self._weight * undesirable,
            {"desirable": desirable, "undesirable": undesirable},
        )

    def _weight_for(self, model: str) -> float:
        if self.settings.weight_undesirable is not None:
            return self.settings.weight_undesirable
        return 5.0 if _WEIGHED_FIVEFOLD.search(model) else 1.0
