"""What a chat model reads: queries under a condition, as token ids and rows of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from demur.arguments import require_kind
from demur.chat.batches import inputs_of, target_ids
from demur.chat.checks import require_condition, require_queries
from demur.chat.engine import Engine, Inputs
from demur.chat.engine.forward import embedding_table, input_embeddings
from demur.chat.rendered import RenderedConversation
from demur.chat.rendering import ChatRenderer
from demur.prompts import Condition, SafetyPrompt
from demur.records import Query, history_of, text_of, tools_before


class ModelInputs:
    """Makes of queries what a model reads.

    Attributes:
        name: short name of the model, for people.
        width: d, the size of a representation and of a prompt row.
        context_length: number of tokens that a conversation may hold.
        renderer: renders conversations.
        engine: runs the model.
    """

    name: str
    width: int
    context_length: int
    renderer: ChatRenderer
    engine: Engine

    def prompt_embeddings(self, safety_prompt: SafetyPrompt) -> Tensor:
        """The rows of a safety prompt in a conversation, (L, d) float32 on the CPU."""
        require_kind("safety_prompt", safety_prompt, SafetyPrompt, "a SafetyPrompt")
        if safety_prompt.embeddings is not None:
            safety_prompt.require_width(self.width)
            return safety_prompt.embeddings
        conversation = self.renderer.render("?", safety_prompt.text)
        assert conversation.prompt_span is not None
        start, end = conversation.prompt_span
        ids = torch.tensor(conversation.token_ids[start:end])
        with torch.no_grad():
            return input_embeddings(self.engine.model, ids).float().cpu()

    def target_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as the model's own answer, from its first token on.

        They are those of the text alone: no token lies over the place where the answer begins, and
        none is a special token. The token that would end the answer is not among them.

        Raises:
            DemurError: the text is empty or cannot be tokenized as plain text.
        """
        require_kind("text", text, str, "a text")
        return self.renderer.answer_ids(text)

    def conversation(
        self, query: Query, condition: Condition, opening: str | None = None
    ) -> RenderedConversation:
        """Render a query under a condition, behind its history where it has one.

        Args:
            query: the query.
            condition: what stands before it.
            opening: what the answer is made to begin with; its tokens come last.

        Raises:
            DemurError: a text is empty or cannot be tokenized as plain text.
        """
        require_queries([query])
        require_condition(condition)
        prompt = condition.safety_prompt
        trained = prompt is not None and prompt.embeddings is not None
        rendered = self.renderer.render(
            text_of(query),
            prompt.text if prompt is not None else None,
            condition.system_prompt_for(query),
            prompt_rows=prompt.rows if prompt is not None and trained else None,
            history=history_of(query),
            tools=tools_before(query),
        )
        if opening is None:
            return rendered
        return replace(rendered, token_ids=rendered.token_ids + self.renderer.answer_ids(opening))

    def inputs(
        self,
        queries: Sequence[Query],
        condition: Condition | None = None,
        new_tokens: int = 0,
        targets: Sequence[Sequence[Sequence[int]]] = (),
        opening: str | None = None,
    ) -> Inputs:
        """Render queries under a condition.

        Args:
            queries: N of them, at least one.
            condition: what stands before every query; nothing by default.
            new_tokens: number of tokens of the responses to come, at most.
            targets: for each query its continuations as token ids; `()` for none at all.
            opening: what every answer is made to begin with; nothing by default.

        Raises:
            DemurError: a query, with the tokens to come, is longer than the context, the lists of
                targets are not as many as the queries, or an argument has the wrong type.
        """
        queries, condition = require_queries(queries), condition or Condition()
        require_condition(condition)
        prompt = condition.safety_prompt
        return inputs_of(
            queries,
            [self.conversation(query, condition, opening) for query in queries],
            trained=prompt is not None and prompt.embeddings is not None,
            new_tokens=new_tokens,
            targets=targets,
            context_length=self.context_length,
            vocabulary=self.vocabulary,
            name=self.name,
        )

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens that the model has embeddings of."""
        return int(embedding_table(self.engine.model).shape[0])

    def _all_ids(
        self, targets: Sequence[Sequence[str | Sequence[int]]]
    ) -> list[list[tuple[int, ...]]]:
        return target_ids(targets, self.renderer, self.vocabulary, self.name)

    def _rows(self, condition: Condition | None) -> Tensor | None:
        prompt = None if condition is None else condition.safety_prompt
        if prompt is None or prompt.embeddings is None:
            return None
        return self.prompt_embeddings(prompt)
