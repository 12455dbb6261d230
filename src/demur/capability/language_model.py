"""A chat model under a condition, as lm-eval runs it.

This module needs lm-eval. It is imported where a check begins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

import torch
from lm_eval.api.model import LM
from torch import Tensor

from demur.chat import ChatModel
from demur.chat.batches import NoRoomError
from demur.chat.engine import SamplingSettings, TargetTokens, log_probability
from demur.errors import DemurError
from demur.progress import Progress
from demur.prompts import Condition
from demur.records import Conversation, Query

_AT_ONCE = 16
_GENERATED_AT_ONCE = 64
_MOST_TOKENS = 256


class Request(Protocol):
    """What lm-eval asks: an `Instance` of it."""

    @property
    def args(self) -> tuple[object, ...]:
        """The context, and a continuation or settings of generation."""


class ConditionedModel(LM):
    """A chat model whose every conversation stands behind a safety prompt.

    A context is the task's messages as JSON, in place of a rendered text: the renderer of demur
    makes the conversation of them, with the rows of a trained prompt in it.

    Args:
        model: the model.
        condition: what stands before every conversation.
        progress: reports progress.
    """

    def __init__(self, model: ChatModel, condition: Condition, progress: Progress) -> None:
        super().__init__()
        self.model, self.condition, self.progress = model, condition, progress
        self.stage = "Checking"

    @property
    def tokenizer_name(self) -> str:
        """Name of the chat template."""
        return self.model.name

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The chat template, which is demur's to apply."""
        return "demur"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as JSON."""
        return json.dumps([[one["role"], one["content"]] for one in chat_history])

    def loglikelihood(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether it is the likeliest."""
        together: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            together.setdefault(str(request.args[0]), []).append(place)
        found: dict[int, tuple[float, bool]] = {}
        contexts = list(together)
        with self.progress.stage(self.stage, len(requests), "requests") as stage:
            for start in range(0, len(contexts), _AT_ONCE):
                some = contexts[start : start + _AT_ONCE]
                places = [together[context] for context in some]
                texts = [[str(requests[place].args[1]) for place in each] for each in places]
                scored = self._score(some, texts)
                for each, values in zip(places, scored, strict=True):
                    found.update(zip(each, values, strict=True))
                stage.advance(sum(map(len, places)))
        return [found[place] for place in range(len(requests))]

    def _score(
        self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, bool]]]:
        decoded = [_decoded(context) for context in contexts]
        begun = [self.model.target_ids(opening) if opening else () for _, opening in decoded]
        targets = [
            [self.model.target_ids(opening + text) for text in texts]
            for (_, opening), texts in zip(decoded, continuations, strict=True)
        ]
        queries = [query for query, _ in decoded]
        read = self.model.score(queries, targets, self.condition, reader=_likelihood)
        return [
            [_scored(values, ids, opening) for values, ids in zip(several, some, strict=True)]
            for several, some, opening in zip(read.by_target(), targets, begun, strict=True)
        ]

    def loglikelihood_rolling(self, requests: Sequence[Request]) -> list[float]:
        """Not possible: a chat model answers messages.

        Raises:
            DemurError: always.
        """
        raise DemurError(
            "This task measures the perplexity of texts, which are no answers to a message: choose "
            "a task with multiple choice or with generated answers."
        )

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """The likeliest answer to each context, cut at the first of its stops."""
        together: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            key = json.dumps(request.args[1], sort_keys=True, default=str)
            together.setdefault(key, []).append(place)
        found: dict[int, str] = {}
        with self.progress.stage(self.stage, len(requests), "requests") as stage:
            for places in together.values():
                for start in range(0, len(places), _GENERATED_AT_ONCE):
                    some = places[start : start + _GENERATED_AT_ONCE]
                    texts = self._generate([requests[place] for place in some])
                    found.update(zip(some, texts, strict=True))
                    stage.advance(len(some))
        return [found[place] for place in range(len(requests))]

    def _generate(self, requests: Sequence[Request]) -> list[str]:
        options = requests[0].args[1]
        assert isinstance(options, dict)
        until = options.get("until") or []
        stops = [one for one in ([until] if isinstance(until, str) else until) if one]
        sampled = bool(options.get("do_sample")) and float(options.get("temperature") or 0) > 0
        settings = SamplingSettings(
            samples=1,
            most_tokens=int(options.get("max_gen_toks") or _MOST_TOKENS),
            temperature=float(options["temperature"]) if sampled else 0,
            top_k=int(options.get("top_k") or 0),
            top_p=float(options.get("top_p") or 1),
        )
        queries: list[Query] = []
        for request in requests:
            query, opening = _decoded(str(request.args[0]))
            if opening:
                raise DemurError(
                    f"This task begins the answers itself, with {opening!r:.60}: choose another "
                    "one."
                )
            queries.append(query)
        try:
            read = self.model.read_and_sample(
                queries, self.condition, settings, settled=lambda t: any(s in t for s in stops)
            )
        except NoRoomError as error:
            raise DemurError(
                f"This task lets an answer have {settings.most_tokens} tokens, which leaves no "
                f"room for its questions in the {self.model.context_length} of {self.model.name}: "
                "choose another task, or a model with a longer context."
            ) from error
        return [_until(answer.text, stops) for (answer,) in read.samples]


def _likelihood(logits: Tensor, tokens: TargetTokens) -> Tensor:
    """The log-probability of each token, and whether it is the likeliest: (n, 2)."""
    likeliest = (logits.argmax(-1) == tokens.ids).to(logits.dtype)
    return torch.stack([log_probability(logits, tokens), likeliest], dim=-1)


def _scored(values: Tensor, ids: Sequence[int], opening: Sequence[int]) -> tuple[float, bool]:
    """The sum over the tokens behind an opening that the answer begins with."""
    same = 0
    while same < min(len(opening), len(ids) - 1) and ids[same] == opening[same]:
        same += 1
    return float(values[same:, 0].sum()), bool(values[same:, 1].all())


def _decoded(context: str) -> tuple[Query, str]:
    """The messages of a context, and the opening of the answer, which may be empty.

    Raises:
        DemurError: there is no message of a user.
    """
    try:
        messages, end = json.JSONDecoder().raw_decode(context)
    except ValueError as error:
        raise DemurError(
            "This task asks for the probability of an answer without a question: choose another "
            "one."
        ) from error
    opening = context[end:]
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for role, text in messages:
        if role == "system":
            system += [text] if text.strip() else []
        elif turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{text}")
        else:
            turns.append((role, text))
    if turns and turns[-1][0] == "assistant":
        opening = turns.pop()[1] + opening
    if len(turns) % 2 == 0 or any(role != "user" for role, _ in turns[::2]):
        raise DemurError(
            "This task has messages in which user and assistant do not take turns: choose another "
            "one."
        )
    history = tuple(zip((t for _, t in turns[:-1:2]), (t for _, t in turns[1::2]), strict=True))
    text, own = turns[-1][1], "\n\n".join(system) or None
    query: Query = Conversation(text, history, own) if history or own else text
    return query, opening


def _until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of some stops."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text
