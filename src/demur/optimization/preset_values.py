"""What the presets change of the common settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Preset = Literal["standard", "quick", "paper"]

PRESETS: Mapping[Preset, Mapping[str, object]] = {
    "standard": {},
    "quick": {"epochs": 2, "most_anchors": 40, "most_held_out": 30},
    "paper": {
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
`docs/presets.md` says why, with figures."""


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
