"""Refusal likelihood: train the probability that a response refuses, scored without sampling.

This method is demur's own. The probability of a refusal is the sum of the probabilities of the
openings that this model's refusals begin with, mined from its own samples. Harmful queries should
reach one, harmless ones zero. A penalty holds the answers to harmless queries where the model
without a prompt has them. How much harmless queries weigh follows from a budget: the share of
harmless validation queries that may be refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from demur.optimization.openings import RefusalOpenings, Sampled, mine_openings, sampled_openings
from demur.records import evenly

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat import ChatModel, Read
    from demur.chat.engine import TokenReader
    from demur.chat.engine.targets import TargetTokens
    from demur.optimization.validation import Validation
    from demur.prompts import Condition
    from demur.records import Measurement, Queries

_SOFTENING = 1e-3
"""Added to the probability of no refusal, which bounds the slope of its logarithm."""

_KEPT_TOKENS = 64
"""Most likely next tokens of the model without a prompt that the penalty looks at one by one."""

_LEAST_WEIGHT, _MOST_WEIGHT = 0.1, 20.0
"""Bounds of the weight of harmless queries, where it does not start beyond them."""

_LEAST_COVERAGE = 0.5
"""Share of the refusals seen from which the openings stand for them without a remark."""

_MINING = "Finding refusal openings"
_ANSWERS = "Reading the model's answers"


class LikelihoodSettings(MethodSettings):
    """Method: refusal likelihood."""

    openings: int = Field(
        default=6, ge=1, le=64, description="refusal openings that are scored, at most"
    )
    opening_tokens: int = Field(
        default=4, ge=1, le=32, description="tokens of a refusal opening, at most"
    )
    answer_tokens: int = Field(
        default=6,
        ge=0,
        le=1000,
        description="tokens of the model's own answer that the penalty looks at; 0 for no penalty",
    )
    answers: int = Field(
        default=160,
        ge=1,
        le=1_000_000,
        description="harmless queries whose own answer the penalty looks at, at most",
    )
    weight_answer: float = Field(
        default=1.0, ge=0, le=1e9, description="weight of the penalty on changed answers"
    )
    weight_harmless: float = Field(
        default=2.0,
        ge=0,
        le=1e9,
        description="weight of a harmless query at the start; a harmful one weighs 1",
    )
    dual_weight: bool = Field(
        default=True,
        description="move the weight of harmless queries after each epoch so that the share of "
        "harmless validation queries refused stays within --benign-budget",
    )
    focus: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="exponent of the focal weight, by which harmful queries that are refused "
        "already count less; 0 for none",
    )
    remine_every: int = Field(
        default=1,
        ge=0,
        description="epochs after which refusal openings are looked for again, under the prompt so "
        "far; 0 for never",
    )
    mined_queries: int = Field(
        default=80,
        ge=10,
        le=1_000_000,
        description="queries whose responses are sampled under a prompt to find refusal openings, "
        "at most",
    )


@dataclass(frozen=True)
class _Reference:
    """What the model without a prompt says at the tokens of one answer: (t, k) and (t, k)."""

    ids: Tensor
    log_probabilities: Tensor


class RefusalLikelihood(Method[LikelihoodSettings]):
    """Raises the probability of refusal on harmful queries and lowers it on harmless ones."""

    name = "likelihood"
    title = "Refusal likelihood"
    terms: ClassVar[Mapping[str, str]] = {
        "harmful": "loss of harmful queries: -log of the probability of a refusal",
        "harmless": "loss of harmless queries: -log of the probability of no refusal, bounded",
        "answer": "penalty on changed answers: KL divergence, in nats a token, from the model "
        "without a prompt on its own answer",
    }
    Settings = LikelihoodSettings
    stages = (_MINING, _ANSWERS)
    validated = True
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "thorough": {
            "openings": 16,
            "answers": 1_000_000,
            "answer_tokens": 12,
            "mined_queries": 200,
            "remine_every": 3,
            "tokens_harmful": 24,
            "tokens_harmless": 24,
        },
    }

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Mine refusal openings, and read the model's own answers to harmless queries.

        Raises:
            DemurError: the model refuses none of the queries, so it has no refusal openings.
        """
        self._labels = context.anchors.label_tensor()
        self._weight = self.settings.weight_harmless
        self._some = context.anchors.spread(self.settings.mined_queries // 2)
        answering = evenly(context.anchors.rows(harmful=False), self.settings.answers)
        rows = sorted({*self._some, *answering})
        self._samples: list[Sampled] = []
        unprompted = self._sample(context, rows, context.unprompted, None)
        self._mine(context, context.basic, None)
        self._answer_of = self._answers(context.model, unprompted, rows)
        self._references = self._read_references(context)
        return self._examples(context)

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition, validation: Validation | None
    ) -> Sequence[TrainingExample] | None:
        """Keep the budget, and look for openings again: training teaches new words to refuse in."""
        if validation is not None and self.settings.dual_weight:
            # Dual ascent on the logarithm of the weight, by a factor of 1.4 an epoch at most.
            excess = min(2.0, max(0.5, validation.harmless / context.benign_budget))
            start = self.settings.weight_harmless
            least, most = min(_LEAST_WEIGHT, start), max(_MOST_WEIGHT, start)
            self._weight = min(most, max(least, self._weight * excess**0.5))
        every = self.settings.remine_every
        if not every or epoch % every:
            return None
        self._mine(context, prompt, epoch)
        return self._examples(context)

    def refusal_probabilities(
        self, context: Context, queries: Queries, prompt: Condition
    ) -> Tensor:
        """The sum of the probabilities with which the openings are sampled, (N,)."""
        import torch

        from demur.chat.engine import drawn_log_probability

        openings, reader = self._openings.ids, drawn_log_probability(context.protocol.sampling)
        with context.progress.stage("Scoring validation queries", len(queries), "queries") as stage:
            read = context.model.score(
                queries.texts, [openings] * len(queries), prompt, reader=reader, stage=stage
            )
        return torch.stack(
            [torch.stack([one.sum() for one in some]).exp().sum() for some in read.by_target()]
        ).clamp_max(1.0)

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """The loss of each example; P is the probability of a refusal.

        - Of a harmful query: `-(1 - P)^focus log P`.
        - Of a harmless one: `-w log(1 - P)`, with a bounded slope, and `weight_answer` times the KL
          divergence along the model's own answer.
        """
        import torch

        settings, count = self.settings, len(self._openings.ids)
        columns: dict[str, list[Tensor]] = {name: [] for name in self.terms}
        total: list[Tensor] = []
        for row, values in zip(rows, read.by_target(), strict=True):
            log_refusal = torch.logsumexp(
                torch.stack([one[:, 0].sum() for one in values[:count]]), dim=0
            ).clamp_max(-1e-6)
            refusal = log_refusal.exp()
            zero = log_refusal.new_zeros(())
            if self._labels[row] > 0:
                loss = -log_refusal * ((1 - refusal).detach() ** settings.focus)
                parts = (-log_refusal, zero, zero)
            else:
                answered = -((1 - refusal + _SOFTENING) / (1 + _SOFTENING)).log()
                changed = values[count][:, 1].mean() if len(values) > count else zero
                loss = self._weight * answered + settings.weight_answer * changed
                parts = (zero, answered, changed)
            total.append(loss)
            for column, part in zip(columns.values(), parts, strict=True):
                column.append(part)
        terms = {name: torch.stack(column) for name, column in columns.items()}
        return Losses(torch.stack(total), terms)

    def reader(self, batch: Sequence[int]) -> TokenReader:
        """Log-probability of each target token, and the KL divergence where an answer stands."""
        import torch

        from demur.optimization.answers import divergence

        ids, known, asked = [], [], []
        openings = sum(map(len, self._openings.ids))
        for row in batch:
            reference = self._references.get(row)
            length = openings + (0 if reference is None else len(reference.ids))
            own = torch.zeros(length, _KEPT_TOKENS, dtype=torch.long)
            log_own = torch.full((length, _KEPT_TOKENS), -torch.inf)
            if reference is not None:
                own[openings:], log_own[openings:] = reference.ids, reference.log_probabilities
            ids.append(own)
            known.append(log_own)
            asked += [False] * openings + [True] * (length - openings)
        table, log_table, wanted = torch.cat(ids), torch.cat(known), torch.tensor(asked)

        def read(logits: Tensor, tokens: TargetTokens) -> Tensor:
            log_p = logits.log_softmax(-1)
            likely = log_p.gather(1, tokens.ids[:, None])[:, 0]
            numbers = tokens.numbers.cpu()
            chosen = wanted[numbers].to(logits.device)
            log_q = log_table[numbers].to(logits.device)
            now = log_p.gather(1, table[numbers].to(logits.device))
            changed = torch.where(chosen, divergence(log_q, now), 0.0)
            return torch.stack([likely, changed], dim=1)

        return read

    def _sample(
        self, context: Context, rows: Sequence[int], prompt: Condition, epoch: int | None
    ) -> Measurement:
        """Sample responses to some of the queries under a prompt, and add them to those so far."""
        measured = context.measure(
            context.anchors.select(rows),
            prompt,
            description=_MINING,
            protocol=replace(context.protocol, whole=True),
            epoch=epoch,
        )
        size = self.settings.opening_tokens
        self._samples += sampled_openings(context.model, measured, size)
        return measured

    def _mine(self, context: Context, prompt: Condition, epoch: int | None) -> None:
        """Sample some of the queries under a prompt, and mine all responses so far."""
        settings = self.settings
        self._sample(context, self._some, prompt, epoch)
        self._openings: RefusalOpenings = mine_openings(
            self._samples, settings.openings, settings.opening_tokens
        )
        if not self._openings.ids:
            raise DemurError(
                f"{context.model.name} refuses almost none of the queries, so there is no refusal "
                "opening to score: start from a prompt that refuses more, for example with "
                "--basic-prompt refusal-examples, or give --method vpt."
            )
        if self._openings.coverage < _LEAST_COVERAGE:
            count, share = len(self._openings.ids), self._openings.coverage
            context.progress.message(
                f"Only {100 * share:.0f} % of the refusals seen begin with one of the {count} "
                "refusal openings, so the scores miss the others: give higher --openings or "
                "--opening-tokens."
            )

    def _examples(self, context: Context) -> list[TrainingExample]:
        anchors, openings = context.anchors, self._openings.ids
        return [
            TrainingExample(
                text,
                label,
                (*openings, *([self._answer_of[row]] if row in self._answer_of else [])),
            )
            for row, (text, label) in enumerate(zip(anchors.texts, anchors.labels, strict=True))
        ]

    def _answers(
        self, model: ChatModel, unprompted: Measurement, rows: Sequence[int]
    ) -> dict[int, tuple[int, ...]]:
        """The beginning of the model's own answer to each harmless query that it answers.

        Args:
            model: model that wrote the answers.
            unprompted: some of the anchors, measured without a prompt.
            rows: place of each among the anchors.
        """
        found: dict[int, tuple[int, ...]] = {}
        if not self.settings.answer_tokens:
            return found
        for place in unprompted.queries.rows(harmful=False):
            for one in unprompted.responses[place]:
                if one.answered and one.response.strip():
                    found[rows[place]] = model.target_ids(one.response)[
                        : self.settings.answer_tokens
                    ]
                    break
        return found

    def _read_references(self, context: Context) -> dict[int, _Reference]:
        """The model's own next-token distributions along its answers, without a prompt.

        They are those of an answer: what leads to a refusal opening is left out of them.
        """
        import torch

        from demur.optimization.answers import without_refusals

        def most_likely(logits: Tensor, tokens: TargetTokens) -> Tensor:
            log_p = logits.log_softmax(-1)
            top = log_p.topk(_KEPT_TOKENS, dim=-1)
            likely = log_p.gather(1, tokens.ids[:, None])
            return torch.cat([likely, top.indices.float(), top.values], dim=1)

        rows, openings = list(self._answer_of), self._openings.ids
        if not rows:
            return {}
        with context.progress.stage(_ANSWERS, len(rows), "queries") as stage:
            read = context.model.score(
                [context.anchors.texts[row] for row in rows],
                [[*openings, self._answer_of[row]] for row in rows],
                context.unprompted,
                reader=most_likely,
                stage=stage,
            )
        found: dict[int, _Reference] = {}
        for row, (*refusals, answer) in zip(rows, read.by_target(), strict=True):
            ids = answer[:, 1 : _KEPT_TOKENS + 1].long()
            likely = [one[:, 0] for one in refusals]
            log_q = without_refusals(
                self._answer_of[row], ids, answer[:, _KEPT_TOKENS + 1 :], openings, likely
            )
            found[row] = _Reference(ids, log_q)
        return found
