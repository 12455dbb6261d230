"""What a model's vocabulary gains: safety tokens that it reads and never emits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.errors import DemurError
from demur.exports.head import MOST_PROBABLE, head_row
from demur.exports.opening import Opening, make_opening
from demur.progress import Progress
from demur.prompts import SafetyPrompt


@dataclass(frozen=True)
class Vocabulary:
    """Additions to a vocabulary.

    Attributes:
        opening: ids of the tokens, the tokenizer that has them, and the template.
        rows: (L, d) float32, rows of the prompt as the table of embeddings stores them.
        silent: (L, d) float32, rows for the LM head.
    """

    opening: Opening
    rows: Tensor
    silent: Tensor

    @classmethod
    def of(
        cls, model: ChatModel, prompt: SafetyPrompt, progress: Progress, *, may_think: bool = True
    ) -> Vocabulary:
        """The additions of a trained prompt to a model.

        Args:
            model: base model.
            prompt: trained safety prompt.
            progress: receives a stage, and a message where a token may be emitted.
            may_think: whether an engine may turn on a thinking that is off by default.

        Raises:
            DemurError: its tokenizer, its template or its embeddings do not allow it.
        """
        assert prompt.embeddings is not None
        opening = make_opening(model, prompt, may_think=may_think)
        for name, problem in opening.left_out.items():
            progress.message(
                f"The template {name!r:.60} is left out of the export, and conversations get the "
                f"main one in its place. {problem}"
            )
        rows = _stored_rows(model.engine.model.get_input_embeddings(), prompt.embeddings)
        with progress.stage("Making sure that the prompt is never emitted", 1) as stage:
            unlikely = head_row(model, prompt)
            stage.advance()
        if unlikely.probability > MOST_PROBABLE:
            progress.message(
                f"{model.name} has no direction that its states share: a safety token may be "
                f"emitted with a probability of up to {unlikely.probability:.0e}."
            )
        return cls(opening, rows, unlikely.row.repeat(prompt.rows, 1))


def _stored_rows(table: Any, rows: Tensor) -> Tensor:
    """Rows as the table stores them; some models multiply what they read from it.

    Raises:
        DemurError: the model does more to its embeddings than multiply them by a number.
    """
    ids = torch.arange(min(8, table.weight.shape[0]), device=table.weight.device)
    with torch.no_grad():
        stored, given = table.weight[ids].float(), table(ids).float()
    scale = (given * stored).sum() / (stored**2).sum()
    if not torch.allclose(given, scale * stored, rtol=1e-2, atol=1e-6):
        raise DemurError("The model transforms its embeddings: export to peft instead.")
    stored_rows: Tensor = rows / scale.cpu()
    return stored_rows
