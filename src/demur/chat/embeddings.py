"""The embeddings that a model reads of a whole conversation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demur.chat.engine.forward import input_embeddings
from demur.chat.model import ChatModel
from demur.prompts import Condition
from demur.records import Query


def conversation_embeddings(
    model: ChatModel, query: Query, condition: Condition, more: Sequence[int] = ()
) -> Tensor:
    """The embeddings of a whole rendered conversation, (T, d) float32 on the CPU.

    Args:
        model: the model.
        query: the user's message, with what stands before it.
        condition: what stands before it.
        more: ids of further tokens, of an answer for example.

    Raises:
        DemurError: the query is longer than the context.
    """
    prompt = condition.safety_prompt
    trained = prompt is not None and prompt.is_trained
    rows = model.prompt_embeddings(prompt) if prompt is not None and trained else None
    inputs = model.inputs([query, query], condition)
    last = torch.tensor([*inputs.suffixes[0], *more])
    with torch.no_grad():
        opening = model.engine.prefix_embeddings(inputs, rows)
        rest = input_embeddings(model.engine.model, last)
    return torch.cat([opening, rest]).float().cpu()
