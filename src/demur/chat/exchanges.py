"""Asking a language model about exchanges: a query and the response to it.

Guard models are asked in this way: their chat templates wrap the exchange in the question that they
were trained on, and their answer is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from demur.chat.clean_texts import clean_text
from demur.chat.engine import Engine, Inputs, SamplingSettings
from demur.chat.engine.architecture import context_length
from demur.chat.layouts import STAND_INS, first_rendered, in_both_forms, split_segments
from demur.chat.loading import LoadedModel, load_model
from demur.chat.rendered import RenderedConversation
from demur.chat.templates import TemplateArguments, pin_clock, template_options
from demur.chat.tokenization import Segment, SegmentTokenizer
from demur.errors import DemurError
from demur.progress import Progress, SilentStage, Stage
from demur.records.fingerprint import fingerprint
from demur.records.reasoning import closing_of

Exchange = tuple[str, str]
"""A query and the response to it."""

TOKENS_AT_ONCE = 8192
"""Tokens of the conversations that are read before any of them is answered."""


class ExchangeRenderer:
    """Renders exchanges with the chat template of a model that is asked about them.

    The query is the user's message and the response the assistant's. As with `ChatRenderer`, the
    template sees stand-ins only, and neither text can become a special or added token.

    Args:
        tokenizer: a fast tokenizer.
        template: the Jinja chat template.
        arguments: what else the template is rendered with.

    Raises:
        DemurError: the template cannot be used, or the tokenizer is not a fast one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        arguments: TemplateArguments | None = None,
    ) -> None:
        self._tokenize = SegmentTokenizer(tokenizer)
        self._layout = _layout(tokenizer, template, arguments or {})

    def render(self, query: str, response: str) -> RenderedConversation:
        """What the model reads, up to where its answer begins.

        Raises:
            DemurError: a text is empty or cannot be tokenized as plain text.
        """
        ids, _ = self._tokenize(self._segments(query, response))
        return RenderedConversation(tuple(ids), None)

    def render_text(self, query: str, response: str) -> str:
        """The same as text, markup and all."""
        return "".join(segment.text for segment in self._segments(query, response))

    def _segments(self, query: str, response: str) -> list[Segment]:
        texts = {"query": clean_text("query", query), "response": clean_text("response", response)}
        return [
            segment if segment.kind == "markup" else Segment(texts[segment.kind], segment.kind)
            for segment in self._layout
        ]


class ExchangeModel:
    """A causal language model that answers questions about exchanges, always the likeliest answer.

    Attributes:
        name: name of the model, for people.
        template: chat template that its tokenizer comes with, or None.
        context_length: number of tokens that an exchange with its answer may hold.
        fingerprint: SHA-256 (64 hex digits) of the weights' identity and their number format.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = loaded.name
        self.fingerprint = fingerprint(
            "exchange model",
            identity=loaded.identity,
            dtype=str(loaded.dtype),
            quantized=bool(getattr(loaded.model, "is_quantized", False)),
        )
        self.context_length = context_length(loaded.model)
        shipped = loaded.tokenizer.chat_template
        if isinstance(shipped, dict):
            shipped = shipped.get("default")
        self.template = str(shipped) if shipped else None
        self._tokenizer = loaded.tokenizer
        self._engine = Engine(loaded.model, loaded.tokenizer, name=loaded.name)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: str | None = None,
        device: str | None = None,
        quantization: str | None = None,
        progress: Progress | None = None,
    ) -> ExchangeModel:
        """Load a model, never with code of its own; the arguments are those of `ChatModel.load`.

        Raises:
            DemurError: the model cannot be found, read or used.
        """
        return cls(
            load_model(
                model, dtype=dtype, device=device, quantization=quantization, progress=progress
            )
        )

    def renderer(self, template: str, arguments: TemplateArguments) -> ExchangeRenderer:
        """A renderer of exchanges for this model that uses `template`."""
        return ExchangeRenderer(self._tokenizer, template, arguments)

    def answer(
        self,
        exchanges: Sequence[Exchange],
        renderer: ExchangeRenderer,
        new_tokens: int,
        stage: Stage | None = None,
    ) -> list[str | None]:
        """The model's answers, without special tokens; None where an exchange is too long.

        Args:
            exchanges: any number of them; neither text of one is blank.
            renderer: a renderer of this model.
            new_tokens: largest number of tokens of an answer.
            stage: advanced by one for each exchange.
        """
        stage = stage or SilentStage()
        conversations = [renderer.render(query, response) for query, response in exchanges]
        lengths = [len(conversation.token_ids) + new_tokens for conversation in conversations]
        fitting = [row for row, length in enumerate(lengths) if length <= self.context_length]
        stage.advance(len(conversations) - len(fitting))
        settings = SamplingSettings(most_tokens=new_tokens, temperature=0)
        answers: list[str | None] = [None] * len(conversations)
        for rows in _portions(sorted(fitting, key=lambda row: lengths[row]), lengths):
            reading = self._engine.read_and_sample(
                Inputs.from_conversations([conversations[row] for row in rows]),
                [""] * len(rows),
                settings,
                stage=stage,
            )
            for row, (sample,) in zip(rows, reading.samples, strict=True):
                answers[row] = sample.text
        return answers


def _portions(rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows in their order, in portions of at most `TOKENS_AT_ONCE` tokens or of a single row."""
    portion: list[int] = []
    for row in rows:
        if portion and sum(lengths[other] for other in portion) + lengths[row] > TOKENS_AT_ONCE:
            yield portion
            portion = []
        portion.append(row)
    if portion:
        yield portion


def _layout(
    tokenizer: PreTrainedTokenizerBase, template: str, arguments: TemplateArguments
) -> list[Segment]:
    """The template's markup around empty segments for query and response."""
    query, response = STAND_INS["query"], STAND_INS["response"]
    options = {**template_options(template), **arguments}
    rendered = first_rendered(
        tokenizer,
        pin_clock(template),
        in_both_forms([[("user", query), ("assistant", response)]]),
        options,
        lambda text: query in text and response in text,
    )
    if rendered.text is not None:
        return split_segments(rendered.text + closing_of(rendered.text))
    raise DemurError(
        "The chat template does not render a query with its response"
        f" ({rendered.problem or 'one of them is missing from its output'}):"
        " use the template of a guard model."
    )
