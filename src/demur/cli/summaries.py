"""What each command does, in one sentence."""

from __future__ import annotations

OPTIMIZE = "optimize"
SUMMARIES = {
    OPTIMIZE: "Make a better safety prompt from a hand-written one, and measure both.",
    "evaluate": "Compare safety prompts on the same queries, measure a server, or judge responses.",
    "diagnose": "See where a model places harmful and harmless queries, and how safety prompts "
    "move them.",
    "attack": "Attack the prompts of a run, and show how often each attack succeeds.",
    "capability": "Check what a safety prompt costs in ability: short tasks of lm-eval, before and "
    "after.",
    "compare": "Compare two finished evaluations, query by query.",
    "study": "Train and measure every combination of models, prompts, methods and seeds.",
    "init": "Write a commented demur.toml and a first set of files to fill in.",
    "chat": "Talk to a model, and switch its safety prompt while you do.",
    "export": "Write an optimized prompt in a form that other engines load.",
    "serve": "Serve optimized prompts in front of a vLLM server of the unchanged model.",
    "push": "Push a run's safety prompt to the hub, with a model card.",
    "show": "Print the results of a run, an evaluation, a diagnosis, an attack, a capability check "
    "or a prompt again; without a folder, list all results here.",
    "report": "Write one HTML file that shows runs, diagnoses, evaluations and attacks side by "
    "side.",
    "pull": "Fetch a model of the catalog ahead of time.",
    "benchmarks": "List the public benchmarks that demur knows by name, and whether their files "
    "are on this machine.",
}
"""What `demur --help` says of each; its own help begins with it."""
