"""What is exported, and the model that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.chat import ChatModel
from demur.chat.catalog import is_public_name
from demur.errors import DemurError
from demur.optimization import Run
from demur.optimization.wording.settings import KIND as WORDING
from demur.prompts import SafetyPrompt, load_prompt
from demur.prompts.fetching import hub_name_of
from demur.records import SETTINGS, ModelRecord, kind_of

Source = Run | SafetyPrompt | str | Path
"""A run, a safety prompt, or a path or name of either."""


@dataclass(frozen=True)
class Subject:
    """A trained safety prompt and what is known of its model.

    Attributes:
        prompt: prompt with embeddings.
        model: record of the model that it was trained on, or None where it is not known.
    """

    prompt: SafetyPrompt
    model: ModelRecord | None

    @classmethod
    def of(cls, source: Source) -> Subject:
        """What is exported of a source.

        Args:
            source: run, safety prompt, folder of either, or `organisation/name` on the hub.

        Raises:
            DemurError: there is no such prompt, the run is not finished, or the prompt is text.
        """
        if isinstance(source, str | Path):
            source = _opened(source)
        prompt = source if isinstance(source, SafetyPrompt) else source.safety_prompt
        if not prompt.is_trained:
            raise DemurError(
                f"The safety prompt {prompt.name!r} is text: give it to the engine as a system "
                "message; only trained prompts need an export."
            )
        return cls(prompt, prompt.provenance.model)

    @property
    def model_name(self) -> str:
        """Name of the model to load where none is given: one of the catalog or the hub.

        Raises:
            DemurError: the model cannot be found by its name.
        """
        name = "" if self.model is None else self.model.name
        # A prompt may be a stranger's, so its model is never taken for a path.
        if is_public_name(name):
            return name
        known = f"was trained on {name!r:.200}" if name else "does not say what it was trained on"
        raise DemurError(
            f"The safety prompt {known}: give that model's folder or file with --model."
        )

    def require_model(self, model: ChatModel) -> None:
        """Check that the prompt fits a model and was trained on it.

        Raises:
            DemurError: it does not fit, or was trained on another model.
        """
        self.prompt.require_width(model.width)
        if self.model is not None and self.model.identity != model.identity:
            raise DemurError(
                f"The safety prompt was trained on {self.model.name!r:.200}, whose weights are not "
                f"those of {model.name}: export it with its own model."
            )


def _opened(source: str | Path) -> Run | SafetyPrompt:
    if hub_name_of(source) is not None:
        return load_prompt(source)
    # A run of another kind is opened as its prompt.
    is_run = (Path(source) / SETTINGS).is_file() and kind_of(Path(source)) != WORDING
    return Run.load(source) if is_run else SafetyPrompt.load(source)
