"""Run the steps of a composite GitHub Action in bash, as GitHub's runner does."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ACTION = Path(__file__).parents[1] / "action.yml"
_EXPRESSION = re.compile(r"\$\{\{\s*([a-z_]+)\.([a-z_-]+)\s*\}\}")


@dataclass(frozen=True)
class ActionResult:
    """How an action ended.

    Attributes:
        status: exit status of the step that failed, or 0.
        outputs: what its steps wrote as outputs.
        summary: what they wrote for the page of the build.
        log: standard output and error of all steps.
    """

    status: int
    outputs: dict[str, str]
    summary: str
    log: str


def read_action() -> dict[str, Any]:
    """The content of `action.yml`."""
    content = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def run_action(
    folder: Path, inputs: Mapping[str, str], environment: Mapping[str, str]
) -> ActionResult:
    """Run all steps until one fails.

    Args:
        folder: working folder of the steps.
        inputs: inputs by name; those that are left out have their defaults.
        environment: more variables of the environment.
    """
    action = read_action()
    unknown = set(inputs) - set(action["inputs"])
    assert not unknown, f"the action has no inputs {unknown}"
    values = {name: str(one.get("default", "")) for name, one in action["inputs"].items()}
    values |= inputs
    output, summary = folder / "github-output", folder / "github-summary.md"
    output.write_text("")
    summary.write_text("")
    log, status = "", 0
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        script = folder / "step.sh"
        script.write_text(step["run"])
        own = {name: _filled(str(text), values) for name, text in step.get("env", {}).items()}
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=folder,
            env={
                **os.environ,
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(summary),
                **environment,
                **own,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        log += ended.stdout + ended.stderr
        status = ended.returncode
        if status:
            break
    lines = [line.partition("=") for line in output.read_text().splitlines()]
    outputs = {name: value for name, _, value in lines}
    return ActionResult(status, outputs, summary.read_text(), log)


def _filled(text: str, inputs: Mapping[str, str]) -> str:
    """A value of a step's environment with its expressions evaluated."""

    def value(found: re.Match[str]) -> str:
        context, name = found.groups()
        return str(ACTION.parent) if (context, name) == ("github", "action_path") else inputs[name]

    return _EXPRESSION.sub(value, text)
