"""The embeddings that a model reads of a whole conversation, and how vLLM takes them.

Its wire format is a tensor as `torch.save` writes it, in base64.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from torch import Tensor

from demur.chat.engine.forward import input_embeddings
from demur.chat.engine.plain import replace_rows
from demur.chat.model import ChatModel
from demur.chat.rendered import RenderedConversation
from demur.errors import DemurError
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
    model.inputs([query], condition)  # checks its length
    conversation = model.conversation(query, condition)
    return embedded(model, conversation, rows, more).float().cpu()


def embedded(
    model: ChatModel,
    conversation: RenderedConversation,
    rows: Tensor | None,
    more: Sequence[int] = (),
) -> Tensor:
    """The embeddings of a rendered conversation as the model reads them, (T, d) in its dtype.

    Args:
        model: the model.
        conversation: the conversation.
        rows: (L, d), what takes the place of the safety prompt's tokens; None for these themselves.
        more: ids of further tokens, of an answer for example.
    """
    ids = torch.tensor([*conversation.token_ids, *more])
    with torch.no_grad():
        found = input_embeddings(model.engine.model, ids)
        if rows is None:
            return found
        assert conversation.prompt_span is not None
        return replace_rows(found[None], [conversation.prompt_span], rows)[0]


def encode(rows: Tensor) -> str:
    """Embeddings (T, d) as the server takes them; checked by decoding them again.

    Raises:
        DemurError: what is decoded is not what was encoded.
    """
    buffer = io.BytesIO()
    torch.save(rows.contiguous().clone(), buffer)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    if not torch.equal(decode(text), rows):
        raise DemurError("The embeddings cannot be encoded: upgrade torch.")
    return text


def decode(text: str) -> Tensor:
    """What `encode` encoded."""
    data = io.BytesIO(base64.b64decode(text))
    rows: Tensor = torch.load(data, weights_only=True)
    return rows
