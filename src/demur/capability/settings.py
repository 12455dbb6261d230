"""Settings of a capability check, each with its description, range and default."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from demur.prompts import BUILT_IN_PROMPTS

DEFAULT_TASKS = ("arc_easy", "hellaswag")
LIMIT = 200
NEEDS_LM_EVAL = "A capability check needs lm-eval: run `pip install 'demur[lm-eval]'`."


class CapabilitySettings(BaseModel):
    """Which prompt is checked, and by which tasks.

    Attributes:
        prompt: safety prompt by name.
        tasks: names of tasks of lm-eval.
        limit: number of samples of each task.
        fewshot: number of solved examples before each sample; None for the task's own.
        include_path: folder with tasks of your own.
        system_prompt: file with the application's own system text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str = Field(
        description=f"folder of a run or of a safety prompt, {BUILT_IN_PROMPTS}, a text file, or "
        "organisation/name on the hub",
        json_schema_extra={"argument": True},
    )
    tasks: tuple[str, ...] = Field(
        default=DEFAULT_TASKS,
        min_length=1,
        description="name of a task of lm-eval, with multiple choice or with answers that are "
        "generated",
    )
    limit: int = Field(
        default=LIMIT, ge=1, description="samples of each task, from its beginning, at most"
    )
    fewshot: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="number of solved examples before each sample",
        json_schema_extra={"default": "the task's own"},
    )
    include_path: str | None = Field(
        default=None, description="folder with the YAML files of tasks of your own"
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
