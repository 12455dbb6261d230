"""The settings of `demur optimize`, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from demur.errors import DemurError
from demur.optimization.methods import DEFAULT, MethodSpec, get_method, method_choices
from demur.optimization.preset_values import PRESETS, Preset, settled
from demur.optimization.validation import Pick
from demur.prompts import BUILT_IN_PROMPTS
from demur.settings import build

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

MOST_SAMPLES = 10_000
MOST_TOKENS = 100_000
MOST_EPOCHS = 100_000

Own = TypeVar("Own", bound=BaseModel)


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class QuerySettings(_Group):
    """Queries."""

    harmful: tuple[str, ...] = Field(
        default=("training",),
        min_length=1,
        description="harmful queries to train on, at least 10: training, anchors, FILE.txt, "
        "FILE.csv:COLUMN, FILE.jsonl:COLUMN or hf:ORG/NAME:COLUMN; several sets are joined",
    )
    harmless: tuple[str, ...] = Field(
        default=("training:borderline", "training:ordinary"),
        min_length=1,
        description="harmless queries to train on, likewise",
    )
    validation_harmful: tuple[str, ...] = Field(
        default=("validation",),
        min_length=1,
        description="harmful queries that choose among the epochs, likewise; only methods that "
        "score refusals read them",
    )
    validation_harmless: tuple[str, ...] = Field(
        default=("validation:borderline", "validation:ordinary"),
        min_length=1,
        description="harmless queries that choose among the epochs, likewise",
    )
    held_out_harmful: tuple[str, ...] = Field(
        default=("test",),
        min_length=1,
        description="harmful queries that only the final measurement reads, likewise; at least 10, "
        "or as many as --most-held-out asks for where that is less",
    )
    held_out_harmless: tuple[str, ...] = Field(
        default=("test:borderline", "test:ordinary"),
        min_length=1,
        description="harmless queries that only the final measurement reads, likewise",
    )
    most_anchors: int | None = Field(
        default=200,
        ge=10,
        description="queries of each label to train on, at most",
        json_schema_extra={"default": "all of them"},
    )
    histories: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="share of the queries to train on that get a short harmless conversation "
        "before them",
    )
    applications: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="share of the queries to train on that get the system text of a made-up "
        "application behind the safety prompt; none with --system-prompt",
    )
    most_validation: int | None = Field(
        default=60,
        ge=10,
        description="validation queries of each label, at most",
        json_schema_extra={"default": "all of them"},
    )
    most_held_out: int | None = Field(
        default=100,
        ge=1,
        description="held-out queries of each label, at most",
        json_schema_extra={"default": "all of them"},
    )


class ResponseSettings(_Group):
    """Sampling."""

    samples: int = Field(
        default=1, ge=1, le=MOST_SAMPLES, description="responses sampled for each query"
    )
    kept_samples: int | None = Field(
        default=None,
        ge=1,
        le=MOST_SAMPLES,
        description="how many of these responses count, the longest first",
        json_schema_extra={"default": "all of them"},
    )
    tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="tokens of any response, at most: sets both of the next two",
        json_schema_extra={"default": "as the next two say"},
    )
    tokens_harmful: int = Field(
        default=16,
        ge=1,
        le=MOST_TOKENS,
        description="tokens of a response to a harmful query, at most",
    )
    tokens_harmless: int = Field(
        default=16,
        ge=1,
        le=MOST_TOKENS,
        description="tokens of a response to a harmless query, at most",
    )
    least_tokens: int = Field(
        default=0, ge=0, le=MOST_TOKENS, description="tokens before a response may end"
    )
    cut_unfinished: bool = Field(
        default=False, description="cut the last paragraph of a response that reached its limit"
    )
    temperature: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="temperature of the sampling; 0 takes the likeliest token",
    )
    top_k: int = Field(
        default=50, ge=0, description="how many of the likeliest tokens may be drawn; 0 for all"
    )
    top_p: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="probability that the likeliest tokens, which may be drawn, reach together",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ResponseSettings:
        if self.kept_samples is not None and self.kept_samples > self.samples:
            raise ValueError(
                f"--kept-samples {self.kept_samples} is more than --samples {self.samples}: give "
                "at most as many"
            )
        tokens = self.tokens or min(self.tokens_harmful, self.tokens_harmless)
        if self.least_tokens > tokens:
            raise ValueError(
                f"--least-tokens {self.least_tokens} is more than the {tokens} tokens that a "
                "response may have at most: give at most as many, or a higher --tokens"
            )
        return self

    def protocol(self, seed: int) -> Protocol:
        """How responses are sampled and counted.

        Args:
            seed: seed of the sampling.
        """
        from demur.chat.engine import SamplingSettings
        from demur.evaluation.protocol import Protocol

        harmful = self.tokens or self.tokens_harmful
        harmless = self.tokens or self.tokens_harmless
        return Protocol(
            sampling=SamplingSettings(
                samples=self.samples,
                most_tokens=max(harmful, harmless),
                least_tokens=self.least_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=seed,
            ),
            tokens_harmful=harmful,
            tokens_harmless=harmless,
            kept=min(self.kept_samples or self.samples, self.samples),
            cut_unfinished=self.cut_unfinished,
        )


class TrainingSettings(_Group):
    """Training."""

    epochs: int = Field(
        default=3, ge=1, le=MOST_EPOCHS, description="passes over the training examples"
    )
    batch: int = Field(default=16, ge=1, le=MOST_EPOCHS, description="training examples in a step")
    learning_rate: float = Field(default=3e-3, gt=0, le=100, description="learning rate of AdamW")
    learning_rate_decay: bool = Field(
        default=True, description="let the learning rate fall to zero along half a cosine"
    )
    balanced_batches: bool = Field(
        default=True,
        description="give every batch as many harmful as harmless examples, pairs together",
    )
    averaged_prompt: bool = Field(
        default=True,
        description="keep the mean of the prompts after each step, as far from the start as the "
        "last one, instead of the last one",
    )
    benign_budget: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="share of the harmless validation queries that the prompt may refuse; the "
        "choice among the epochs keeps to it",
    )
    gradient_norm: float = Field(
        default=1.0, gt=0, description="length that longer gradients are shortened to"
    )


class OptimizeSettings(_Group, Generic[Own]):
    """How a safety prompt is optimized.

    The defaults are those of the preset `standard`. `Own` is the type of the method's own settings:
    `settings_type(method)` gives the complete type, whose options the command line has.

    Attributes:
        basic_prompt: where the training starts.
        system_prompt: text file with the application's own system text, or None.
        method: name of the method, or `file.py:Class`.
        preset: preset that the settings start from.
        pick: which prompt of the training is kept.
        judge: judge of refusal, as `as_refusal_judge` takes it.
        base_url: address of the endpoint of a judge `endpoint:MODEL`, or None.
        seed: seed of the sampling, the folds and the order of the examples.
        queries: which queries are read.
        sampling: how responses are sampled.
        training: how the prompt is trained.
        method_settings: the method's own settings.

    Example:
        >>> settings = OptimizeSettings.preset("quick", epochs=5, components=3)
        >>> settings.training.epochs, settings.sampling.samples
        (5, 1)
    """

    basic_prompt: str = Field(
        default="long",
        description=f"where to start: {BUILT_IN_PROMPTS}, a text file, or a text prompt on the hub",
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, which is never trained",
        json_schema_extra={"default": "none"},
    )
    method: str = Field(
        default=DEFAULT,
        description=f"how the prompt is trained: {method_choices()}",
    )
    preset: Preset = Field(default="standard", description="settings to start from")
    pick: Pick = Field(
        default="balanced",
        description="which prompt of the training to keep, where the method scores refusals: the "
        "best one within --benign-budget (balanced), a quarter of it (careful) or four times as "
        "much (strict); the same command with another choice trains nothing again",
    )
    judge: str = Field(
        default="default",
        description="judge of refusal: paper, default, guard:NAME, endpoint:MODEL or FILE.py:NAME",
    )
    base_url: str | None = Field(
        default=None,
        description="address of the judge's endpoint, for example http://localhost:8000/v1",
        json_schema_extra={"default": "OPENAI_BASE_URL, else OpenAI's own"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seed of all that is random: the same seed gives the same result",
    )
    queries: QuerySettings = QuerySettings()
    sampling: ResponseSettings = ResponseSettings()
    training: TrainingSettings = TrainingSettings()
    method_settings: Own

    @classmethod
    def from_preset(
        cls, name: str = "standard", /, method: MethodSpec = DEFAULT, **changes: object
    ) -> OptimizeSettings[Any]:
        """The settings of a preset with some of them changed.

        Args:
            name: `standard`, `quick`, `thorough` or `paper`.
            method: method whose own settings are part of it.
            **changes: values by the settings' names, for example `learning_rate=0.01`; for the
                method's own settings as well. `tokens` stands for `tokens_harmful` and
                `tokens_harmless`.

        Raises:
            DemurError: there is no such preset, method or setting, or a value is out of its range.
        """
        base = presets(method)[_known(name)]
        values = settled({"preset": name, **expanded(changes)})
        return build(settings_type(method), values, base)

    @property
    def protocol(self) -> Protocol:
        """How responses are sampled and counted."""
        return self.sampling.protocol(self.seed)


Scalar: TypeAlias = bool | int | float | str


class StoredMethodSettings(BaseModel):
    """The method's own settings as a run recorded them, by name; never trusted.

    A run's folder may come from a stranger, so the method that it names is not loaded to read it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Scalar | tuple[Scalar, ...] | None]


