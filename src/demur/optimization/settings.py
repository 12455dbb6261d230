"""The settings of `demur optimize`, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from demur.errors import DemurError, did_you_mean
from demur.optimization.groups import Group, QuerySettings, ResponseSettings, TrainingSettings
from demur.optimization.methods import (
    DEFAULT,
    MethodSpec,
    get_method,
    method_choices,
    method_names,
)
from demur.optimization.preset_values import PRESETS, Preset, settled
from demur.optimization.validation import Pick
from demur.prompts import BUILT_IN_PROMPTS
from demur.settings import build

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

PAPER = "dro"
"""The method that the preset `paper` means."""

Own = TypeVar("Own", bound=BaseModel)


class OptimizeSettings(Group, Generic[Own]):
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
        >>> settings = OptimizeSettings.from_preset("quick", epochs=5, openings=4)
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
    preset: Preset = Field(
        default="standard",
        description="how much is trained and measured; quick is a trial, and paper repeats the "
        f"paper, with --method {PAPER} where none of its methods is named",
    )
    pick: Pick = Field(
        default="balanced",
        description="which prompt of the training is kept: the best one for --benign-budget "
        "(balanced), for a quarter of it (careful) or for four times as much (strict); a finished "
        "run can be picked again without training; only for methods that score refusals",
    )
    judge: str = Field(
        default="default",
        description="judge of refusal: default, paper, classifier:NAME, guard:NAME, "
        "endpoint:MODEL or FILE.py:NAME",
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
        description="seed of the random numbers: the same seed gives the same result",
    )
    queries: QuerySettings = QuerySettings()
    sampling: ResponseSettings = ResponseSettings()
    training: TrainingSettings = TrainingSettings()
    method_settings: Own

    @classmethod
    def from_preset(
        cls, name: str = "standard", /, method: MethodSpec | None = None, **changes: object
    ) -> OptimizeSettings[Any]:
        """The settings of a preset with some of them changed.

        Args:
            name: `standard`, `quick`, `thorough` or `paper`.
            method: method whose own settings are part of it; by default `likelihood`, and `dro`
                for the preset `paper`.
            **changes: values by the settings' names, for example `learning_rate=0.01`; for the
                method's own settings as well. `tokens` stands for `tokens_harmful` and
                `tokens_harmless`.

        Raises:
            DemurError: there is no such preset, method or setting, or a value is out of its range.
        """
        chosen = method_for(name, method)
        base = presets(chosen)[_known(name)]
        values = settled({"preset": name, **expanded(changes)})
        return build(settings_type(chosen), values, base)

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


def method_for(preset: str, method: MethodSpec | None = None) -> MethodSpec:
    """The method that a preset is used with.

    Args:
        preset: name of the preset, which need not exist.
        method: the method that was chosen; None where none was.

    Raises:
        DemurError: the preset is `paper`, and the method has no preset of this name.
    """
    if preset != "paper":
        return DEFAULT if method is None else method
    if method is None:
        return PAPER
    chosen = get_method(method)
    if preset not in chosen.presets:
        having = [name for name in method_names() if preset in get_method(name).presets]
        raise DemurError(
            f"The method {chosen.name!r} has no preset {preset!r}: give --method "
            f"{' or '.join(having)}, or another preset."
        )
    return method


def presets(method: MethodSpec = DEFAULT) -> dict[Preset, OptimizeSettings[Any]]:
    """The complete settings of every preset with a method; `standard`, the default, comes first.

    `paper` is among them only if the method says what it changes there.

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
        if name != "paper" or name in chosen.presets
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
    *others, last = PRESETS
    raise DemurError(
        f"There is no preset {name!r:.60}{did_you_mean(name, PRESETS)}: choose "
        f"{', '.join(others)} or {last}."
    )


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
