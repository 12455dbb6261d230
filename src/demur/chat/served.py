"""A chat model whose responses a vLLM server with the same weights samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from demur import processes
from demur.arguments import require_kind
from demur.chat.embeddings import embedded, encode
from demur.chat.engine import Sampled, SamplingSettings
from demur.chat.engine.finite import FiniteNumbers
from demur.chat.engine.responses import ResponseWriter
from demur.chat.engine.sampler import Sample, Settled
from demur.chat.model import ChatModel
from demur.chat.rendered import RenderedConversation
from demur.endpoint import EndpointSettings
from demur.endpoint.completions import Completion, CompletionClient, Continuation
from demur.errors import DemurError
from demur.progress import Progress, SilentStage, Stage
from demur.prompts import Condition
from demur.records import ModelRecord, Query, identity_of, text_of

AT_ONCE = 64
"""Number of requests under way at once."""

SECONDS = 600.0
"""Seconds in which the answer to a request must be there as a whole."""

_MOST_OF_REQUEST = 32
"""Responses that one request asks for, at most."""

_NEUTRAL = {
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "skip_special_tokens": False,
}
"""Options that a model's files may set for a server, and that no response here is sampled with."""


@dataclass(frozen=True)
class SamplingServer:
    """A vLLM server that was reached.

    Attributes:
        client: asks it.
        context: number of tokens that a conversation may hold there; None where it is not known.
    """

    client: CompletionClient
    context: int | None


def reached(address: str, progress: Progress) -> SamplingServer:
    """Reach a server, before anything slow.

    Args:
        address: its address, for example `http://localhost:8000/v1`.
        progress: receives a message where a proxy stands between.

    Raises:
        DemurError: the package openai is missing, it is no address, or the server cannot be asked
            or lists no models; or several processes share the model.
    """
    if processes.count() > 1:
        raise DemurError(
            "Several processes share the model, and a server would give each of them other "
            "responses: leave --sample-at out, or run the command in one process."
        )
    settings = EndpointSettings(address, concurrency=AT_ONCE, timeout=SECONDS)
    client = CompletionClient("", settings)
    client.announce(progress)
    listed = client.served()
    if not listed:
        raise DemurError(f"{client.place} lists no models: check --sample-at.")
    client.model = listed[0].name  # vLLM names the model itself before its adapters
    return SamplingServer(client, listed[0].context)


