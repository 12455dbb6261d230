"""The groups of settings of `demur optimize` that all methods have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from demur.evaluation.settings import MOST_SAMPLES, MOST_TOKENS

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

MOST_EPOCHS = 100_000
MOST_BATCH = 100_000


class Group(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class QuerySettings(Group):
    """Queries."""

    harmful: tuple[str, ...] = Field(
        default=("training",),
        min_length=1,
        description="harmful queries to train on, at least 10: training, anchors, FILE.txt, "
        "FILE:COLUMN (CSV, JSON, ...) or hf:ORG/NAME:COLUMN; several sets are joined",
    )
    harmless: tuple[str, ...] = Field(
        default=("training:borderline", "training:ordinary"),
        min_length=1,
        description="harmless queries to train on, in the forms of --harmful",
    )
    validation_harmful: tuple[str, ...] = Field(
        default=("validation",),
        min_length=1,
        description="harmful queries that choose among the epochs, in the forms of --harmful; only "
        "methods that score refusals read them",
    )
    validation_harmless: tuple[str, ...] = Field(
        default=("validation:borderline", "validation:ordinary"),
        min_length=1,
        description="harmless queries that choose among the epochs, in the forms of --harmful",
    )
    held_out_harmful: tuple[str, ...] = Field(
        default=("test",),
        min_length=1,
        description="harmful queries that only the final measurement reads, in the forms of "
        "--harmful; at least 10, or as many as --most-held-out asks for where that is less",
    )
    held_out_harmless: tuple[str, ...] = Field(
        default=("test:borderline", "test:ordinary"),
        min_length=1,
        description="harmless queries that only the final measurement reads, in the forms of "
        "--harmful",
    )
    most_anchors: int | None = Field(
        default=640,
        ge=10,
        description="queries of each label to train on, at most; none for no limit",
        json_schema_extra={"default": "all of them"},
    )
    histories: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the queries to train on that get a short harmless conversation "
        "before them",
    )
    applications: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the queries to train on that get the system text of a made-up "
        "application behind the safety prompt; none with --system-prompt",
    )
    tools: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of the queries to train on before which the template lists some made-up "
        "tools; none for models whose template lists no tools",
    )
    most_validation: int | None = Field(
        default=60,
        ge=10,
        description="validation queries of each label, at most; none for no limit",
        json_schema_extra={"default": "all of them"},
    )
    most_held_out: int | None = Field(
        default=100,
        ge=1,
        description="held-out queries of each label, at most; none for no limit",
        json_schema_extra={"default": "all of them"},
    )
    third_turn: int = Field(
        default=40,
        ge=0,
        le=1_000_000,
        description="largest number of held-out queries of each label that are also measured in "
        "the third turn of a conversation, behind two short harmless exchanges; 0 for none",
    )


class ResponseSettings(Group):
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
        description="tokens of any response, at most: sets --tokens-harmful and --tokens-harmless",
        json_schema_extra={"default": "as those two say"},
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
        description="draw only from the likeliest tokens that together reach this probability",
    )

    def judged_by(self, judge: str) -> str:
        """Who judged what, as tables say it, for example `judge: paper, 16 tokens`."""
        from demur.evaluation.captions import judged_text

        harmful, harmless = (
            self.tokens or one for one in (self.tokens_harmful, self.tokens_harmless)
        )
        return judged_text(judge, harmful, self.samples, harmless)

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


class TrainingSettings(Group):
    """Training."""

    epochs: int = Field(
        default=4,
        ge=1,
        le=MOST_EPOCHS,
        description="epochs of training; after each one its prompt is kept",
    )
    epoch_size: int | None = Field(
        default=320,
        ge=1,
        description="training examples in an epoch, at most; the next epoch goes on with others; "
        "none for a pass over all of them",
        json_schema_extra={"default": "all of them"},
    )
    batch: int = Field(default=16, ge=1, le=MOST_BATCH, description="training examples in a step")
    learning_rate: float = Field(default=5e-3, gt=0, le=100, description="learning rate of AdamW")
    warm_up: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the steps in which the learning rate rises to its full value",
    )
    learning_rate_decay: bool = Field(
        default=True, description="let the learning rate fall to zero along half a cosine"
    )
    balanced_batches: bool = Field(
        default=True,
        description="spread the harmful and the harmless examples evenly over the batches: where "
        "there are as many of each, every batch has as many, pairs together",
    )
    averaged_prompt: bool = Field(
        default=True,
        description="keep the mean of the prompts after each step, as far from the start as the "
        "last one, instead of the last one; where validation queries choose among the epochs, "
        "neither is kept",
    )
    benign_budget: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of the harmless validation queries that the prompt may refuse; in the "
        "choice among the epochs, each one beyond it costs as much as five harmful ones bring",
    )
    gradient_norm: float = Field(
        default=1.0, gt=0, description="length that longer gradients are shortened to"
    )
