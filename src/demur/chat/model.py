"""A chat model: what the rest of demur asks, in terms of queries and safety prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from demur.arguments import require_kind
from demur.bars import default_progress
from demur.chat.allocator import keep_freed_memory as tell_allocator
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.checkpoint import explained_errors
from demur.chat.checks import require_condition, require_queries
from demur.chat.dividing import device_name
from demur.chat.engine import (
    Engine,
    PartialLoss,
    PrefixSharing,
    Read,
    Sampled,
    SamplingSettings,
    TokenReader,
    log_probability,
)
from demur.chat.engine.architecture import context_length
from demur.chat.engine.capability import check_sharing
from demur.chat.engine.forward import embedding_table
from demur.chat.engine.memory import require_room
from demur.chat.engine.sampler import Settled
from demur.chat.loading import LoadedModel, load_model
from demur.chat.model_inputs import ModelInputs
from demur.chat.renderers import Renderers
from demur.chat.rendering import ChatRenderer
from demur.chat.settings import WorkLoadSettings
from demur.chat.templates import read_template
from demur.progress import Progress, Stage
from demur.prompts import Condition, SafetyPrompt
from demur.records import ModelRecord, Query, identity_of

REASONING_TOKENS = 4096
"""Number of tokens in which most models end a reasoning and answer."""


class ChatModel(ModelInputs):
    """A causal language model with its chat template. Its weights never change.

    Attributes:
        name: short name of the model, for people.
        settings: how it was loaded, so that it can be loaded again.
        identity: a fingerprint of its weights' origin.
        width: d, the size of a representation and of a prompt row.
        context_length: tokens that a conversation may hold.
        folder: its files as transformers saves them; of a GGUF file, its dense copy.
        gguf: the GGUF file that it was unpacked from, if any.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prefix_sharing: PrefixSharing = "auto",
        settings: WorkLoadSettings | None = None,
        renderer: ChatRenderer | None = None,
    ) -> None:
        self.name = loaded.name
        self.settings = settings or WorkLoadSettings(
            model=loaded.name, prefix_sharing=prefix_sharing
        )
        self.identity = loaded.identity
        self.dtype = loaded.dtype
        self.device = loaded.device
        self.dtype_reason = loaded.dtype_reason
        self.folder = loaded.folder
        self.gguf = loaded.gguf
        self.quantization = loaded.quantization
        self.context_length = context_length(loaded.model)
        self.width = int(embedding_table(loaded.model).shape[1])
        self.renderer = renderer or ChatRenderer(loaded.tokenizer, loaded.name)
        self.engine = Engine(
            loaded.model,
            loaded.tokenizer,
            prefix_sharing=prefix_sharing,
            name=loaded.name,
            turn_end=self.renderer.turn_end.and_tokens(loaded.end_tokens),
        )

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        dtype: str | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        quantization: str | None = None,
        prefix_sharing: PrefixSharing = "auto",
        chat_template: str | Path | None = None,
        keep_freed_memory: bool = False,
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
            prefix_sharing: `auto` computes the opening that conversations share once, where a check
                at loading finds that exact for the model, and runs whole conversations elsewhere;
                `on` insists on the first and `off` on the second. Conversations longer than a
                model's sliding window always run whole.
            chat_template: file with a Jinja chat template, to use in place of the model's own; for
                base models, and for models that come without one.
            keep_freed_memory: on a processor, let this process keep the memory that it frees for
                its own later use, which makes it faster (see `demur.chat.keep_freed_memory`). The
                setting holds for the whole process, so it is left alone by default.
            progress: reports downloads, the number format, and the plain path and its reason.

        Raises:
            DemurError: the model cannot be found, read or used, has no chat template, or cannot
                share a prefix although `prefix_sharing` is `on`.
        """
        check_sharing(prefix_sharing)
        progress = progress or default_progress()
        template = None if chat_template is None else read_template(chat_template)
        renderers = Renderers(template)
        loaded = load_model(
            str(model),
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            quantization=quantization,
            needs_template=template is None,
            check=renderers.of,
            progress=progress,
        )
        if keep_freed_memory and loaded.device.type == "cpu":
            tell_allocator()
        settings = WorkLoadSettings.model_validate(
            {
                "model": str(model),
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "device": device or WorkLoadSettings().device,
                "quantization": quantization,
                "prefix_sharing": prefix_sharing,
                "trust_remote_code": trust_remote_code,
                "chat_template": None if chat_template is None else str(chat_template),
            }
        )
        with explained_errors(loaded.name):
            renderer = renderers.of(loaded.tokenizer, loaded.name)
            chat_model = cls(loaded, prefix_sharing, settings, renderer)
        if chat_model.renderer.may_reason:
            progress.message(
                f"{chat_model.name} may reason before it answers, which its chat template cannot "
                "end: responses that do not leave their reasoning count as no answer, so give "
                f"{REASONING_TOKENS} tokens or more."
            )
        if remark := chat_model.engine.verdict.remark(chat_model.name):
            progress.message(remark)
        return chat_model

    @property
    def record(self) -> ModelRecord:
        """What is recorded of the model: everything that its answers depend on."""
        return ModelRecord(
            name=self.name,
            identity=self.identity,
            dtype=str(self.dtype).removeprefix("torch."),
            device=device_name(self.device),
            quantization=self.quantization,
            chat_template=self.renderer.fingerprint,
            prefix_sharing=self.engine.shares_prefix,
        )

    def represent(
        self,
        queries: Sequence[Query],
        condition: Condition | None = None,
        stage: Stage | None = None,
    ) -> Tensor:
        """Representations of queries: hidden states of the last layer at the last input token.

        Args:
            queries: N queries, each a text or a `Conversation`.
            condition: what stands before every query; nothing by default.
            stage: advanced by one for each query.

        Returns:
            (N, d) float32 on the CPU.

        Raises:
            DemurError: a query is longer than the context.
        """
        inputs = self.inputs(queries, condition)
        return self.engine.represent(inputs, self._rows(condition), stage)

    def represent_layers(
        self,
        queries: Sequence[Query],
        condition: Condition | None = None,
        stage: Stage | None = None,
    ) -> Tensor | None:
        """The output of each layer at the last input token.

        The last of them is not the representation, which is read behind the final norm.

        Args:
            queries: N queries, each a text or a `Conversation`.
            condition: what stands before every query; nothing by default.
            stage: advanced by one for each query.

        Returns:
            (N, layers, d) float32 on the CPU, or None for a model whose layers cannot be told
            apart.

        Raises:
            DemurError: a query is longer than the context.
        """
        inputs = self.inputs(queries, condition)
        return self.engine.represent_layers(inputs, self._rows(condition), stage)

    def read_and_sample(
        self,
        queries: Sequence[Query],
        condition: Condition,
        settings: SamplingSettings,
        limits: Sequence[int] | None = None,
        settled: Settled | None = None,
        stage: Stage | None = None,
        opening: str | None = None,
    ) -> Sampled:
        """Representations of queries and sampled responses to them.

        Args:
            queries: N queries, each a text or a `Conversation`.
            condition: what stands before every query.
            settings: settings of the sampling.
            limits: largest number of new tokens for each query; `settings.most_tokens` for all by
                default.
            settled: stops a response on whose text so far the verdict is settled.
            stage: advanced by one for each response.
            opening: what every answer is made to begin with, as whoever controls the decoding can
                make it; nothing by default. It is plain text, none of whose tokens is a special
                one, and the texts of the responses include it. The limits do not count it, and
                representations are read at its last token.

        Raises:
            DemurError: a query with its response is longer than the context.
        """
        require_kind("settings", settings, SamplingSettings, "SamplingSettings")
        queries = require_queries(queries)
        inputs = self.inputs(queries, condition, settings.most_tokens, opening=opening)
        keys = [identity_of(query) for query in queries]
        begun = () if opening is None else self.target_ids(opening)
        return self.engine.read_and_sample(
            inputs, keys, settings, self._rows(condition), limits, settled, stage, begun
        )

    def score(
        self,
        queries: Sequence[Query],
        targets: Sequence[Sequence[str | Sequence[int]]],
        condition: Condition | None = None,
        *,
        reader: TokenReader = log_probability,
        stage: Stage | None = None,
    ) -> Read:
        """Log-probabilities of continuations of queries, without sampling.

        Every target is read behind its query (teacher forcing). The tokens of a query are read once
        for all of its targets, and those of the opening once for all queries.

        Args:
            queries: N of them.
            targets: for each query any number of continuations, which may be none: each is a text,
                tokenized by `target_ids`, or the ids of its tokens.
            condition: what stands before every query; nothing by default.
            reader: what to read of the logits that predict target tokens, if not their
                log-probabilities.
            stage: advanced by one for each query.

        Returns:
            The representations of the queries, (N, d), and the log-probabilities of all target
            tokens, (n,), float32 on the CPU. `by_target()` has them target by target.

        Raises:
            DemurError: a target is empty, or a query with a target is longer than the context.

        Example:
            The probability that the model begins its answer with one of two refusals:

            >>> openings = ["I'm sorry, but", "I cannot"]
            >>> read = model.score(queries, [openings] * len(queries))
            >>> [sum(float(one.sum().exp()) for one in some) for some in read.by_target()]
        """
        inputs = self.inputs(queries, condition, targets=self._all_ids(targets))
        return self.engine.score(inputs, self._rows(condition), reader, stage)

    def target_states(
        self,
        queries: Sequence[Query],
        targets: Sequence[Sequence[str | Sequence[int]]],
        condition: Condition | None = None,
        stage: Stage | None = None,
    ) -> Tensor:
        """What `next_token_logits` takes, where the model predicts each token of continuations.

        They hold the whole next-token distributions along the continuations, in d numbers a token.

        Args:
            queries: N of them.
            targets: for each query its continuations, as for `score`; at least one in all.
            condition: what stands before every query; nothing by default.
            stage: advanced by one for each query.

        Returns:
            (n, d) float32 on the CPU, query by query, target by target, for n target tokens.

        Raises:
            DemurError: a target is empty, or a query with a target is longer than the context.
        """
        inputs = self.inputs(queries, condition, targets=self._all_ids(targets))
        return self.engine.target_states(inputs, self._rows(condition), stage)

    def prompt_gradient(
        self,
        queries: Sequence[Query],
        condition: Condition,
        prompt: Tensor,
        partial_loss: PartialLoss,
        targets: Sequence[Sequence[str | Sequence[int]]] = (),
        reader: TokenReader = log_probability,
    ) -> tuple[float, Tensor]:
        """The loss of a batch of queries and its gradient with respect to the prompt's rows.

        Args:
            queries: B of them.
            condition: the basic prompt whose place the rows take, and the system prompt.
            prompt: (L, d).
            partial_loss: the share of the loss of some of the queries. It takes what the model
                makes of them, a `Read`, and their places in the batch, and returns a scalar.
            targets: for each query its continuations, as for `score`; `()` for none at all.
            reader: what to read of the logits that predict target tokens, if not their
                log-probabilities.

        Returns:
            The loss, and its gradient (L, d) float32 on the CPU.

        Raises:
            DemurError: a target is empty, or a query with a target is longer than the context.

        Example:
            The mean negative log-probability of one answer to each query:

            >>> ids = [[model.target_ids(answer)] for answer in answers]
            >>> count = sum(len(target) for (target,) in ids)
            >>> def partial_loss(read, places):
            ...     return -read.token_values.sum() / count
            >>> loss, gradient = model.prompt_gradient(
            ...     queries, condition, prompt, partial_loss, ids
            ... )
        """
        require_condition(condition)
        require_kind("prompt", prompt, Tensor, "the rows of a prompt, a tensor (L, d)")
        text = condition.safety_prompt.text if condition.safety_prompt else None
        trained = Condition(SafetyPrompt("training", text, prompt), condition.system_prompt)
        inputs = self.inputs(queries, trained, targets=self._all_ids(targets))
        return self.engine.prompt_gradient(inputs, prompt, partial_loss, reader)

    def require_room(
        self,
        queries: Sequence[Query],
        condition: Condition | None = None,
        new_tokens: int = 0,
        *,
        trained: bool = False,
        opening: str | None = None,
    ) -> None:
        """Check, before work starts, that the context and the device are large enough for it.

        Args:
            queries: N queries.
            condition: what stands before every query; nothing by default.
            new_tokens: number of tokens of the responses to come, at most.
            trained: whether the condition's prompt is trained, which takes more memory.
            opening: what every answer is made to begin with; nothing by default.

        Raises:
            DemurError: a query, with the tokens to come, is longer than the context, or the longest
                alone does not fit into the memory that the device has free.
        """
        inputs = self.inputs(queries, condition, new_tokens, opening=opening)
        network = self.engine.model
        require_room(network, self.name, inputs, new_tokens=new_tokens, trained=trained)

    def next_token_logits(self, representations: Tensor) -> Tensor:
        """What the model would say next at representations (N, d): logits (N, V) float32."""
        require_kind("representations", representations, Tensor, "a tensor (N, d)")
        return self.engine.next_token_logits(representations)