class ServedModel(ChatModel):
    """A model that is loaded here, and whose responses a vLLM server with the same weights samples.

    The server gets token ids as they are rendered here, and embeddings where a prompt is trained,
    so its chat template plays no part. Tokens come back as ids and are read here, and the answer
    ends where it would here. The server must have the same weights and keep to every option of the
    sampling; `sampled_at` checks both.

    Args:
        model: the model, loaded here.
        server: what `reached` gave.

    Attributes:
        server: the server.
    """

    def __init__(self, model: ChatModel, server: SamplingServer) -> None:
        self.__dict__.update(model.__dict__)
        self.server = server
        self.settings = model.settings.model_copy(update={"sample_at": server.client.place})

    @property
    def record(self) -> ModelRecord:
        """What is recorded of the model: everything that its answers depend on."""
        return replace(super().record, sampler="vllm")

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
        """Representations of queries, computed here, and responses, sampled by the server.

        As for `ChatModel.read_and_sample`, but for the random numbers, which are the server's own.
        They follow from the seed, the query and the sample.

        Raises:
            DemurError: a query with its response is longer than the context here or there, or the
                server cannot be asked.
        """
        require_kind("settings", settings, SamplingSettings, "SamplingSettings")
        inputs = self.inputs(queries, condition, settings.most_tokens, opening=opening)
        limits = limits or [settings.most_tokens] * len(queries)
        begun = () if opening is None else self.target_ids(opening)
        representations = self.engine.represent(inputs, self._rows(condition))
        numbers, turn_end = FiniteNumbers(self.engine.model, self.name), self.engine.turn_end
        writer = ResponseWriter(
            self.engine.model, self.engine.tokenizer, settings, settled, numbers, turn_end, begun
        )
        # Greedy responses to a query are all the same.
        count = 1 if settings.temperature == 0 else settings.samples
        asked: list[Completion] = []
        places: list[int] = []
        for row, query in enumerate(queries):
            prompt = self.served_prompt(query, condition, opening)
            for first in range(0, count, _MOST_OF_REQUEST):
                options = sampling_options(
                    settings, limits[row], sorted(writer.end_tokens), _seed(settings, query, first)
                )
                some = min(_MOST_OF_REQUEST, count - first)
                asked.append(Completion(prompt, options, some, limits[row], text_of(query)))
                places.append(row)
        stage = stage or SilentStage()
        answers = self.server.client.complete_all(asked, stage)
        samples: list[list[Sample]] = [[] for _ in queries]
        for row, several in zip(places, answers, strict=True):
            samples[row] += [self._sample(writer, one, limits[row]) for one in several]
        if count < settings.samples:
            stage.advance((settings.samples - count) * len(samples))
            samples = [one * settings.samples for one in samples]
        return Sampled(representations, samples)

    def require_room(
        self,
        queries: Sequence[Query],
        condition: Condition | None = None,
        new_tokens: int = 0,
        *,
        trained: bool = False,
        opening: str | None = None,
    ) -> None:
        """Check that the context, here and there, and the device are large enough for work.

        As for `ChatModel.require_room`.

        Raises:
            DemurError: they are not.
        """
        super().require_room(queries, condition, new_tokens, trained=trained, opening=opening)
        longest = self.inputs(queries, condition, new_tokens, opening=opening).longest + new_tokens
        context = self.server.context
        if new_tokens and context is not None and longest > context:
            raise DemurError(
                f"The longest query has {longest} tokens with its answer, more than the {context} "
                f"of {self.server.client.place}: start it with --max-model-len {longest} or more."
            )

    def served_prompt(
        self, query: Query, condition: Condition, opening: str | None = None
    ) -> Callable[[], Mapping[str, object]]:
        """A conversation as the server takes it.

        Args:
            query: the query.
            condition: what stands before it.
            opening: what the answer is made to begin with.
        """
        conversation, rows = self.conversation(query, condition, opening), self._rows(condition)
        if rows is not None:
            return lambda: self._as_embeddings(conversation, rows)
        return lambda: {"prompt": list(conversation.token_ids)}

    def _as_embeddings(
        self, conversation: RenderedConversation, rows: Tensor
    ) -> Mapping[str, object]:
        return {"prompt_embeds": encode(embedded(self, conversation, rows).cpu())}

    def _sample(self, writer: ResponseWriter, said: Continuation, most: int) -> Sample:
        place, vocabulary = self.server.client.place, self.vocabulary
        if any(token >= vocabulary for token in said.tokens):
            raise DemurError(
                f"{place} writes tokens that {self.name} does not have: serve the same weights."
            )
        sample = writer.replay(said.tokens, most, stopped=said.stopped)
        if sample is None:
            raise DemurError(
                f"{place} ends an answer after {len(said.tokens)} of up to {most} tokens: serve a "
                "longer context (--max-model-len)."
            )
        return sample


def sampling_options(
    settings: SamplingSettings, most: int, ends: Sequence[int], seed: int
) -> dict[str, object]:
    """How responses are sampled, by vLLM's names.

    Args:
        settings: settings of the sampling.
        most: largest number of tokens of a response.
        ends: ids of the tokens that end one.
        seed: seed of the first response to a query; the others count on from it.
    """
    return {
        **_NEUTRAL,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "min_tokens": min(settings.least_tokens, most),
        "seed": seed,
        "stop_token_ids": list(ends),
        "ignore_eos": True,  # what ends an answer is among the tokens above
    }


def _seed(settings: SamplingSettings, query: Query, first: int) -> int:
    """The seed of the first response to a query in a request."""
    digest = hashlib.sha256(f"{settings.seed}\0{first}\0{identity_of(query)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