StoredSettings = OptimizeSettings[StoredMethodSettings]
"""The settings of a run as they are recorded."""


def settings_type(method: MethodSpec = DEFAULT) -> type[OptimizeSettings[Any]]:
    """The type of the settings with a method's own ones: what the command line's options are.

    Args:
        method: name of a method, `file.py:Class`, or a class.

    Raises:
        DemurError: there is no such method.
    """
    return _complete(get_method(method).Settings)


def presets(method: MethodSpec = DEFAULT) -> dict[Preset, OptimizeSettings[Any]]:
    """The complete settings of every preset with a method; `standard`, the default, comes first.

    Args:
        method: name of a method, `file.py:Class`, or a class.

    Raises:
        DemurError: there is no such method, or its presets do not fit its settings.
    """
    chosen = get_method(method)
    named = method if isinstance(method, str) else chosen.name
    own = chosen.presets.get("standard", {})
    return {
        name: build(
            settings_type(chosen),
            {**own, **common, **chosen.presets.get(name, {}), "preset": name, "method": named},
        )
        for name, common in PRESETS.items()
    }


@cache
def _complete(own: type[BaseModel]) -> type[OptimizeSettings[Any]]:
    return create_model(
        "OptimizeSettings",
        __base__=OptimizeSettings,
        __doc__=OptimizeSettings.__doc__,
        __module__=__name__,
        method_settings=(own, Field(default_factory=own)),
    )


def _known(name: str) -> Preset:
    for preset in PRESETS:
        if preset == name:
            return preset
    raise DemurError(f"There is no preset {name!r:.60}: choose {' or '.join(PRESETS)}.")


def expanded(changes: Mapping[str, object]) -> dict[str, object]:
    """Values by name, with `tokens` replaced by the two settings that it stands for.

    Args:
        changes: values by the settings' names; one that is named itself wins over `tokens`.

    Raises:
        DemurError: `tokens` is out of its range.
    """
    values = dict(changes)
    # Checked under its own name, so that a mistake is told of the option that was given.
    tokens = build(ResponseSettings, {"tokens": values.pop("tokens", None)}).tokens
    if tokens is None:
        return values
    return {"tokens_harmful": tokens, "tokens_harmless": tokens, **values}
