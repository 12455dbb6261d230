"""The renderers of models that are being loaded."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from demur.chat.bounded import OutOfBounds
from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError


class Renderers:
    """The renderers of models, each made once and tried on short conversations.

    Args:
        template: Jinja chat template to use in place of a model's own.
    """

    def __init__(self, template: str | None) -> None:
        self._template = template
        self._made: list[tuple[PreTrainedTokenizerBase, ChatRenderer]] = []

    def of(self, tokenizer: PreTrainedTokenizerBase, model_name: str) -> ChatRenderer:
        """The renderer of a model.

        Raises:
            DemurError: its chat template cannot be used, or it has none.
        """
        for known, renderer in self._made:
            if known is tokenizer:
                return renderer
        renderer = ChatRenderer(tokenizer, model_name, self._template)
        renderer.render_text("?")
        try:
            renderer.render_text("?", "?")
        except OutOfBounds:
            raise
        except DemurError:  # it is raised where a safety prompt is rendered
            pass
        self._made.append((tokenizer, renderer))
        return renderer
