"""Settings of a gate, each with its description, range and default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Undecided = Literal["fail", "pass"]
UnreadChoice = Literal["count", "leave-out"]


class CheckSettings(BaseModel):
    """Gate: exit status 1 where a check fails.

    Attributes:
        require: requirements.
        fail_if_worse: whether a result that is worse than the baseline fails.
        candidate: prompt that the gate is about.
        baseline_prompt: prompt of the baseline that it is compared with.
        undecided: what an undecided check does.
        unread: what becomes of responses without an answer or a verdict.
        listed: number of changed queries that are named.
        summary: Markdown file to write.
        junit: JUnit file to write.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    require: tuple[str, ...] = Field(
        default=(),
        description="requirement on a 95 % interval, for example 'harmful>=90%', "
        "'borderline<=10%', 'xstest:harmless@long<=5%', 'kl(harmless)<=0.2'",
        json_schema_extra={"default": "no requirement"},
    )
    fail_if_worse: bool = Field(
        default=False,
        description="fail where the candidate is worse than the baseline by more than chance",
    )
    candidate: str | None = Field(
        default=None,
        description="prompt that the gate is about",
        json_schema_extra={"default": "the last one", "keeps_none": True},
    )
    baseline_prompt: str | None = Field(
        default=None,
        description="prompt of the baseline that the candidate is compared with",
        json_schema_extra={
            "default": "the one of the same name, else the last",
            "keeps_none": True,
        },
    )
    undecided: Undecided = Field(
        default="fail",
        description="what a check does where there are too few queries or verdicts to decide it",
    )
    unread: UnreadChoice = Field(
        default="count",
        description="count responses without an answer or a verdict against the prompt, or leave "
        "them out",
    )
    listed: int = Field(
        default=5,
        ge=0,
        le=10_000,
        description="number of changed queries to list, for each set and direction",
    )
    summary: Path | None = Field(default=None, description="Markdown file to write")
    junit: Path | None = Field(default=None, description="JUnit XML file to write")


class GateSettings(CheckSettings):
    """Gate: exit status 1 where a check fails.

    Attributes:
        baseline: folder of an earlier evaluation.
    """

    baseline: Path | None = Field(
        default=None,
        description="folder of an earlier evaluation of the same queries to compare with",
    )
