"""Settings of an evaluation, each with its description, range and default."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from demur.prompts import BUILT_IN_PROMPTS
from demur.queries.turns import FIRST, TURNS

DEFAULT_TOKENS = 64
WHOLE_TOKENS = 300
"""Largest number of tokens where whole responses are needed: for their harm, or as outputs."""

MOST_SAMPLES, MOST_TOKENS = 10_000, 100_000
"""What a query may have, for every command that samples responses."""

BUILT_IN_SET = "held-out"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class QuerySettings(_Group):
    """Queries."""

    suite: str | None = Field(
        default=None,
        description="name of a built-in suite of queries: standard, with 100 harmful, 100 "
        "borderline and 100 ordinary ones",
    )
    benchmark: tuple[str, ...] = Field(
        default=(),
        description="name of a public benchmark, see `demur benchmarks`",
    )
    harmful: tuple[str, ...] = Field(
        default=(),
        description="harmful queries: held-out, FILE.txt, FILE:COLUMN (CSV, JSON, ...) or "
        "hf:ORG/NAME:COLUMN; each set has rates of its own",
        json_schema_extra={"default": "held-out where nothing is named"},
    )
    harmless: tuple[str, ...] = Field(
        default=(),
        description="harmless queries, in the forms of --harmful; a harmful and a harmless set of "
        "one source are one set with both labels",
        json_schema_extra={"default": "held-out where nothing is named"},
    )
    turn: tuple[int, ...] = Field(
        default=(FIRST,),
        description="turn of a conversation in which the queries are measured, 1 or 3: in the "
        "third, two short harmless exchanges stand before each query; each turn has rates of its "
        "own",
    )
    tools: str | None = Field(
        default=None,
        description="JSON file with the tools of an application, as in a request to a server, or "
        "built-in for made-up ones: the template lists them before every query",
    )
    benchmark_dir: str | None = Field(
        default=None, description="folder with the files of benchmarks; nothing is downloaded then"
    )
    instructions: str | None = Field(
        default=None,
        description="ordinary instructions, built-in or as --harmless: the outputs under every "
        "prompt are written as alpaca_eval reads them",
    )

    @field_validator("turn")
    @classmethod
    def _known_turns(cls, turns: tuple[int, ...]) -> tuple[int, ...]:
        if not turns or not set(turns) <= set(TURNS) or len(set(turns)) < len(turns):
            raise ValueError(f"must be {' or '.join(map(str, TURNS))}, each at most once")
        return turns


RefusalJudgeName: TypeAlias = Annotated[
    str,
    Field(
        description="judge of refusal: default, paper, classifier:NAME, guard:NAME, "
        "endpoint:MODEL or FILE.py:NAME"
    ),
]
HarmJudgeName: TypeAlias = Annotated[
    str | None,
    Field(
        description="judge of harm, which says which answers are unsafe: guard:NAME_OR_FOLDER, "
        "endpoint:MODEL or FILE.py:NAME"
    ),
]
JudgeAddress: TypeAlias = Annotated[
    str | None,
    Field(
        description="address of the judges' endpoint, for example http://localhost:8000/v1",
        json_schema_extra={"default": "OPENAI_BASE_URL, else OpenAI's own"},
    ),
]
SampleCount: TypeAlias = Annotated[
    int, Field(ge=1, le=MOST_SAMPLES, description="number of responses to each query")
]


class JudgeSettings(_Group):
    """Judges."""

    judge: RefusalJudgeName = "default"
    other_judge: tuple[str, ...] = Field(
        default=(),
        description="further judge of refusal, as --judge; its agreement with --judge is shown, "
        "and the rates do not change",
    )
    harm_judge: HarmJudgeName = None
    preference_judge: str | None = Field(
        default=None,
        description="judge that compares the outputs for --instructions under each prompt with "
        "those without one: endpoint:MODEL",
    )
    base_url: JudgeAddress = None


class AmountSettings(_Group):
    """Sampling."""

    samples: SampleCount = 1
    tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="largest number of tokens in a response; what a prompt costs is measured "
        "along 64 in any case",
        json_schema_extra={
            "default": f"{DEFAULT_TOKENS}; {WHOLE_TOKENS} with a judge of harm and for instructions"
        },
    )


class ResponseSettings(AmountSettings):
    """Sampling."""

    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="seed of the sampling: the same seed gives the same responses",
    )


class EvaluateSettings(_Group):
    """What is evaluated, and how. Temperature 1, top-p 0.9 and top-k 50, as in the paper.

    Attributes:
        prompt: safety prompts by name.
        system_prompt: file with the application's own system text, `none` for no text, or None for
            that of a run among the prompts.
        queries: query sets and instructions by name.
        judges: judges by name.
        sampling: how responses are sampled.
    """

    prompt: tuple[str, ...] = Field(
        default=(),
        description=f"safety prompt: none, {BUILT_IN_PROMPTS}, a text file, the folder of a run or "
        "of a safety prompt, or organisation/name on the hub",
        json_schema_extra={"default": "none and long; of a server none"},
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, which follows the safety "
        "prompt, or none",
        json_schema_extra={
            "default": "the one that a run in --prompt was trained behind",
            "keeps_none": True,
        },
    )
    queries: QuerySettings = QuerySettings()
    judges: JudgeSettings = JudgeSettings()
    sampling: ResponseSettings = ResponseSettings()

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens in a response to a query."""
        whole = self.judges.harm_judge is not None
        return self.sampling.tokens or (WHOLE_TOKENS if whole else DEFAULT_TOKENS)

    @property
    def output_tokens(self) -> int:
        """The largest number of tokens in an output for an instruction."""
        return self.sampling.tokens or WHOLE_TOKENS


class ServerSettings(_Group):
    """A server instead of a model.

    Attributes:
        endpoint: address of the server.
        served_model: name of the model there.
        concurrency: number of requests under way at once.
        timeout: seconds to wait for an answer.
        retries: number of repetitions of a request that failed.
    """

    endpoint: str | None = Field(
        default=None,
        description="address of an OpenAI-compatible server, for example http://localhost:8000/v1; "
        "needs demur[endpoint]",
    )
    served_model: str | None = Field(
        default=None,
        description="name of the model at the server",
        json_schema_extra={"default": "the only one there"},
    )
    concurrency: int = Field(
        default=8, ge=1, le=1000, description="number of requests under way at once"
    )
    timeout: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        description="seconds to wait for a whole answer",
    )
    retries: int = Field(
        default=4,
        ge=0,
        le=100,
        description="number of times that a failed request is repeated",
    )


class FileSettings(_Group):
    """Responses that exist already.

    Attributes:
        responses: files of responses.
    """

    responses: tuple[str, ...] = Field(
        default=(),
        description="file whose responses are judged instead, FILE or FILE:COLUMN (CSV, JSON, "
        "outputs of other tools) or hf:ORG/NAME:COLUMN; no model runs",
    )
