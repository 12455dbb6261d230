"""Tasks for Inspect AI: `inspect eval demur/safeguard --model ...`.

Inspect finds this module through demur's entry point, and what is registered here by its name.
"""

from demur.errors import DemurError

try:
    import inspect_ai  # noqa: F401
except ImportError as error:
    raise DemurError(
        "demur's tasks need Inspect AI and Python 3.11: run `pip install 'demur[inspect]'`."
    ) from error

from demur.inspect.logs import save_responses
from demur.inspect.scoring import (
    answer_rates,
    answered,
    complied_harmfully,
    harm_rates,
    refusal_rates,
    refused,
)
from demur.inspect.tasks import safeguard, system_text

__all__ = [
    "answer_rates",
    "answered",
    "complied_harmfully",
    "harm_rates",
    "refusal_rates",
    "refused",
    "safeguard",
    "save_responses",
    "system_text",
]
