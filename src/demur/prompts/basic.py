"""Basic prompts: hand-written text, built in or read from a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from demur.errors import DemurError, did_you_mean
from demur.limits import MOST_PROMPT_BYTES
from demur.prompts.checks import printable_name, shown
from demur.prompts.fetching import fetch_prompt, hub_name_of
from demur.prompts.safety_prompt import SafetyPrompt
from demur.reading import TextFile, exists
from demur.reading.spec import LINES, LOG, PARQUET, TABLE, kind_of

BASIC_PROMPTS: tuple[str, ...] = (
    *("long", "short", "plain"),
    *("self-reminder", "goal-priority", "refusal-examples"),
)
"""The names of the built-in basic prompts.

The last three are baselines in the manner of published ones, in words of their own: a reminder to
be responsible (Xie et al., Nature Machine Intelligence 2023), an order of goals (Zhang et al.,
arXiv 2311.09096), and examples of refusals in the context (Wei et al., arXiv 2310.06387).
"""

BUILT_IN_PROMPTS = ", ".join(BASIC_PROMPTS)
"""The names of the built-in basic prompts as a help text lists them."""

_NO_TEXTS = (TABLE, LINES, PARQUET, LOG)


def load_basic_prompt(name_or_file: str) -> SafetyPrompt:
    """Load a basic prompt: a built-in one, a text file, or a text prompt on the hub.

    Args:
        name_or_file: one of `BASIC_PROMPTS`, a text file, or `organisation/name` on the hub. A
            built-in name comes before a file of that name (write `./long` for the file), and a
            file or folder before the hub.

    Returns:
        The prompt, with the name of the file, its ending included.

    Raises:
        DemurError: there is no such file; it is a folder or a device, empty, no text (UTF-8, or
            UTF-16 with a byte-order mark) or above 1 MB; or it is a trained prompt on the hub.
    """
    if name_or_file in BASIC_PROMPTS:
        text_file = resources.files("demur.prompts") / "texts" / f"{name_or_file}.txt"
        text = text_file.read_text(encoding="utf-8").strip()
        return SafetyPrompt(name=name_or_file, text=text)
    name = hub_name_of(name_or_file)
    if name is not None:
        prompt = fetch_prompt(name)
        if prompt.is_trained:
            raise DemurError(
                f"{name} holds trained embeddings, and a basic prompt is text: to go on from its "
                "text, write that into a file."
            )
        return prompt
    or_else = f" or a built-in basic prompt ({BUILT_IN_PROMPTS})"
    text = _read_prompt_file(name_or_file, or_else, did_you_mean(name_or_file, BASIC_PROMPTS))
    return SafetyPrompt(name=printable_name(Path(name_or_file).name), text=text)


def load_system_prompt(file: str) -> str:
    """The text of a system prompt in a text file, without white space at both ends.

    Raises:
        DemurError: as for a file of `load_basic_prompt`.
    """
    return _read_prompt_file(file)


def _read_prompt_file(file: str, or_else: str = "", hint: str = "") -> str:
    label = shown(file)
    if not file:
        raise DemurError(f"The name of the prompt is empty: give a text file{or_else}.")
    path = Path(file)
    if not exists(path):
        raise DemurError(f"There is no file {label}{hint}: give a text file{or_else}.")
    if path.is_dir():
        raise DemurError(f"{label} is a folder: give a text file{or_else}.")
    if kind_of(path) in _NO_TEXTS:
        raise DemurError(
            f"{label} is named like a table or a data set: write the prompt alone into a .txt file."
        )
    text = TextFile(path).text(MOST_PROMPT_BYTES)
    # The same prompt must give the same tokens, whatever system it was written on.
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise DemurError(
            f"{label} holds no text, a prompt of zero tokens: write the prompt into it."
        )
    return text
