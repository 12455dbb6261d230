"""How often attacks succeed under no prompt, a basic prompt and an optimized one.

    python benchmarks/attacks.py RUN [--limit 100] [--tokens 64] [--attack NAME ...]
    python benchmarks/attacks.py --prompt none --prompt long --prompt FOLDER --model MODEL

Does what `demur attack` does, in the folder `demur-attacks/NAME` of the working directory, where it
goes on after an interruption. Prints the table as Markdown for `docs/attack.md`, and keeps the
rates, the paired differences and the versions in `benchmarks/results/attacks-MODEL.json`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from common import run, write_results
from demur import ChatModel, Robustness, Run, attack
from demur.attacks import NO_ATTACK
from demur.chat.chosen import load_chosen
from demur.chat.settings import LoadSettings
from demur.cli.stages import TerminalProgress
from demur.evaluation.answerers.records import short_name
from demur.records import Rate


def main() -> None:
    """Attack, print and keep."""
    arguments = _arguments()
    progress = TerminalProgress()
    settings: dict[str, Any] = {"limit": arguments.limit, "tokens": arguments.tokens}
    if arguments.run is not None:
        settings["run"] = found = Run.load(arguments.run)
        model = load_chosen(LoadSettings().like(found.settings.load), progress)
    else:
        settings["prompts"] = arguments.prompt
        model = ChatModel.load(*filter(None, [arguments.model]), progress=progress)
    robustness = attack(
        model,
        attacks=arguments.attack or None,
        harm_judge=arguments.harm_judge,
        output=arguments.output,
        progress=progress,
        **settings,
    )
    print(markdown(robustness))
    write_results(f"attacks-{model.name}", results(robustness))


def markdown(robustness: Robustness) -> str:
    """The table of success rates."""
    prompts = robustness.prompts
    lines = [f"| attack | {' | '.join(prompts)} |", f"|---|{'---|' * len(prompts)}"]
    for name in robustness.attacks:
        star = " *" if name in robustness.disguising else ""
        cells = [_percent(robustness.success(name, prompt)) for prompt in prompts]
        shown = name if name == NO_ATTACK else f"`{name}`{star}"
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *robustness.verdict])


def results(robustness: Robustness) -> dict[str, Any]:
    """What is kept: every rate and difference, and what they belong to."""
    record = robustness.settings
    return {
        "model": short_name(record.answerer),
        "prompts": [asdict(one) for one in record.conditions],
        "queries": asdict(record.queries),
        "judge": record.judge.name,
        "harm_judge": None if record.harm_judge is None else record.harm_judge.name,
        "tokens": record.most_tokens,
        "samples": record.settings.sampling.samples,
        "gcg": record.settings.gcg.model_dump() if record.with_gcg else None,
        "rates": robustness.rows(),
        "between_prompts": [asdict(one) for one in robustness.between_prompts],
        "by_attacks": [asdict(one) for one in robustness.by_attacks],
        "left_out": [asdict(one) for one in robustness.left_out],
        "verdict": robustness.verdict,
        "versions": asdict(robustness.figures.versions),
    }


def _percent(rate: Rate | None) -> str:
    if rate is None:
        return "no verdict"
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.0f} % ({low:.0f} to {high:.0f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", nargs="?", help="folder of a finished run")
    parser.add_argument("--prompt", action="append", default=[], help="prompts without a run")
    parser.add_argument("--model", help="model without a run; by default the default one")
    parser.add_argument("--attack", action="append", default=[], help="by default all templates")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--harm-judge")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    if (arguments.run is None) == (not arguments.prompt):
        parser.error("give a run, or prompts with --prompt")
    return arguments


if __name__ == "__main__":
    run(main)
