"""The settings of `demur diagnose`, and its presets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from demur.optimization.groups import ResponseSettings
from demur.optimization.preset_values import PRESETS, Preset
from demur.plugins import is_plugin_spec
from demur.prompts import BUILT_IN_PROMPTS
from demur.settings import build, options_in

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

FOLDS = 10


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AnchorSettings(_Group):
    """Queries."""

    harmful: tuple[str, ...] = Field(
        default=("anchors",),
        min_length=1,
        description="harmful queries to look at, at least 10: anchors, FILE.txt, "
        "FILE:COLUMN (CSV, JSON, ...) or hf:ORG/NAME:COLUMN; several sets are joined",
    )
    harmless: tuple[str, ...] = Field(
        default=("anchors",), min_length=1, description="harmless queries to look at, likewise"
    )
    most_anchors: int | None = Field(
        default=None,
        ge=10,
        description="queries of each label, at most",
        json_schema_extra={"default": "all of them"},
    )


class NumberSettings(_Group):
    """Numbers."""

    components: int = Field(
        default=4, ge=2, le=10_000, description="principal components that the numbers use, m"
    )
    folds: int = Field(default=FOLDS, ge=2, le=1000, description="folds of the cross-validation")


class ProbeSettings(_Group):
    """Headroom."""

    headroom: bool = Field(
        default=True,
        description="fit a probe that measures how well the model's hidden states tell harmful "
        "from harmless queries",
    )
    probe_harmful: tuple[str, ...] = Field(
        default=("training",),
        min_length=1,
        description="harmful queries that the probe is fitted to, as for --harmful; those that are "
        "diagnosed are left out",
    )
    probe_harmless: tuple[str, ...] = Field(
        default=("training:borderline", "training:ordinary"),
        min_length=1,
        description="harmless queries that the probe is fitted to, likewise",
    )
    probe_queries: int = Field(
        default=400,
        ge=40,
        description="queries of both labels that the probe is fitted to, at most",
    )


class DiagnoseSettings(_Group):
    """How a model is diagnosed.

    The defaults are those of the preset `standard`. With a run, its queries, system prompt, judge
    and sampling are used, and only the prompts may be chosen.

    Attributes:
        prompt: safety prompts to look at, beside no prompt.
        run: folder of a finished run, or None.
        system_prompt: text file with the application's own system text, or None.
        preset: preset that the settings start from.
        judge: judge of refusal, as `as_refusal_judge` takes it.
        seed: seed of the sampling and the folds.
        queries: which queries are read.
        sampling: how responses are sampled.
        numbers: how the numbers are computed.
        probe: how the probe is fitted.
    """

    prompt: tuple[str, ...] = Field(
        default=("long", "short", "plain"),
        min_length=1,
        description=f"safety prompt to look at: {BUILT_IN_PROMPTS}, a text file, the folder of a "
        "run or of a saved prompt, or organisation/name on the hub",
    )
    run: str | None = Field(
        default=None,
        description="folder of a finished run, whose model, queries, system prompt, judge and "
        "sampling are used and whose optimized prompt is shown",
        json_schema_extra={"default": "none"},
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text",
        json_schema_extra={"default": "none"},
    )
    preset: Preset = Field(default="standard", description="settings to start from")
    judge: str = Field(
        default="default",
        description="refusal judge: default, paper, classifier:NAME, guard:NAME, endpoint:MODEL or "
        "FILE.py:NAME",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seed of the random numbers: the same seed gives the same result",
    )
    queries: AnchorSettings = AnchorSettings()
    sampling: ResponseSettings = ResponseSettings()
    numbers: NumberSettings = NumberSettings()
    probe: ProbeSettings = ProbeSettings()

    @property
    def protocol(self) -> Protocol:
        """How responses are sampled and counted."""
        return self.sampling.protocol(self.seed)

    @property
    def chosen(self) -> DiagnoseSettings:
        """The settings that a command must give: with a run, those that the run does not have."""
        if self.run is None:
            return self
        # Code that judged a run is only run where the user names it again.
        chosen = DiagnoseSettings(prompt=self.prompt, run=self.run, probe=self.probe)
        judge = self.judge if is_plugin_spec(self.judge) else chosen.judge
        return chosen.model_copy(update={"judge": judge})


def presets() -> dict[Preset, DiagnoseSettings]:
    """The complete settings of every preset; `standard`, the default, comes first."""
    known = {option.name for option in options_in(DiagnoseSettings)}
    return {
        name: build(
            DiagnoseSettings,
            {
                "preset": name,
                **{key: value for key, value in changes.items() if key in known},
            },
        )
        for name, changes in PRESETS.items()
    }
