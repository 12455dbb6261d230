"""What is checked, chosen and found out before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from demur.capability.settings import NEEDS_LM_EVAL, CapabilitySettings
from demur.errors import DemurError
from demur.evaluation.choices import choose_prompts
from demur.progress import Progress
from demur.prompts import Condition, SafetyPrompt, distinct_names, system_text_for
from demur.records import kind_of

if TYPE_CHECKING:
    from demur.capability.harness import Harness
    from demur.optimization import Run


@dataclass(frozen=True)
class CapabilityPlan:
    """A check that is planned.

    Attributes:
        settings: the settings by name.
        conditions: no prompt, and the prompt.
        names: a name for each.
        harness: the tasks.
        run: the run that the prompt is from, or None.
    """

    settings: CapabilitySettings
    conditions: tuple[Condition, Condition]
    names: tuple[str, str]
    harness: Harness
    run: Run | None


def make_plan(
    settings: CapabilitySettings, progress: Progress, prompt: SafetyPrompt | None = None
) -> CapabilityPlan:
    """Read and check what the settings name, before anything slow.

    Args:
        settings: settings by name.
        progress: reports whose system text is taken over.
        prompt: safety prompt in place of the one that the settings name.

    Raises:
        DemurError: lm-eval is not installed, a task or the prompt cannot be had, or there is no
            prompt.
    """
    _require_lm_eval()
    run = None if prompt is not None else _run(settings.prompt)
    if run is not None:
        prompt = run.safety_prompt
    elif prompt is None:
        (prompt,) = choose_prompts([settings.prompt])
    if prompt is None:
        raise DemurError(
            "No prompt changes nothing: name the safety prompt whose cost is to be checked."
        )
    system = system_text_for(settings.system_prompt, [settings.prompt], [prompt])
    if system.remark:
        progress.message(system.remark)
    from demur.capability.harness import Harness  # slow: behind the mistakes in names

    harness = Harness(settings.include_path)
    harness.check(settings.tasks)
    before, after = Condition(None, system.text), Condition(prompt, system.text)
    first, second = distinct_names([before, after])
    return CapabilityPlan(settings, (before, after), (first, second), harness, run)


def _require_lm_eval() -> None:
    """Say at once that lm-eval is missing; importing it takes seconds.

    Raises:
        DemurError: it is not installed.
    """
    try:
        missing = find_spec("lm_eval") is None
    except ValueError:  # an entry of sys.modules that is no module
        missing = True
    if missing:
        raise DemurError(NEEDS_LM_EVAL)


def _run(name: str) -> Run | None:
    """The finished run in a folder; None where it holds no run."""
    if kind_of(Path(name)) != "run":
        return None
    from demur.optimization import Run

    return Run.load(name)
