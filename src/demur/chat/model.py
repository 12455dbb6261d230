"""A chat model: what the rest of demur asks, in terms of queries and safety prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.engine import Engine, Inputs, SamplingSettings
from demur.chat.engine.engine import PartialLoss, Reading
from demur.chat.engine.forward import embedding_table, input_embeddings
from demur.chat.engine.sampler import Settled
from demur.chat.loading import LoadedModel, load_model
from demur.chat.rendering import ChatRenderer, Conversation
from demur.errors import DemurError
from demur.progress import Progress, SilentProgress, Stage
from demur.prompts import Condition, SafetyPrompt
from demur.records import ModelRecord


class ChatModel:
    """A causal language model with its chat template. Its weights never change.

    Attributes:
        name: how the model was asked for.
        identity: a fingerprint of its weights' origin.
        width: d, the size of a representation and of a prompt row.
        context_length: tokens that a conversation may hold.
        folder: its files as transformers saves them; of a GGUF file, its dense copy.
        gguf: the GGUF file that it was unpacked from, if any.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = loaded.name
        self.identity = loaded.identity
        self.dtype = loaded.dtype
        self.device = loaded.device
        self.dtype_reason = loaded.dtype_reason
        self.folder = loaded.folder
        self.gguf = loaded.gguf
        self.quantization = loaded.quantization
        config = loaded.model.config.get_text_config(decoder=True)
        self.context_length = int(getattr(config, "max_position_embeddings", None) or 10**9)
        self.width = int(embedding_table(loaded.model).shape[1])
        self.renderer = ChatRenderer(loaded.tokenizer, loaded.name)
        self.engine = Engine(loaded.model, loaded.tokenizer)

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        dtype: str | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        quantization: str | None = None,
        progress: Progress | None = None,
    ) -> ChatModel:
        """Load a model.

        Args:
            model: a hub name, a local folder, a GGUF file or a catalog name.
            dtype: `float32`, `bfloat16` or `float16`; by default bfloat16 where the processor
                multiplies it natively, float32 elsewhere.
            device: `cpu`, `cuda`, ...; `auto` spreads a large model over what there is.
            trust_remote_code: whether the model may bring its own code.
            quantization: `4bit`, or None.
            progress: hears of downloads and of the choice of dtype.

        Raises:
            DemurError: the model cannot be had, read or used.
        """
        progress = progress or SilentProgress()
        loaded = load_model(
            str(model),
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            quantization=quantization,
            progress=progress,
        )
        chat_model = cls(loaded)
        if not chat_model.engine.shares_prefix:
            progress.message(
                f"{loaded.name} has a cache that cannot be expanded: "
                "taking the plain path, which is slower and gives the same results."
            )
        return chat_model

    @property
    def record(self) -> ModelRecord:
        """What is recorded of the model: everything that its answers depend on."""
        return ModelRecord(
            name=self.name,
            identity=self.identity,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            quantization=self.quantization,
            chat_template=self.renderer.fingerprint,
        )

    def prompt_embeddings(self, safety_prompt: SafetyPrompt) -> Tensor:
        """The rows that a safety prompt puts into a conversation, (L, d) float32 on the CPU."""
        if safety_prompt.embeddings is not None:
            safety_prompt.require_width(self.width)
            return safety_prompt.embeddings
        conversation = self.renderer.render("?", safety_prompt.text)
        assert conversation.prompt_span is not None
        start, end = conversation.prompt_span
        ids = torch.tensor(conversation.token_ids[start:end])
        with torch.no_grad():
            return input_embeddings(self.engine.model, ids).float().cpu()

    def conversation_embeddings(
        self, query: str, condition: Condition, more: Sequence[int] = ()
    ) -> Tensor:
        """The embeddings of a whole rendered conversation, (T, d) float32 on the CPU.

        Args:
            query: the user's message.
            condition: what stands before it.
            more: ids of further tokens, of an answer for example.
        """
        inputs = self.inputs([query, query], condition)
        last = torch.tensor([*inputs.suffixes[0], *more])
        with torch.no_grad():
            opening = self.engine.prefix_embeddings(inputs, self._rows(condition))
            rest = input_embeddings(self.engine.model, last)
        return torch.cat([opening, rest]).float().cpu()

    def represent(
        self,
        queries: Sequence[str],
        condition: Condition | None = None,
        stage: Stage | None = None,
    ) -> Tensor:
        """Representations of queries, (N, d) float32.

        Raises:
            DemurError: a query is longer than the context.
        """
        condition = condition or Condition()
        inputs = self.inputs(queries, condition)
        return self.engine.represent(inputs, self._rows(condition), stage)

    def represent_layers(
        self,
        queries: Sequence[str],
        condition: Condition | None = None,
        stage: Stage | None = None,
    ) -> Tensor | None:
        """What each layer puts out at the last input token, (N, layers, d) float32.

        The last of them is not the representation: that is read behind the final norm. None for a
        model whose layers cannot be told apart.

        Raises:
            DemurError: a query is longer than the context.
        """
        condition = condition or Condition()
        inputs = self.inputs(queries, condition)
        return self.engine.represent_layers(inputs, self._rows(condition), stage)

    def read_and_sample(
        self,
        queries: Sequence[str],
        condition: Condition,
        settings: SamplingSettings,
        limits: Sequence[int] | None = None,
        settled: Settled | None = None,
        stage: Stage | None = None,
    ) -> Reading:
        """Representations of queries and sampled responses to them.

        Raises:
            DemurError: a query with its response is longer than the context.
        """
        inputs = self.inputs(queries, condition, settings.most_tokens)
        return self.engine.read_and_sample(
            inputs, queries, settings, self._rows(condition), limits, settled, stage
        )

    def prompt_gradient(
        self,
        queries: Sequence[str],
        condition: Condition,
        prompt: Tensor,
        partial_loss: PartialLoss,
    ) -> tuple[float, Tensor]:
        """The loss of a batch of queries and its gradient with respect to the prompt's rows.

        Args:
            queries: B of them.
            condition: the basic prompt whose place the rows take, and the system prompt.
            prompt: (L, d).
            partial_loss: the share of the loss of some of the queries.
        """
        text = condition.safety_prompt.text if condition.safety_prompt else None
        trained = Condition(SafetyPrompt("training", text, prompt), condition.system_prompt)
        return self.engine.prompt_gradient(self.inputs(queries, trained), prompt, partial_loss)

    def next_token_logits(self, representations: Tensor) -> Tensor:
        """What the model would say next at representations (N, d): logits (N, V) float32."""
        return self.engine.next_token_logits(representations)

    def conversation(
        self, query: str, condition: Condition, history: Sequence[tuple[str, str]] = ()
    ) -> Conversation:
        """Render a query under a condition, behind earlier ones with their answers."""
        prompt = condition.safety_prompt
        trained = prompt is not None and prompt.embeddings is not None
        return self.renderer.render(
            query,
            prompt.text if prompt is not None else None,
            condition.system_prompt,
            prompt_rows=prompt.rows if prompt is not None and trained else None,
            history=history,
        )

    def inputs(self, queries: Sequence[str], condition: Condition, new_tokens: int = 0) -> Inputs:
        """Render queries under a condition.

        Raises:
            DemurError: a query, with `new_tokens` to come, is longer than the context.
        """
        prompt = condition.safety_prompt
        trained = prompt is not None and prompt.embeddings is not None
        conversations = [self.conversation(query, condition) for query in queries]
        longest = max(conversations, key=lambda conversation: len(conversation.token_ids))
        length = len(longest.token_ids) + new_tokens
        if length > self.context_length:
            query = queries[conversations.index(longest)]
            raise DemurError(
                f"The query {_opening(query)!r} makes a conversation of {length} tokens, more than "
                f"the {self.context_length} of {self.name}: shorten or drop it."
            )
        return Inputs.from_conversations(conversations, trained=trained)

    def _rows(self, condition: Condition) -> Tensor | None:
        prompt = condition.safety_prompt
        if prompt is None or prompt.embeddings is None:
            return None
        return self.prompt_embeddings(prompt)


def _opening(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[:most] + "..."
