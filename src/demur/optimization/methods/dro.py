"""Directed Representation Optimization (DRO).

From "On Prompt-Driven Safeguarding for Large Language Models" (Zheng et al., ICML 2024, arXiv
2401.18018), sections 3 and 4.

The refusal direction and the harmfulness direction are estimated from the anchor queries. Training
then moves the representations of harmful queries along the refusal direction and those of harmless
queries against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
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
from demur.records import left_out_remarks, with_verdicts

if TYPE_CHECKING:
    from demur.chat import ChatModel, Read
    from demur.geometry import Directions
    from demur.optimization.validation import Validation
    from demur.prompts import Condition
    from demur.records import Measurement, Queries

LEAST_OF_EACH = 10
"""How many readings must lean to refusing, and how many to complying, to fit a direction to."""

_READING = "Reading queries"


class DROSettings(MethodSettings):
    """Method: DRO."""

    anchor_prompts: tuple[str, ...] = Field(
        default=(),
        description="basic prompts under which the anchors are read, besides no prompt and the "
        "chosen one",
    )
    components: int = Field(default=4, ge=1, description="principal components, m")
    folds: int = Field(default=10, ge=2, description="folds that the regressions are averaged over")
    weight_refusal: float = Field(default=1.0, ge=0, description="weight of the refusal loss, L_r")
    weight_harmfulness: float = Field(
        default=0.01, ge=0, description="weight of the harmfulness loss, L_h"
    )
    weight_complement: float = Field(
        default=0.005, ge=0, description="weight of the loss outside the components, L_U"
    )
    weight_harmless: float = Field(
        default=1.0, ge=0, description="weight of a harmless query; a harmful one weighs 1"
    )
    reanchor_every: int = Field(
        default=1,
        ge=0,
        description="epochs after which the anchors are read again, under the prompt so far, and "
        "the directions are estimated anew; 0 for never",
    )


class DirectedRepresentation(Method[DROSettings]):
    """DRO: anchoring, the loss of three terms, and anchoring again."""

    name = "dro"
    title = "Directed Representation Optimization"
    paper = "https://arxiv.org/abs/2401.18018"
    terms: ClassVar[Mapping[str, str]] = {
        "refusal": "refusal loss, L_r: falls as harmful queries move along the refusal direction "
        "and harmless ones against it",
        "harmfulness": "harmfulness loss, L_h: the same along the harmfulness direction",
        "complement": "loss outside the components, L_U: mean square of the movement there",
    }
    Settings = DROSettings
    stages = (_READING,)
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "standard": {**ON_ANCHORS, "most_held_out": None},
        "quick": {"epochs": 2},
        "thorough": {"epochs": 12, "batch": 8, "learning_rate": 1e-3},
        "paper": {
            "anchor_prompts": ("long", "short", "plain"),
            "weight_complement": 0.001,
            "reanchor_every": 0,
        },
    }

    def __init__(self, settings: DROSettings) -> None:
        from demur.prompts import load_basic_prompt

        super().__init__(settings)
        self._others = tuple(load_basic_prompt(name) for name in settings.anchor_prompts)
        self._measured: list[Measurement] = []

    def content(self) -> tuple[str, ...]:
        """Fingerprints of the texts that `anchor_prompts` names."""
        from demur.prompts import Condition

        return tuple(Condition(prompt).fingerprint for prompt in self._others)

    def check_queries(self, anchors: Queries, basic: Condition) -> None:
        """Check the numbers of components and folds.

        Raises:
            DemurError: there are too many for the readings of the anchors.
        """
        from demur.geometry import require_readings

        require_readings(
            len(anchors),
            len(self._conditions(basic)),
            components=self.settings.components,
            folds=self.settings.folds,
        )

    def check(self, context: Context) -> None:
        """Check the number of components, and the length of the anchors.

        Raises:
            DemurError: there are too many components, or a query is too long.
        """
        if self.settings.components >= context.model.width:
            raise DemurError(
                f"--components {self.settings.components} is too many for the width of "
                f"{context.model.name}: give less than {context.model.width}."
            )
        for condition in self._conditions(context.basic):
            context.model.inputs(context.anchors.texts, condition, context.protocol.tokens_harmful)

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Anchoring (section 4.1): measure the anchors and estimate the directions.

        Raises:
            DemurError: the model refuses (almost) none of the anchors, or (almost) all.
        """
        self._seed = context.seed
        self._measured = [
            context.measure(context.anchors, condition, description=_READING)
            for condition in self._conditions(context.basic)
        ]
        for remark in left_out_remarks(self._measured):
            context.progress.message(remark)
        _require_both_verdicts(context.model, with_verdicts(self._measured))
        self._start = self._measured[-1].states  # x_0: under the basic prompt
        self._labels = context.anchors.label_tensor()
        self._directions = self._estimated(self._measured)
        return [
            TrainingExample(text, label)
            for text, label in zip(context.anchors.texts, context.anchors.labels, strict=True)
        ]

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """The loss of section 4.2, equations 5 to 8: L = L_r + 0.01 L_h + 0.001 L_U."""
        import torch

        from demur.geometry import LossWeights, dro_terms

        chosen = torch.tensor(list(rows))
        moved = read.representations
        labels = self._labels[chosen]
        terms = dro_terms(self._directions, moved, self._start[chosen], labels)
        settings = self.settings
        weights = LossWeights(
            settings.weight_refusal, settings.weight_harmfulness, settings.weight_complement
        )
        weight = torch.where(labels > 0, 1.0, settings.weight_harmless)
        return Losses(
            weight * terms.total(weights),
            {
                "refusal": terms.refusal,
                "harmfulness": terms.harmfulness,
                "complement": terms.complement,
            },
        )

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> None:
        """Anchoring again: demur's addition, which the paper does not have.

        The directions hold where they were estimated. The trained prompt moves the representations
        away from there, and the model's responses there tell how refusal goes on. So the anchors
        are measured under the prompt so far too, and the directions are fitted to all measurements.
        """
        every = self.settings.reanchor_every
        if every and epoch % every == 0:
            again = context.measure(context.anchors, prompt, description=_READING, epoch=epoch)
            self._measured.append(again)
            self._directions = self._estimated(self._measured)

    def _conditions(self, basic: Condition) -> list[Condition]:
        """No prompt, other basic prompts, and last the one to optimize."""
        from demur.prompts import Condition

        others = [Condition(prompt, basic.system_prompt) for prompt in (None, *self._others)]
        by_identity = {one.fingerprint: one for one in others}
        by_identity.pop(basic.fingerprint, None)
        return [*by_identity.values(), basic]

    def _estimated(self, measurements: Sequence[Measurement]) -> Directions:
        import torch

        from demur.geometry import estimate_directions

        kept = with_verdicts(measurements)
        states = torch.cat([one.states for one in kept])
        return estimate_directions(
            states,
            torch.cat([one.refusal_probabilities() for one in kept]),
            torch.cat([one.queries.label_tensor() for one in kept]),
            components=self.settings.components,
            folds=min(self.settings.folds, len(states)),
            seed=self._seed,
        )


def _require_both_verdicts(model: ChatModel, measurements: Sequence[Measurement]) -> None:
    rates = [rate for measurement in measurements for rate in measurement.refusal_rates()]
    refusing = sum(rate > 0 for rate in rates)
    complying = sum(rate < 1 for rate in rates)
    if min(refusing, complying) >= LEAST_OF_EACH:
        return
    figures = "; ".join(_figures(measurement) for measurement in measurements)
    what = "refuses (almost) none" if refusing < LEAST_OF_EACH else "refuses (almost) all"
    raise DemurError(
        f"{model.name} {what} of the anchor queries, so there is no refusal direction to "
        f"estimate ({figures}): give more queries (--most-anchors) or other ones, use --method "
        "likelihood, which needs no direction, or a model that refuses some and answers some."
    )


def _figures(measurement: Measurement) -> str:
    rates = measurement.refusal_rates()
    harmful = [rates[row] for row in measurement.queries.rows(harmful=True)]
    harmless = [rates[row] for row in measurement.queries.rows(harmful=False)]
    return (
        f"{measurement.name}: harmful {100 * fmean(harmful):.1f} %, "
        f"harmless {100 * fmean(harmless):.1f} % refused"
    )
