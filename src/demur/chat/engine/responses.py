"""Responses that grow token by token, for both ways of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from demur.chat.engine.architecture import end_tokens
from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.sampler import Sample, SamplingSettings, Settled, draw
from demur.chat.engine.turn_end import FILES_ONLY, TurnEnd
from demur.records.reasoning import MARK_TOKENS

_EVERY_TOKEN, _EVERY = 32, 8
"""A response is read after each of so many tokens, and then after every eighth."""


@dataclass
class Growing:
    """One response while it is sampled.

    Attributes:
        query: index of its query.
        sample: index among the samples of the query.
        uniforms: its random stream, (t,) float64: a number for each of the t tokens it may have.
        tokens: ids of the tokens so far.
    """

    query: int
    sample: int
    uniforms: Tensor
    tokens: list[int] = field(default_factory=list)


class ResponseWriter:
    """Draws the next token of responses and says when each is finished.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        settings: settings of the sampling.
        settled: stops a response whose verdict no continuation can change.
        numbers: checks that logits are numbers.
        turn_end: what ends an answer, beside what the model's files call its end.
        opening: ids of what every response begins with already, which its text includes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: SamplingSettings,
        settled: Settled | None,
        numbers: FiniteNumbers,
        turn_end: TurnEnd = FILES_ONLY,
        opening: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.settled = settled
        self.numbers = numbers
        self.turn_end = turn_end
        self.opening = tuple(opening)
        self.end_tokens = end_tokens(model, tokenizer) | turn_end.tokens
        self._left_out = _left_out(tokenizer)
        kind = type(tokenizer)
        own = kind.decode is PreTrainedTokenizerFast.decode
        own = own and getattr(kind, "_decode", None) is PreTrainedTokenizerFast._decode
        self._backend = tokenizer.backend_tokenizer if own else None

    def write(self, responses: list[Growing], logits: Tensor) -> list[Sample | None]:
        """Add a token to each response.

        Args:
            responses: B of them.
            logits: (B, V) of each one's next token.

        Returns:
            For each response the finished sample, or None where it goes on.

        Raises:
            DemurError: logits are not numbers.
        """
        self.numbers.check_logits(logits)
        logits = logits.float()
        young = [
            row
            for row, response in enumerate(responses)
            if len(response.tokens) < self.settings.least_tokens
        ]
        if young and self.end_tokens:
            logits = logits.clone()
            logits[torch.tensor(young)[:, None], torch.tensor(sorted(self.end_tokens))] = -torch.inf
        uniforms = torch.stack([response.uniforms[len(response.tokens)] for response in responses])
        drawn = draw(logits, uniforms, self.settings).tolist()
        return [self._append(*pair) for pair in zip(responses, drawn, strict=True)]

    def replay(self, tokens: Sequence[int], most: int, *, stopped: bool) -> Sample | None:
        """The sample that tokens make which were drawn elsewhere, as if they were drawn here.

        Args:
            tokens: ids of the tokens; what follows the end of the answer is left out.
            most: largest number of tokens that the response may have.
            stopped: whether a token ended the response, which need not be among them.

        Returns:
            None where the response ends before it is finished.
        """
        response = Growing(0, 0, torch.empty(most))
        for token in tokens:
            sample = self._append(response, token)
            if sample is not None:
                return sample
        return self._sample(response, "stop") if stopped else None

    def _append(self, response: Growing, token: int) -> Sample | None:
        if token in self.end_tokens:
            return self._sample(response, "stop")
        response.tokens.append(token)
        if self.turn_end.texts:
            answer = self.turn_end.cut(self.text(response.tokens))
            if answer is not None:
                return Sample(answer, len(response.tokens), "stop")
        if len(response.tokens) == len(response.uniforms):
            return self._sample(response, "length")
        if self._is_settled(response):
            return self._sample(response, "settled")
        return None

    def _is_settled(self, response: Growing) -> bool:
        """Whether a response is due to be read, and its verdict certain."""
        count = len(response.tokens)
        if self.settled is None or (count > _EVERY_TOKEN and count % _EVERY):
            return False
        # A last character that is not whole yet would be read as another one.
        return self.settled(self.text(response.tokens).rstrip("\ufffd"))

    def _sample(self, response: Growing, end: str) -> Sample:
        return Sample(self.text(response.tokens), len(response.tokens), end)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a response without special tokens, but with the marks of a reasoning."""
        # Decoded together: some tokenizers drop the space before the first of several tokens.
        tokens = [*self.opening, *tokens]
        if self._left_out is not None:
            tokens = [token for token in tokens if token not in self._left_out]
        alone = self._left_out is None
        if self._backend is not None:  # transformers looks at the type of every token
            return str(self._backend.decode(tokens, skip_special_tokens=alone))
        text = self.tokenizer.decode(
            tokens, skip_special_tokens=alone, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text


def _left_out(tokenizer: PreTrainedTokenizerBase) -> frozenset[int] | None:
    """The special tokens that no text shows; None for all, where no mark is a special token."""
    special = set(tokenizer.all_special_ids) | {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    names = zip(special, tokenizer.convert_ids_to_tokens(list(special)), strict=True)
    marks = {number for number, name in names if name in MARK_TOKENS}
    return frozenset(special - marks) if marks else None
