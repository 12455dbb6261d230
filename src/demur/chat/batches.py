"""From rendered conversations and their continuations to what the engine runs on, checked."""

from __future__ import annotations

from collections.abc import Sequence

from demur.arguments import described
from demur.chat.engine import Inputs
from demur.chat.rendered import RenderedConversation
from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError
from demur.records import Query, history_of, text_of


def inputs_of(
    queries: Sequence[Query],
    conversations: Sequence[RenderedConversation],
    *,
    trained: bool,
    new_tokens: int,
    targets: Sequence[Sequence[Sequence[int]]],
    context_length: int,
    vocabulary: int,
    name: str,
) -> Inputs:
    """A batch for the engine.

    Args:
        queries: N queries.
        conversations: the N conversations that they make, rendered under one condition.
        trained: whether embeddings take the place of the safety prompt's tokens.
        new_tokens: number of tokens of the responses to come, at most.
        targets: for each query its continuations as token ids; `()` for none at all.
        context_length: number of tokens that a conversation may hold.
        vocabulary: V; the model has rows for ids from 0 to V - 1.
        name: name of the model in messages.

    Raises:
        DemurError: a query, with the tokens to come, is longer than the context, the lists of
            targets are not as many as the queries, or the model has no row for a token.
    """
    if targets and len(targets) != len(queries):
        raise DemurError(
            f"There are {len(targets)} lists of targets for {len(queries)} queries: "
            "give one list for each query, which may be empty."
        )
    more = [max(map(len, some), default=0) for some in targets] or [0] * len(queries)
    lengths = [
        len(conversation.token_ids) + max(new_tokens, longest)
        for conversation, longest in zip(conversations, more, strict=True)
    ]
    if max(lengths) > context_length:
        row = lengths.index(max(lengths))
        asked, answer = len(conversations[row].token_ids), max(new_tokens, more[row])
        start, end = conversations[row].prompt_span or (0, 0)
        raise too_long(queries[row], asked, answer, context_length, name, prompt=end - start)
    largest = max(max(conversation.token_ids) for conversation in conversations)
    if largest >= vocabulary:
        raise DemurError(
            f"The tokenizer of {name} writes the token {largest}, and the model has rows for "
            f"{vocabulary:,} tokens: use the tokenizer and the chat template that belong to it."
        )
    return Inputs.from_conversations(conversations, trained=trained, targets=targets)


class NoRoomError(DemurError):
    """A conversation fits into the context, and its longest answer does not."""


def too_long(
    query: Query, asked: int, answer: int, context_length: int, name: str, prompt: int = 0
) -> DemurError:
    """The error for a conversation that does not fit, with the part of it that is too long.

    Args:
        query: the query.
        asked: number of tokens of the conversation with it.
        answer: number of tokens that its answer may have.
        context_length: number of tokens that a conversation may hold.
        name: name of the model.
        prompt: how many tokens of the conversation are those of the safety prompt.
    """
    if prompt > max(asked - prompt, context_length // 2):
        return DemurError(
            f"The safety prompt has {prompt} tokens and leaves too little room for a query and its "
            f"answer in the {context_length} of {name}: shorten the safety prompt."
        )
    history = " with what was said before it" if history_of(query) else ""
    shown = f"The query {_opening(text_of(query))!r}{history} has {asked} tokens"
    if asked > context_length:
        return DemurError(f"{shown}, more than the {context_length} of {name}: shorten or drop it.")
    room = context_length - asked
    if not room:
        return DemurError(
            f"{shown} and leaves no room for an answer in the {context_length} of {name}: shorten "
            "or drop it."
        )
    # Where most of the room is for the answer, that is what is too long.
    fix = f"ask for at most {room} (--tokens)"
    fix = fix if answer > asked else f"shorten or drop it, or {fix}"
    return NoRoomError(
        f"{shown} and its answer may have {answer}, together more than the {context_length} of "
        f"{name}: {fix}."
    )


def target_ids(
    targets: Sequence[Sequence[str | Sequence[int]]],
    renderer: ChatRenderer,
    vocabulary: int,
    name: str,
) -> list[list[tuple[int, ...]]]:
    """The token ids of continuations.

    Args:
        targets: for each query its continuations: texts, which are tokenized as the model's own
            answers, or token ids.
        renderer: renderer of the model.
        vocabulary: V; ids go from 0 to V - 1.
        name: name of the model in messages.

    Raises:
        DemurError: a target is empty, is no plain text, or holds an id outside the vocabulary.
    """
    for some in (targets, *(targets if isinstance(targets, Sequence) else ())):
        if isinstance(some, (str, bytes)) or not isinstance(some, Sequence):
            raise DemurError(
                f"The targets are {described(some)}: give a list of continuations for each query, "
                "which may be empty."
            )
    return [[_ids(target, renderer, vocabulary, name) for target in some] for some in targets]


def _ids(
    target: str | Sequence[int], renderer: ChatRenderer, vocabulary: int, name: str
) -> tuple[int, ...]:
    if isinstance(target, str):
        return renderer.answer_ids(target)
    if not hasattr(target, "__len__") or not all(hasattr(token, "__index__") for token in target):
        raise DemurError(
            f"A target is {described(target)}, not a text or a list of token ids: give one of them."
        )
    if len(target) == 0:
        raise DemurError("A target has no tokens: give at least one, or leave the target out.")
    if not all(0 <= token < vocabulary for token in target):
        raise DemurError(
            f"A target holds a token id outside the vocabulary of {name}: "
            f"give ids from 0 to {vocabulary - 1}."
        )
    return tuple(int(token) for token in target)


def _opening(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[:most] + "..."
