"""Refusal likelihood: train the probability that a response refuses, scored without sampling.

This method is demur's own. The probability of a refusal is the sum of the probabilities of the
openings that this model's refusals begin with, mined from its own samples. Harmful queries should
reach one, harmless ones zero. A penalty holds the answers to harmless queries where the model
without a prompt has them, but only where it answers.
"""

from __future__ import annotations

from collections import Counter
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

if TYPE_CHECKING:
    from torch import Tensor

    from demur.chat import ChatModel, Read
    from demur.chat.engine import TokenReader
    from demur.chat.engine.targets import TargetTokens
    from demur.prompts import Condition
    from demur.records import Measurement

LEAST = 1e-3
"""Added to the probability of no refusal, which bounds the slope of its logarithm."""

_KEPT_TOKENS = 64
"""Most likely next tokens of the model without a prompt that the penalty looks at one by one."""

_MINING = "Sampling responses to find refusal openings"
_ANSWERS = "Reading the answers without a prompt"


class LikelihoodSettings(MethodSettings):
    """Method: refusal likelihood."""

    openings: int = Field(
        default=6, ge=1, le=64, description="refusal openings that are scored, at most"
    )
    opening_tokens: int = Field(
        default=4, ge=1, le=32, description="tokens of a refusal opening, at most"
    )
    answer_tokens: int = Field(
        default=12,
        ge=0,
        le=1000,
        description="tokens of the model's own answer that the penalty looks at; 0 for no penalty",
    )
    weight_answer: float = Field(
        default=1.0, ge=0, le=1e9, description="weight of the penalty on changed answers"
    )
    weight_harmless: float = Field(
        default=1.0, ge=0, le=1e9, description="weight of a harmless query; a harmful one weighs 1"
    )
    focus: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="exponent of the focal weight, by which settled queries count less; 0 for none",
    )
    remine_every: int = Field(
        default=1,
        ge=0,
        description="epochs after which refusal openings are looked for again, under the prompt so "
        "far; 0 for never",
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

    def prepare(self, context: Context) -> Sequence[TrainingExample]:
        """Mine refusal openings, and read the model's own answers to harmless queries.

        Raises:
            DemurError: the model refuses none of the queries, so it has no refusal openings.
        """
        protocol = replace(context.protocol, whole=True)
        self._measured = [
            context.measure(context.anchors, condition, description=_MINING, protocol=protocol)
            for condition in (context.unprompted, context.basic)
        ]
        self._openings = self._mined(context.model)
        self._labels = context.anchors.label_tensor()
        answers = self._answers(context.model, self._measured[0])
        self._references = self._read_references(context, answers)
        self._answer_of = answers
        return self._examples(context)

    def after_epoch(
        self, context: Context, epoch: int, prompt: Condition
    ) -> Sequence[TrainingExample] | None:
        """Look for refusal openings again: training makes the model refuse in new words."""
        every = self.settings.remine_every
        if not every or epoch % every:
            return None
        protocol = replace(context.protocol, whole=True)
        again = context.measure(
            context.anchors, prompt, description=_MINING, protocol=protocol, epoch=epoch
        )
        self._measured.append(again)
        self._openings = self._mined(context.model)
        return self._examples(context)

    def losses(self, read: Read, rows: Sequence[int], batch: Sequence[int]) -> Losses:
        """-log P(refusal) for harmful queries, -log P(no refusal) for harmless ones, and the KL."""
        import torch

        settings, count = self.settings, len(self._openings)
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
                answered = -((1 - refusal + LEAST) / (1 + LEAST)).log()
                changed = values[count][:, 1].mean() if len(values) > count else zero
                loss = settings.weight_harmless * answered * (refusal.detach() ** settings.focus)
                loss = loss + settings.weight_answer * changed
                parts = (zero, answered, changed)
            total.append(loss)
            for column, part in zip(columns.values(), parts, strict=True):
                column.append(part)
        terms = {name: torch.stack(column) for name, column in columns.items()}
        return Losses(torch.stack(total), terms)

    def reader(self, batch: Sequence[int]) -> TokenReader:
        """Log-probability of each target token, and the KL divergence where an answer stands."""
        import torch

        ids, known, asked = [], [], []
        for row in batch:
            openings = sum(map(len, self._openings))
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
            changed = torch.where(chosen, _divergence(log_q, now), 0.0)
            return torch.stack([likely, changed], dim=1)

        return read

    def _examples(self, context: Context) -> list[TrainingExample]:
        anchors = context.anchors
        return [
            TrainingExample(
                text,
                label,
                (*self._openings, *([self._answer_of[row]] if row in self._answer_of else [])),
            )
            for row, (text, label) in enumerate(zip(anchors.texts, anchors.labels, strict=True))
        ]

    def _mined(self, model: ChatModel) -> tuple[tuple[int, ...], ...]:
        """The openings of refusals so far, the most frequent first."""
        size, counts = self.settings.opening_tokens, Counter[tuple[int, ...]]()
        for measured in self._measured:
            for responses in measured.responses:
                for one in responses:
                    if one.refused and one.response.strip():
                        counts[model.target_ids(one.response)[:size]] += 1
        if not counts:
            raise DemurError(
                f"{model.name} refuses none of the queries, so there is no refusal opening to "
                "score: use another method, or a model that refuses some queries."
            )
        # Most frequent first; equal counts in the order of their tokens, so that a replay agrees.
        ordered = sorted(counts, key=lambda opening: (-counts[opening], opening))
        return tuple(ordered[: self.settings.openings])

    def _answers(self, model: ChatModel, unprompted: Measurement) -> dict[int, tuple[int, ...]]:
        """The beginning of the model's own answer to each harmless query that it answers."""
        found: dict[int, tuple[int, ...]] = {}
        if not self.settings.answer_tokens:
            return found
        for row in unprompted.queries.rows(harmful=False):
            for one in unprompted.responses[row]:
                if one.refused is False and one.response.strip():
                    found[row] = model.target_ids(one.response)[: self.settings.answer_tokens]
                    break
        return found

    def _read_references(
        self, context: Context, answers: Mapping[int, tuple[int, ...]]
    ) -> dict[int, _Reference]:
        """The model's own next-token distributions along its answers, without a prompt."""

        import torch

        def most_likely(logits: Tensor, _tokens: TargetTokens) -> Tensor:
            top = logits.log_softmax(-1).topk(_KEPT_TOKENS, dim=-1)
            return torch.cat([top.indices.float(), top.values], dim=1)

        rows = list(answers)
        if not rows:
            return {}
        title = _ANSWERS
        with context.progress.stage(title, len(rows), "queries") as stage:
            read = context.model.score(
                [context.anchors.texts[row] for row in rows],
                [[answers[row]] for row in rows],
                context.unprompted,
                reader=most_likely,
                stage=stage,
            )
        return {
            row: _Reference(values[:, :_KEPT_TOKENS].long(), values[:, _KEPT_TOKENS:])
            for row, (values,) in zip(rows, read.by_target(), strict=True)
        }


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(Q || P) of distributions of which k probabilities are known and the rest is one bin.

    Args:
        log_q: (n, k), log-probabilities of Q; all -inf where there is no Q.
        log_p: (n, k), log-probabilities that P gives to the same tokens.

    Returns:
        (n,), in nats, at least 0 up to rounding. The true divergence is no smaller.
    """
    import torch

    q, p = log_q.exp(), log_p.exp()
    inside = torch.where(q > 0, q * (log_q - log_p), 0.0).sum(-1)
    rest_q, rest_p = (1 - q.sum(-1)).clamp_min(1e-6), (1 - p.sum(-1)).clamp_min(1e-6)
    return inside + rest_q * (rest_q.log() - rest_p.log())
