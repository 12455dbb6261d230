"""Settings of attacks, each with its description, range and default."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from demur.attacks.registry import TEMPLATES
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.settings import WorkLoadSettings
from demur.evaluation.settings import (
    DEFAULT_TOKENS,
    MOST_TOKENS,
    WHOLE_TOKENS,
    EvaluateSettings,
    HarmJudgeName,
    JudgeAddress,
    JudgeSettings,
    QuerySettings,
    RefusalJudgeName,
    ResponseSettings,
    SampleCount,
)
from demur.prompts import BUILT_IN_PROMPTS

TEST_SET = "test"
"""The built-in set whose harmful queries are attacked; no prompt is trained on it."""

LIMIT = 50

TableFormat: TypeAlias = Literal["table", "json", "csv"]
"""How a command prints the rates: for people, or as rows for other tools."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttackedQueries(_Group):
    """Queries."""

    harmful: tuple[str, ...] = Field(
        default=(TEST_SET,),
        min_length=1,
        description="harmful queries to attack: test, held-out, FILE.txt, FILE:COLUMN (CSV, "
        "JSON, ...) or hf:ORG/NAME:COLUMN; several sets are joined",
    )
    limit: int = Field(
        default=LIMIT,
        ge=1,
        description="largest number of queries; each set gives an equal share, from its beginning",
    )


class AttackJudges(_Group):
    """Judges."""

    judge: RefusalJudgeName = "default"
    harm_judge: HarmJudgeName = None
    base_url: JudgeAddress = None


class AttackSampling(_Group):
    """Sampling."""

    samples: SampleCount = 1
    tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="largest number of tokens in a response",
        json_schema_extra={"default": f"{DEFAULT_TOKENS}; {WHOLE_TOKENS} with a judge of harm"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seed of the sampling and of the search for suffixes",
    )


class GcgSettings(_Group):
    """GCG, the attack that searches a suffix for each query and prompt."""

    gcg_queries: int = Field(
        default=10, ge=1, description="queries to search suffixes for, from the first one on"
    )
    gcg_steps: int = Field(
        default=20, ge=1, le=100_000, description="steps of the search for each suffix"
    )
    gcg_width: int = Field(
        default=64, ge=1, le=100_000, description="candidates that each step tries"
    )


class AttackedModel(WorkLoadSettings):
    """The model and the machine."""

    model: str | None = Field(
        default=None,
        description="hub name (ORG/NAME, with @REVISION or :Q4_K_M), local folder, GGUF file or "
        "catalog name of the model",
        json_schema_extra={"default": f"the model of RUN, else {DEFAULT_MODEL}"},
    )


class AttackSettings(_Group):
    """What is attacked, and how.

    Attributes:
        run: folder of a finished run whose prompts are attacked.
        attack: attacks by name.
        prompt: safety prompts by name, where there is no run.
        system_prompt: file with the application's own system text, `none` for no text, or None for
            that of a run.
        queries: harmful queries by name.
        judges: judges by name.
        sampling: how responses are sampled.
        gcg: how suffixes are searched.
    """

    run: str | None = Field(
        default=None,
        description="folder of a finished run: no prompt, its basic prompt and its optimized "
        "prompt are attacked",
        json_schema_extra={"argument": True, "default": "the prompts of --prompt"},
    )
    attack: tuple[str, ...] = Field(
        default=(),
        description=f"attack: {', '.join(TEMPLATES)}, gcg (needs demur[gcg]) or FILE.py:CLASS",
        json_schema_extra={"default": "all but gcg"},
    )
    prompt: tuple[str, ...] = Field(
        default=(),
        description=f"safety prompt: none, {BUILT_IN_PROMPTS}, a text file, the folder of a run or "
        "of a safety prompt, or organisation/name on the hub",
        json_schema_extra={"default": "those of RUN, else none and long; of a server none"},
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, which follows the safety "
        "prompt, or none",
        json_schema_extra={
            "default": "the one that the run was trained behind",
            "keeps_none": True,
        },
    )
    queries: AttackedQueries = AttackedQueries()
    judges: AttackJudges = AttackJudges()
    sampling: AttackSampling = AttackSampling()
    gcg: GcgSettings = GcgSettings()

    @property
    def as_evaluation(self) -> EvaluateSettings:
        """The settings of an evaluation that measures the same prompts."""
        judges, sampling = self.judges, self.sampling
        return EvaluateSettings(
            prompt=self.prompt,
            system_prompt=self.system_prompt,
            queries=QuerySettings(harmful=self.queries.harmful),
            judges=JudgeSettings(
                judge=judges.judge, harm_judge=judges.harm_judge, base_url=judges.base_url
            ),
            sampling=ResponseSettings(
                samples=sampling.samples, tokens=sampling.tokens, seed=sampling.seed
            ),
        )
