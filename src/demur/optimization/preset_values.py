"""What the presets change of the common settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Preset = Literal["standard", "quick", "thorough", "paper"]

ON_ANCHORS: Mapping[str, object] = {
    "harmful": ("anchors",),
    "harmless": ("anchors",),
    "most_anchors": None,
    "histories": 0.0,
    "applications": 0.0,
    "tools": 0.0,
    "held_out_harmful": ("held-out",),
    "held_out_harmless": ("held-out",),
    "epochs": 3,
    "epoch_size": None,
    "batch": 8,
    "learning_rate": 1e-3,
    "warm_up": 0.0,
}
"""What a method of the paper changes of the preset `standard`: it trains on pairs of queries, as
many of each label, and is measured on such pairs."""

PRESETS: Mapping[Preset, Mapping[str, object]] = {
    "standard": {},
    "quick": {"most_anchors": 40, "most_validation": 30, "most_held_out": 30, "third_turn": 15},
    "thorough": {
        "epochs": 20,
        "epoch_size": None,
        "batch": 48,
        "learning_rate": 3e-3,
        "most_anchors": None,
        "most_validation": None,
        "most_held_out": None,
    },
    "paper": {
        **ON_ANCHORS,
        "judge": "paper",
        "most_held_out": None,
        "third_turn": 0,
        "samples": 25,
        "kept_samples": 20,
        "tokens_harmful": 300,
        "tokens_harmless": 200,
        "least_tokens": 10,
        "cut_unfinished": True,
        "epochs": 40,
        "batch": 50,
        "learning_rate_decay": False,
        "balanced_batches": False,
        "averaged_prompt": False,
    },
}
"""What each preset changes of the common settings; a method's `presets` add its own.
`docs/presets.md` says why."""


def settled(values: Mapping[str, object]) -> dict[str, object]:
    """Values by name, with what a preset limits made as small as chosen values need it.

    For example, with 5 samples the preset `paper` keeps 5 and not 20. What was chosen itself is
    left as it is, and is refused where it does not fit.

    Args:
        values: all values that were chosen, `preset` among them unless it is the standard one.
    """
    found = dict(values)
    preset = next((one for name, one in PRESETS.items() if name == values.get("preset")), {})
    for limited, limits in (
        ("kept_samples", ("samples",)),
        ("least_tokens", ("tokens_harmful", "tokens_harmless")),
    ):
        most, chosen = preset.get(limited), [found[name] for name in limits if name in found]
        if limited in found or not isinstance(most, int):
            continue
        numbers = [int(str(one)) for one in chosen if str(one).isdecimal()]
        if min([most, *numbers]) < most:
            found[limited] = min(numbers)
    return found
