"""The GitHub Action, whose steps are run in bash with a tiny model."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import demur as package
from tests.actions import ACTION, ActionResult, read_action, run_action
from tests.tiny import save_tiny_model

DOCS = Path(__file__).parents[1] / "docs" / "gate.md"
HERE = {"PYTHONPATH": str(Path(package.__file__).parents[1])}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Path:
    (tmp_path / "model").symlink_to(tiny)
    (tmp_path / "my prompt.txt").write_text("w1 w2 .")
    (tmp_path / "q.txt").write_text("\n".join(f"::warning::w7 w{row} ?" for row in range(20)))
    (tmp_path / "h.txt").write_text("\n".join(f"w8 w{row} ?" for row in range(20)))
    return tmp_path


def run(folder: Path, **inputs: str) -> ActionResult:
    lines = ["model", "--dtype=float32", "--tokens=4", "--prompt=none", "--prompt=my prompt.txt"]
    arguments = "\n".join([*lines, "--harmful=q.txt", "--harmless=h.txt", ""])
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    return run_action(
        folder, {"arguments": arguments, "install": "none", "python": sys.executable, **given}, HERE
    )


def cases(file: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(file).iter("testcase"))


def test_the_steps_pass_fail_and_compare(folder: Path) -> None:
    passed = run(folder, require="harmful>=0%\nharmless<=100%\n", baseline="june", output="one")
    assert passed.status == 0, passed.log
    assert passed.outputs == {"output": "one", "passed": "true"}
    assert "::notice" in passed.log  # there is no baseline yet
    assert passed.summary.startswith("## Gate passed: all 2 checks passed.")
    assert "my prompt.txt on q.txt, harmful" in passed.summary
    assert len(cases(folder / "demur-gate.xml")) == 2
    assert not list(ElementTree.parse(folder / "demur-gate.xml").iter("failure"))

    failed = run(folder, require="harmful>=99.9%", output="one")
    assert failed.status == 1
    assert failed.outputs["passed"] == "false"
    assert failed.summary.startswith("## Gate failed: 1 of 1 check failed.")
    assert "::error" in failed.log
    assert len(list(ElementTree.parse(folder / "demur-gate.xml").iter("failure"))) == 1

    (folder / "my prompt.txt").write_text("w9 w14 w3 .")
    later = run(folder, baseline="one", output="two")
    assert later.status in (0, 1), later.log
    assert later.outputs == {"output": "two", "passed": str(not later.status).lower()}
    assert "### two compared with one" in later.summary
    assert "The prompt my prompt.txt is not the one that was measured before." in later.summary
    assert len(cases(folder / "demur-gate.xml")) == 2
    # The queries that changed are printed, and are no commands of the runner.
    start = re.search(r"^::stop-commands::(\w{32})$", later.log, flags=re.MULTILINE)
    assert start is not None
    between = later.log[start.end() : later.log.index(f"::{start[1]}::")]
    assert 0 < between.count("::warning::w7") == later.log.count("::warning::w7")

    mistaken = run(folder, require="harmfull>=90%", output="one")
    assert mistaken.status == 2
    assert "passed" not in mistaken.outputs
    assert "did you mean 'harmful'?" in mistaken.log
    assert "::error title=demur::Nothing was decided" in mistaken.log
    assert not (folder / "demur-gate.xml").exists()


def test_no_text_of_an_input_is_run(folder: Path) -> None:
    hostile = '$(touch hacked) `touch hacked` "; touch hacked; "'
    result = run(folder, require=hostile, baseline=hostile)
    assert result.status == 2
    assert not (folder / "hacked").exists()


def test_the_first_step_installs_with_pip(tmp_path: Path) -> None:
    wheel = tmp_path / "some_tool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_tool.py", "")
        about = "some_tool-1.0.dist-info"
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: some-tool\nVersion: 1\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    target = tmp_path / "installed"
    inputs = {"arguments": "--no-such-option", "install": str(wheel), "python": sys.executable}
    result = run_action(tmp_path, inputs, {**HERE, "PIP_TARGET": str(target), "PIP_NO_INDEX": "1"})
    assert (target / "some_tool.py").is_file(), result.log
    assert result.status == 2  # of the second step, which has no such option
    assert "has no option '--no-such-option'" in result.log


def test_by_default_the_first_step_installs_the_action_with_extras_that_there_are(
    tmp_path: Path,
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > arguments\nexit 3\n')
    python.chmod(0o755)
    result = run_action(tmp_path, {"arguments": "x", "python": str(python)}, {})
    assert result.status == 3
    module, pip, verb, what = (tmp_path / "arguments").read_text().splitlines()
    assert (module, pip, verb) == ("-m", "pip", "install")
    folder, extras = what.rstrip("]").split("[")
    assert folder == str(ACTION.parent)
    project = (ACTION.parent / "pyproject.toml").read_text()
    for extra in extras.split(","):
        assert f"\n{extra} = [" in project


def test_every_input_and_output_is_used_and_documented() -> None:
    action = read_action()
    steps = yaml.safe_dump(action["runs"])
    page = DOCS.read_text(encoding="utf-8")
    for name, one in action["inputs"].items():
        assert f"inputs.{name} " in steps
        assert one["description"]
        assert f"`{name}`" in page
    (gate,) = [step for step in action["runs"]["steps"] if step.get("id") == "gate"]
    for name, one in action["outputs"].items():
        assert f"steps.gate.outputs.{name} " in one["value"]
        assert f"{name}=" in gate["run"]


def test_the_workflow_of_the_docs_gives_inputs_that_there_are() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    copied = (DOCS.parents[1] / "examples/gate/safety-prompt.yml").read_text(encoding="utf-8")
    assert copied.split("\n", 1)[1] == text  # below the line that says where it belongs
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    ours = [step for step in steps if "/demur@" in step.get("uses", "")]
    assert ours
    for step in ours:
        assert set(step["with"]) <= set(read_action()["inputs"])
        assert "arguments" in step["with"]
