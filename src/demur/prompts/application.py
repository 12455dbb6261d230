"""The application's own system text, behind which some prompts were trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.errors import DemurError
from demur.prompts.basic import load_system_prompt
from demur.prompts.safety_prompt import SafetyPrompt
from demur.records import NO_PROMPT, SETTINGS, ConditionRecord, format_of, read_record

_RUNS = ("run", "wording run")
"""What folders hold whose prompts were made behind a system text."""


@dataclass(frozen=True)
class _RunOpening:
    """The part of a run's settings that says what opened its conversations."""

    basic_prompt: ConditionRecord


@dataclass(frozen=True)
class SystemText:
    """The application's own system text for some prompts.

    Attributes:
        text: the text, or None for none.
        remark: what the user should know about it; empty for nothing.
    """

    text: str | None
    remark: str = ""


def trained_behind(choice: str | Path) -> str | None:
    """The application's own system text that a run's prompt was trained behind.

    Args:
        choice: name that the prompt is loaded by.

    Returns:
        None for a run without such a text, and for anything but the folder of a run.

    Raises:
        DemurError: the run's settings are damaged.
    """
    file = Path(choice) / SETTINGS
    try:
        kind = format_of(file) if file.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None
    if kind is None or kind not in _RUNS:
        return None
    return read_record(file, _RunOpening, kind).basic_prompt.system_prompt


def system_text_for(
    file: str | None,
    choices: Sequence[object],
    prompts: Sequence[SafetyPrompt | None],
) -> SystemText:
    """The application's own system text to use with some prompts.

    A text file that the user names wins. Without one, the text is taken over that the runs among
    the prompts were trained behind, because a prompt does less without it.

    Args:
        file: text file, `none` for no text, or None where the user chose nothing.
        choices: what each prompt was named by: a name, a path or an object.
        prompts: the prompts themselves.

    Raises:
        DemurError: the file cannot be read, or two runs were trained behind different texts.
    """
    known: dict[str, str] = {}
    without: list[str] = []
    for choice, prompt in zip(choices, prompts, strict=True):
        text = trained_behind(choice) if isinstance(choice, str | Path) else None
        if text is not None:
            known.setdefault(text, str(choice))
        elif prompt is not None and prompt.provenance.with_system_prompt:
            without.append(prompt.name)
    if file == NO_PROMPT:
        return SystemText(None)
    if file is not None:
        return SystemText(load_system_prompt(file))
    if len(known) > 1:
        first, second, *_ = known.values()
        raise DemurError(
            f"{first!r:.200} and {second!r:.200} were trained behind different system texts: give "
            "the one to use with --system-prompt, or --system-prompt none."
        )
    if known:
        ((text, name),) = known.items()
        return SystemText(
            text,
            f"Using the application's system text that {name:.200} was trained behind; for another "
            "one give --system-prompt FILE, for none --system-prompt none.",
        )
    if without:
        return SystemText(
            None,
            f"{without[0]:.200} was trained behind an application's system text, which is not part "
            "of the prompt and is not used here: give it with --system-prompt FILE.",
        )
    return SystemText(None)
