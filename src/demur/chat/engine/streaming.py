"""One conversation, answered token by token while the answer is shown."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.forward import input_embeddings, read_positions
from demur.chat.engine.plain import replace_rows
from demur.chat.engine.responses import Growing, ResponseWriter
from demur.chat.engine.sampler import SamplingSettings, random_stream
from demur.chat.engine.turn_end import FILES_ONLY, TurnEnd

_UNFINISHED = "\ufffd"
"""What the tokenizer decodes a character to while its last bytes are missing."""


class Stream:
    """Answers the turns of one conversation; what it has read once stays in its cache.

    Args:
        model: a causal language model.
        tokenizer: tokenizer of the model.
        numbers: checks the model's logits.
        turn_end: ends an answer, beside what the model's files call its end.
        reuses: whether the model's cache can be carried from turn to turn. If not, the whole
            conversation is read again for every token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        numbers: FiniteNumbers,
        turn_end: TurnEnd = FILES_ONLY,
        *,
        reuses: bool,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._numbers = numbers
        self._turn_end = turn_end
        self._reuses = reuses
        self._cache: DynamicCache | None = None
        self._read: list[int] = []
        self._prompt: tuple[tuple[int, int], Tensor] | None = None

    def answer(
        self,
        token_ids: tuple[int, ...],
        key: str,
        settings: SamplingSettings,
        prompt: Tensor | None = None,
        prompt_span: tuple[int, int] | None = None,
    ) -> Iterator[str]:
        """The answer, in pieces of whole characters.

        Args:
            token_ids: the conversation up to where the answer begins.
            key: what keys the random stream; see `random_stream`.
            settings: settings of the sampling.
            prompt: (L, d) embeddings that take the place of the prompt span.
            prompt_span: [start, end) in `token_ids`.
        """
        self._prompt = None if prompt is None or prompt_span is None else (prompt_span, prompt)
        numbers, turn_end = self._numbers, self._turn_end
        writer = ResponseWriter(self.model, self.tokenizer, settings, None, numbers, turn_end)
        growing = Growing(0, 0, random_stream(settings, key, 0))
        said, ended = "", None
        while ended is None:
            logits = self._logits([*token_ids, *growing.tokens])
            (ended,) = writer.write([growing], logits)
            now = writer.text(growing.tokens) if ended is None else ended.text
            if ended is None:
                now = self._turn_end.certain(now.rstrip(_UNFINISHED))
            if len(now) > len(said) and now.startswith(said):
                yield now[len(said) :]
                said = now

    @torch.inference_mode()
    def _logits(self, ids: list[int]) -> Tensor:
        """(1, V) of what follows `ids`, reading only what the cache does not hold yet."""
        known = len(self._read)
        if not self._reuses or known >= len(ids) or ids[:known] != self._read:
            self._cache, known = None, 0
        if self._cache is None and self._reuses:
            self._cache = DynamicCache(config=self.model.config)
        embeddings = input_embeddings(self.model, torch.tensor([ids[known:]]))
        if self._prompt is not None and known == 0:
            span, rows = self._prompt
            embeddings = replace_rows(embeddings, [span], rows)
        last = torch.tensor([embeddings.shape[1] - 1])
        read = read_positions(self.model, embeddings, last, cache=self._cache, logits=True)
        self._numbers.check_hidden(read.hidden)
        self._read = list(ids) if self._reuses else []
        assert read.logits is not None
        return read.logits
