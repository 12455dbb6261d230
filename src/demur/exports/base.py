"""What is exported, and the model that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.chat import ChatModel
from demur.chat.catalog import CATALOG
from demur.errors import DemurError
from demur.optimization import Run
from demur.prompts import SafetyPrompt


@dataclass(frozen=True)
class Subject:
    """A trained safety prompt and what is known of its model.

    Attributes:
        prompt: with embeddings.
        model: `name` and `identity` of the model it was trained on; empty where nobody wrote that.
    """

    prompt: SafetyPrompt
    model: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Subject:
        """The prompt of a finished run, or a saved one.

        Raises:
            DemurError: there is none, the run is not finished, or the prompt is text.
        """
        if (path / "settings.json").is_file():
            run = Run.load(path)
            prompt, model = run.safety_prompt, run.settings.get("model")
        else:
            prompt = SafetyPrompt.load(path)
            model = prompt.metadata.get("model")
        if not prompt.is_trained:
            raise DemurError(
                f"The safety prompt {prompt.name!r} is text: give it to the engine as a system "
                "message; only trained prompts need an export."
            )
        return cls(prompt, model if isinstance(model, Mapping) else {})

    @property
    def model_name(self) -> str:
        """The model to load where none is given.

        Raises:
            DemurError: it cannot be found by its name.
        """
        name = str(self.model.get("name", ""))
        if name in CATALOG or "/" in name:
            return name
        known = f"was trained on {name}" if name else "does not say what it was trained on"
        raise DemurError(
            f"The safety prompt {known}: give that model's folder or file with --model."
        )

    def require_model(self, model: ChatModel) -> None:
        """Make sure that the prompt fits and belongs to `model`.

        Raises:
            DemurError: it does not.
        """
        self.prompt.require_width(model.width)
        identity = self.model.get("identity")
        if identity is not None and identity != model.identity:
            raise DemurError(
                f"The safety prompt was trained on {self.model.get('name')}, whose weights are not "
                f"those of {model.name}: export it with its own model."
            )
