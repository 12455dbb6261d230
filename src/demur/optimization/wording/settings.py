"""The settings of `demur optimize --method text`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from demur.endpoint import KEY_VARIABLE
from demur.evaluation.settings import (
    DEFAULT_TOKENS,
    MOST_SAMPLES,
    MOST_TOKENS,
    ServerSettings,
)
from demur.prompts import BUILT_IN_PROMPTS

TEXT = "text"
"""What this work is called where a method is named."""

KIND = "wording run"
"""What its folder holds."""

_SETS = "FILE.txt, FILE:COLUMN (CSV, JSON, ...) or hf:ORG/NAME:COLUMN; several are joined"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TargetSettings(ServerSettings):
    """The model."""


class ProposerSettings(_Group):
    """Proposer.

    Attributes:
        proposer_endpoint: address of the endpoint that proposes wordings.
        proposer_model: name of the model there.
        proposer_key_variable: environment variable that holds the key for it.
        proposer_tokens: largest number of tokens in a proposal, thoughts included.
        proposer_temperature: temperature of the proposals.
    """

    proposer_endpoint: str | None = Field(
        default=None,
        description="address of the endpoint whose model proposes wordings",
        json_schema_extra={"default": "that of --endpoint"},
    )
    proposer_model: str | None = Field(
        default=None,
        description="name of the model that proposes wordings",
        json_schema_extra={"default": "that of --served-model; the only one at another endpoint"},
    )
    proposer_key_variable: str = Field(
        default=KEY_VARIABLE,
        description="environment variable that holds the key for the proposer's endpoint",
    )
    proposer_tokens: int = Field(
        default=4000,
        ge=16,
        description="largest number of tokens in a proposal, thoughts included",
    )
    proposer_temperature: float = Field(
        default=1.0, ge=0, le=100, description="temperature of the proposals"
    )


class BudgetSettings(_Group):
    """Budget.

    Attributes:
        budget_calls: largest number of requests of the whole command.
        budget_tokens: largest number of tokens, read and written, of the whole command.
    """

    budget_calls: int = Field(
        default=2000,
        ge=1,
        le=10**9,
        description="requests of the whole command, at most: those to the model, the proposer and "
        "a judge behind an endpoint; a later command with more goes on",
    )
    budget_tokens: int = Field(
        default=1_000_000,
        ge=1,
        le=10**12,
        description="tokens of the whole command, at most, read and written together",
    )


class QuerySettings(_Group):
    """Queries.

    Attributes:
        harmful: queries that proposals look at.
        harmless: harmless queries, likewise.
        validation_harmful: queries that choose among the proposals.
        validation_harmless: harmless queries, likewise.
        held_out_harmful: queries that only the final measurement reads.
        held_out_harmless: harmless queries, likewise.
        most_training, most_validation, most_held_out: queries of each label, at most.
    """

    harmful: tuple[str, ...] = Field(
        default=("training",),
        min_length=1,
        description=f"harmful queries that the proposer learns from: training, {_SETS}",
    )
    harmless: tuple[str, ...] = Field(
        default=("training",),
        min_length=1,
        description="harmless queries that the proposer learns from, likewise",
    )
    validation_harmful: tuple[str, ...] = Field(
        default=("validation",),
        min_length=1,
        description="harmful queries that choose among the proposals: validation, or likewise",
    )
    validation_harmless: tuple[str, ...] = Field(
        default=("validation",),
        min_length=1,
        description="harmless queries that choose among the proposals, likewise",
    )
    held_out_harmful: tuple[str, ...] = Field(
        default=("test",),
        min_length=1,
        description="harmful queries that only the final measurement reads: test, or likewise",
    )
    held_out_harmless: tuple[str, ...] = Field(
        default=("test",),
        min_length=1,
        description="harmless queries that only the final measurement reads, likewise",
    )
    most_training: int = Field(
        default=100, ge=1, description="queries of each label that the proposer learns from"
    )
    most_validation: int = Field(
        default=40, ge=1, description="queries of each label that choose among the proposals"
    )
    most_held_out: int = Field(
        default=100, ge=1, description="queries of each label in the final measurement"
    )


class SearchSettings(_Group):
    """Search.

    Attributes:
        minibatch: pairs of a harmful and a harmless query that a proposal is made from.
        most_characters: largest number of characters in a prompt.
    """

    minibatch: int = Field(
        default=4,
        ge=1,
        description="pairs of a harmful and a harmless query that a proposal is made from",
    )
    most_characters: int = Field(
        default=3000, ge=1, description="characters in a prompt, at most; longer ones are dropped"
    )


class ResponseSettings(_Group):
    """Sampling.

    Attributes:
        samples: number of responses to each query.
        tokens: largest number of tokens in a response.
    """

    samples: int = Field(
        default=1, ge=1, le=MOST_SAMPLES, description="number of responses to each query"
    )
    tokens: int = Field(
        default=DEFAULT_TOKENS,
        ge=1,
        le=MOST_TOKENS,
        description="largest number of tokens in a response",
    )


class WordingSettings(_Group):
    """How the wording of a safety prompt is improved for a model behind an endpoint.

    Responses are sampled with temperature 1, top-p 0.9 and top-k 50, as `demur evaluate` does.

    Attributes:
        basic_prompt: name of the text to start from.
        system_prompt: text file with the application's own system text, or None.
        method: `text`.
        judge: judge of refusal, as `as_refusal_judge` takes it.
        base_url: address of the endpoint of a judge `endpoint:MODEL`, or None.
        seed: seed of the sampling and of the search.
        target: the model whose prompt is improved.
        proposer: the model that proposes wordings.
        budget: what the whole command may ask.
        queries: which queries are read.
        search: how proposals are made.
        sampling: how responses are sampled.

    Example:
        >>> WordingSettings().budget.budget_calls
        2000
    """

    basic_prompt: str = Field(
        default="long",
        description=f"where to start: {BUILT_IN_PROMPTS}, a text file, or a text prompt on the hub",
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, which stays as it is",
        json_schema_extra={"default": "none"},
    )
    method: Literal["text"] = Field(default="text", description="improve the wording of the prompt")
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
        default=0, ge=0, lt=2**32, description="seed of the sampling and of the search"
    )
    target: TargetSettings = TargetSettings()
    proposer: ProposerSettings = ProposerSettings()
    budget: BudgetSettings = BudgetSettings()
    queries: QuerySettings = QuerySettings()
    search: SearchSettings = SearchSettings()
    sampling: ResponseSettings = ResponseSettings()


def percent(share: float) -> str:
    """A share as people read it, for example `30.0 %`."""
    return f"{100 * share:.1f} %"
