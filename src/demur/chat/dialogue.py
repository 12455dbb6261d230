"""A conversation that goes on, under a condition that may change on the way."""

from __future__ import annotations

from collections.abc import Iterator

from demur.chat.batches import too_long
from demur.chat.chosen import require_model
from demur.chat.engine import SamplingSettings
from demur.chat.model import ChatModel
from demur.errors import DemurError
from demur.prompts import Condition
from demur.records import answer_in, identity_of, in_conversation

SAMPLING = SamplingSettings(most_tokens=512)


class Dialogue:
    """Asks a model turn by turn.

    Attributes:
        model: is asked.
        condition: stands before the conversation; it may be changed between turns, and then holds
            for the whole conversation, the earlier turns included.
        settings: settings of the sampling. The same query behind the same history has the same
            random numbers under every prompt.
        history: each of the user's messages with the answer to it.
    """

    def __init__(
        self,
        model: ChatModel,
        condition: Condition | None = None,
        settings: SamplingSettings = SAMPLING,
        history: list[tuple[str, str]] | None = None,
    ) -> None:
        require_model(model)
        self.model = model
        self.settings = settings
        self.history = list(history or [])
        self.condition = condition or Condition()

    @property
    def condition(self) -> Condition:
        """What stands before the conversation.

        Raises:
            DemurError: when set, a prompt of another width than the model's.
        """
        return self._condition

    @condition.setter
    def condition(self, condition: Condition) -> None:
        if condition.safety_prompt is not None:
            condition.safety_prompt.require_width(self.model.width)
        self._condition = condition
        self._stream = self.model.engine.stream()

    def ask(self, query: str) -> Iterator[str]:
        """The answer, piece by piece.

        It is added to the history when it ends or is closed before that, without the reasoning
        before it; an answer of nothing but white space or reasoning is not, with its query.

        Raises:
            DemurError: the query is empty, or the conversation is too long for the model.
        """
        model, said = self.model, ""
        asked = in_conversation(query, tuple(self.history))
        conversation = model.conversation(asked, self.condition)
        length = len(conversation.token_ids) + self.settings.most_tokens
        if length > model.context_length and not self.history:
            asked_for = len(conversation.token_ids), self.settings.most_tokens
            raise too_long(asked, *asked_for, model.context_length, model.name)
        if length > model.context_length:
            raise DemurError(
                f"The conversation has become longer than the {model.context_length} tokens of "
                f"{model.name}, with {self.settings.most_tokens} for an answer: begin a new one."
            )
        prompt = self.condition.safety_prompt
        pieces = self._stream.answer(
            conversation.token_ids,
            identity_of(asked),
            self.settings,
            prompt.embeddings if prompt is not None else None,
            conversation.prompt_span,
        )
        try:
            for piece in pieces:
                said += piece
                yield piece
        finally:
            answer = answer_in(said)
            if answer and answer.strip():
                self.history.append((query, answer))
