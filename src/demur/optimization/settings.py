"""Every setting of `demur optimize`, and the presets."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from demur.chat.engine import SamplingSettings
from demur.errors import DemurError
from demur.evaluation.measuring import Protocol
from demur.geometry import LossWeights
from demur.optimization.training import TrainingSettings


class OptimizeSettings(BaseModel):
    """How a prompt is optimized. The defaults are those of the paper (preset `paper`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchor_prompts: tuple[str, ...] = Field(
        ("long", "short", "plain"),
        description="basic prompts under which anchors are read, beside none and the chosen one",
    )
    most_anchors: int | None = Field(
        None, ge=10, description="anchor queries of each label at most; all of them by default"
    )
    most_held_out: int | None = Field(
        None, ge=1, description="held-out queries of each label at most; all of them by default"
    )
    components: int = Field(4, ge=1, description="m, the principal components")
    folds: int = Field(10, ge=2, description="folds that the regressions are averaged over")
    weight_refusal: float = Field(1.0, ge=0, description="weight of L_r")
    weight_harmfulness: float = Field(0.01, ge=0, description="weight of L_h")
    weight_complement: float = Field(0.001, ge=0, description="weight of L_U")
    weight_harmless: float = Field(
        1.0, ge=0, description="weight of a harmless query against a harmful one"
    )
    epochs: int = Field(40, ge=1, description="passes over the anchor queries")
    batch: int = Field(50, ge=1, description="queries a training step")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    learning_rate_decay: bool = Field(False, description="let the rate fall along half a cosine")
    balanced_batches: bool = Field(False, description="give every batch equal shares of the labels")
    averaged_prompt: bool = Field(
        False,
        description="keep the mean of the prompts after each step, as far from the start as the "
        "last one, not the last one itself",
    )
    reanchor_every: int = Field(
        0,
        ge=0,
        description="epochs after which the directions are estimated anew, with the anchors' "
        "responses under the prompt so far; 0 for never",
    )
    gradient_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to it")
    samples: int = Field(25, ge=1, description="responses sampled for each query")
    kept_samples: int | None = Field(
        20, ge=1, description="how many of them count, the longest first; all by default"
    )
    tokens_harmful: int = Field(300, ge=1, description="tokens of a response to a harmful query")
    tokens_harmless: int = Field(200, ge=1, description="tokens of a response to a harmless query")
    least_tokens: int = Field(10, ge=0, description="tokens before a response may end")
    cut_unfinished: bool = Field(True, description="cut the last paragraph of a full response")
    temperature: float = Field(1.0, ge=0, description="of the sampling; 0 takes the likeliest")
    top_k: int = Field(50, ge=0, description="likeliest tokens that may be drawn; 0 for all")
    top_p: float = Field(0.9, gt=0, le=1, description="probability they may reach together")
    seed: int = Field(0, ge=0, description="of sampling, folds and training order")
    judge: str = Field("paper", description="the refusal judge")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> OptimizeSettings:
        """The settings of a preset with some of them changed; None changes nothing.

        Raises:
            DemurError: there is no such preset, or a value is out of its range.
        """
        if name not in PRESETS:
            raise DemurError(f"There is no preset {name!r}: choose {', '.join(PRESETS)}.")
        chosen = {key: value for key, value in overrides.items() if value is not None}
        merged = {**PRESETS[name], **chosen}
        if "samples" in chosen and "kept_samples" not in chosen:
            merged["kept_samples"] = None
        try:
            return cls(**merged)
        except ValidationError as error:
            first = error.errors()[0]
            option = "--" + str(first["loc"][0]).replace("_", "-")
            raise DemurError(f"{option} {first['input']}: {first['msg'].lower()}.") from None

    @property
    def protocol(self) -> Protocol:
        """How responses are sampled and counted."""
        return Protocol(
            sampling=SamplingSettings(
                samples=self.samples,
                most_tokens=max(self.tokens_harmful, self.tokens_harmless),
                least_tokens=self.least_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=self.seed,
            ),
            tokens_harmful=self.tokens_harmful,
            tokens_harmless=self.tokens_harmless,
            kept=min(self.kept_samples or self.samples, self.samples),
            cut_unfinished=self.cut_unfinished,
        )

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the three terms."""
        return LossWeights(self.weight_refusal, self.weight_harmfulness, self.weight_complement)

    @property
    def training(self) -> TrainingSettings:
        """How the prompt is trained."""
        return TrainingSettings(
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            decay=self.learning_rate_decay,
            gradient_norm=self.gradient_norm,
            balanced=self.balanced_batches,
            averaged=self.averaged_prompt,
            seed=self.seed,
        )


_SHORT_RESPONSES: dict[str, Any] = {
    "samples": 1,
    "kept_samples": None,
    "tokens_harmful": 16,
    "tokens_harmless": 16,
    "least_tokens": 0,
    "cut_unfinished": False,
}

_REANCHORED: dict[str, Any] = {
    "anchor_prompts": (),
    "epochs": 3,
    "batch": 8,
    "balanced_batches": True,
    "reanchor_every": 1,
    "learning_rate_decay": True,
    "averaged_prompt": True,
    "weight_complement": 0.005,
}

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        **_SHORT_RESPONSES,
        **_REANCHORED,
        "epochs": 2,
        "most_anchors": 40,
        "most_held_out": 30,
    },
    "standard": {**_SHORT_RESPONSES, **_REANCHORED},
    "paper": {},
}
"""What each preset changes; `docs/presets.md` says why, with figures."""
