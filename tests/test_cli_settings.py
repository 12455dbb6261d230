"""Every setting of every command: in the help, in TOML, on the command line, and back."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from demur.cli.app import commands
from demur.cli.command import Command
from demur.cli.optimize import optimize_command
from demur.errors import DemurError
from demur.prompts import BASIC_PROMPTS
from demur.settings import Option, build, default_text, options_in, options_of, values_of
from tests.command_line import demur, done, mistake

COMMANDS = {command.verb: command for command in commands()}
for _method in ("dro", "vpt"):
    COMMANDS[f"optimize --method {_method}"] = optimize_command(_method)
"""The commands by what they begin with: `optimize` has other options with other methods."""

LEAVES = [
    pytest.param(verb, option, id=f"{verb} {option.flag}")
    for verb, command in COMMANDS.items()
    for option in options_in(command.settings)
]
RANGED = [
    leaf
    for leaf in LEAVES
    if (leaf.values[1].bounds or leaf.values[1].choices) and leaf.values[1].name != "preset"  # type: ignore[union-attr]
]


@pytest.fixture(autouse=True)
def _no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("demur.chat.model.ChatModel.load", load)


def required(command: Command[Any]) -> dict[str, object]:
    """Values of the settings that a command insists on."""
    options = [option for option in options_in(command.settings) if option.required]
    return {option.name: ["x"] if option.repeatable else "x" for option in options}


def another(command: Command[Any], option: Option) -> object:
    """A value that is not the default, under any preset."""
    base = command.choose(required(command))
    candidates: dict[type, list[Any]] = {
        bool: [True, False],
        int: [1, 3, 12, 17, 60],
        float: [0.25, 0.5, 3.5],
        str: list(option.choices) or ["text a", "b"],
        Path: ["some folder/file"],
    }
    for candidate in candidates[option.kind]:
        second = ["second"] if option.kind is str else []
        value = [candidate, *second] if option.repeatable else candidate
        try:
            chosen = build(command.settings, {option.name: value}, base)
        except DemurError:
            continue
        if values_of(chosen)[option.name] != values_of(base)[option.name]:
            return value
    raise AssertionError(f"no value of {option.flag} differs from the default")


def parsed(command: Command[Any], items: list[str]) -> BaseModel:
    """The settings that a command line gives, after typer has read it."""
    found: list[BaseModel] = []
    app = typer.Typer()
    replace(command, run=found.append).add_to(app)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, [command.verb, *items])
    assert result.exit_code == 0, (result.output, result.exception)
    return found[0]


@pytest.fixture
def helps(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The help of every command, on a terminal so wide that nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "600")
    return {verb: done(demur(*verb.split(), "--help")) for verb in COMMANDS}


def test_every_setting_is_in_the_help_with_its_default(helps: dict[str, str]) -> None:
    for verb, command in COMMANDS.items():
        for option in options_in(command.settings):
            shown = option.metavar if option.positional else option.flag
            pattern = rf"^│\W+{re.escape(shown)} .*│$"
            lines = re.findall(pattern, helps[verb], re.MULTILINE)
            assert len(lines) == 1, (verb, shown)
            start = option.description[0].upper() + option.description[1:]
            if option.choices:
                start = f"{', '.join(option.choices[:-1])} or {option.choices[-1]}: "
                start = start.removeprefix(" or ") + option.description
            assert f" {start}" in lines[0]
            assert option.bounds in lines[0]
            if option.required:
                assert "[required]" in lines[0]
            else:
                default = command.default_texts.get(option.name) or default_text(
                    option, command.presets
                )
                assert f"[default: {default}" in lines[0], (verb, shown)


def test_the_help_is_readable_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for verb, command in COMMANDS.items():
        lines = done(demur(*verb.split(), "--help")).splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert not any("…" in line for line in lines)
        for option in options_in(command.settings):
            if not option.positional:
                assert any(f" {option.flag} " in line for line in lines), (verb, option.flag)
    assert "demur[endpoint]" in done(demur("evaluate", "--help"))
    for verb in ("optimize", "evaluate", "diagnose", "chat"):
        assert ", ".join(BASIC_PROMPTS) in re.sub(r"[│\s]+", " ", done(demur(verb, "--help")))
    words = re.sub(r"[│\s]+", " ", done(demur("optimize", "--help")))
    assert "[default: 4; thorough 20]" in words
    words = re.sub(r"[│\s]+", " ", done(demur("optimize", "--method", "dro", "--help")))
    assert "[default: 3; quick 2, thorough 12, paper 40]" in words


LONG = [verb for verb, command in COMMANDS.items() if len(options_in(command.settings)) > 24]


@pytest.mark.parametrize("verb", [*LONG, "optimize --method text"])
def test_what_most_people_need_is_shown_alone_and_first(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short = done(demur(*verb.split(), "-h"))
    whole = done(demur(*verb.split(), "--help"))
    assert len(short.splitlines()) < 90 < len(whole.splitlines())
    assert all(len(line) <= 80 for line in [*short.splitlines(), *whole.splitlines()])
    count = len(re.findall(r"^│ --(?!help)", whole, re.MULTILINE))
    assert f" All {count} options: demur {verb} --help\n" in short
    assert f" The most used options: demur {verb} -h\n" in whole
    flags = re.findall(r"^│ (--[\w-]+)", short, re.MULTILINE)
    assert 8 < len(flags) < 14
    assert re.findall(r"^│ (--[\w-]+)", whole, re.MULTILINE)[: len(flags)] == flags
    assert "[default: " in short
    examples = re.findall(r"^   demur (.*?)(?:   .*)?$", short, re.MULTILINE)
    assert examples == re.findall(r"^   demur (.*?)(?:   .*)?$", whole, re.MULTILINE)
    for one in examples:
        words = shlex.split(one)
        assert words[0] == verb.split(maxsplit=1)[0]
        given = {word for word in words if word.startswith("--")}
        assert given <= set(re.findall(r"--[\w-]+", whole))


def test_short_and_whole_help_are_one_where_there_are_few_options() -> None:
    for verb in COMMANDS:
        if verb not in LONG:
            assert done(demur(verb, "-h")) == done(demur(verb, "--help"))


@pytest.mark.parametrize(("verb", "option"), LEAVES)
def test_every_setting_goes_through_toml_and_the_command_line(
    verb: str, option: Option, tmp_path: Path
) -> None:
    command = COMMANDS[verb]
    value = another(command, option)
    base = command.choose(required(command))
    wanted = command.choose({**required(command), option.name: value})
    assert wanted != base

    file = tmp_path / "demur.toml"
    given = {name: one for name, one in required(command).items() if name != option.name}
    tables = [f"{name} = {json.dumps(one)}" for name, one in given.items()]
    tables += [f"[{'.'.join(option.groups)}]"] if option.groups else []
    file.write_text("\n".join([*tables, f"{option.name} = {json.dumps(value)}", ""]))
    assert parsed(command, ["--config", str(file)]) == wanted

    presets = command.presets
    preset = presets[values_of(wanted)["preset"]] if presets else None  # type: ignore[index]
    items = options_of(wanted, preset)
    if presets:
        items += ["--preset", str(values_of(wanted)["preset"])]
    assert parsed(command, items) == wanted
    assert parsed(command, ["--config", str(file), *options_of(base, wanted)]) == base


@pytest.mark.parametrize(("verb", "option"), RANGED)
def test_a_value_out_of_range_is_one_line_before_any_model(verb: str, option: Option) -> None:
    bad = next(value for value in ("-1", "0", "1e99", "x") if not allowed(verb, option, value))
    items = options_of(COMMANDS[verb].choose(required(COMMANDS[verb])))
    line = mistake(demur(*verb.split(), *items, f"{option.flag}={bad}"))
    assert f"{option.flag} {bad}: must be" in line
    assert option.range in line


NUMBERS = [
    (verb, option)
    for verb, command in COMMANDS.items()
    for option in options_in(command.settings)
    if option.kind in (int, float) and not option.choices
]


@pytest.mark.parametrize("value", ["1e30", "9" * 40, "inf", "nan"])
@pytest.mark.parametrize(("verb", "option"), NUMBERS)
def test_every_number_has_a_largest_value(verb: str, option: Option, value: str) -> None:
    assert not allowed(verb, option, value)


TEXTS = [
    (verb, option)
    for verb, command in COMMANDS.items()
    for option in options_in(command.settings)
    if option.kind in (str, Path) and not option.choices
]


@pytest.mark.parametrize("value", ["a\0b", "a" * 5000], ids=["null", "long"])
@pytest.mark.parametrize(("verb", "option"), TEXTS)
def test_no_text_holds_a_null_character_or_thousands(verb: str, option: Option, value: str) -> None:
    assert not allowed(verb, option, value)


def allowed(verb: str, option: Option, value: str) -> bool:
    command = COMMANDS[verb]
    try:
        command.choose({**required(command), option.name: value})
    except DemurError:
        return False
    return True


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "demur.toml"
    file.write_text(
        'preset = "quick"\nmethod = "dro"\nepochs = 7\ntokens = 5\n'
        "[method_settings]\ncomponents = 3\n"
    )
    command = COMMANDS["optimize --method dro"]
    items = ["--config", str(file)]
    values = values_of(parsed(command, items))
    assert (values["preset"], values["epochs"], values["most_anchors"]) == ("quick", 7, 40)
    assert (values["components"], values["tokens_harmful"], values["tokens_harmless"]) == (3, 5, 5)
    values = values_of(parsed(command, [*items, "--epochs", "9", "--preset", "paper"]))
    assert (values["preset"], values["epochs"], values["samples"]) == ("paper", 9, 25)
    values = values_of(parsed(command, [*items, "--tokens", "6", "--tokens-harmless", "8"]))
    assert (values["tokens_harmful"], values["tokens_harmless"]) == (6, 8)
    file.write_text("kept_samples = 3\n")
    assert values_of(parsed(command, [*items, "--samples", "5"]))["kept_samples"] == 3
    line = mistake(demur("optimize", *items))
    assert "--kept-samples 3 is more than --samples 1: give at most as many (in /" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch = 1", "no setting 'epoch' (in demur.toml): write 'epochs'"),
        (
            "[traning]\nepochs = 1",
            "no setting 'traning.epochs' (in demur.toml): write 'training.epochs'",
        ),
        ("[training.more]\nx = 1", "no setting 'training.more.x' (in demur.toml): leave it out."),
        ("training = 3", "'training' is a group of settings (in demur.toml): write [training]"),
        ('epochs = "3"', "--epochs '3' (in demur.toml): must be a whole number, 1 to 100000, with"),
        ('top_p = "0.5"', "--top-p '0.5' (in demur.toml): must be a number, "),
        ("epochs = 0", "--epochs 0 (in demur.toml): must be 1 to 100000."),
        ("epochs = true", "--epochs True (in demur.toml): must be a whole number, 1 to 100000."),
        ('preset = "fast"', "no preset 'fast': choose standard, quick, thorough"),
        ('preset = ["quick"]', "There is no preset"),
        ("epochs = 2026-01-01", "must be a whole number"),
        ("judge = 3", "--judge 3 (in demur.toml): must be text."),
        ("basic_prompt = {a = 1}", "There is no setting 'basic_prompt.a' (in demur.toml)"),
        (
            'method = "magic"',
            "no method 'magic': choose likelihood, dro, vpt, text, or give FILE.py:CLASS",
        ),
        ("epochs = [", "cannot be read as TOML"),
    ],
)
def test_mistakes_in_a_file_are_one_line_before_any_model(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demur.toml").write_text(text)
    assert expected in mistake(demur("optimize", "--config", "demur.toml"))


CHOICES = [
    (verb, option, choice)
    for verb, command in COMMANDS.items()
    for option in options_in(command.settings)
    for choice in option.choices
    if option.name != "preset" or choice in command.presets
]


@pytest.mark.parametrize(("verb", "option", "choice"), CHOICES)
def test_a_choice_may_be_in_capital_letters(
    verb: str, option: Option, choice: str, tmp_path: Path
) -> None:
    command = COMMANDS[verb]
    base = required(command)
    wanted = command.choose({**base, option.name: choice})
    assert command.choose({**base, option.name: choice.upper()}) == wanted
    file = tmp_path / "demur.toml"
    file.write_text(f'{option.key} = "{choice.title()}"\n')
    assert command.choose(base, file) == wanted
    assert parsed(command, [*options_of(wanted), f"{option.flag}={choice.upper()}"]) == wanted


def test_the_preset_in_capital_letters_means_the_same_method() -> None:
    assert "--components 0: must be" in mistake(
        demur("optimize", "--preset", "PAPER", "--components", "0")
    )


def test_all_presets_are_named_where_one_does_not_exist() -> None:
    line = mistake(demur("optimize", "--preset", "fast"))
    assert "no preset 'fast': choose standard, quick, thorough or paper." in line
    assert "(did you mean 'paper'?)" in mistake(demur("optimize", "--preset", "papr"))


def test_options_that_contradict_each_other_are_refused() -> None:
    line = mistake(demur("optimize", "--averaged-prompt", "--no-averaged-prompt"))
    assert "--averaged-prompt and --no-averaged-prompt contradict each other" in line


def test_a_file_that_no_command_reads_is_refused(tmp_path: Path) -> None:
    assert "none.toml': check the path." in mistake(
        demur("pull", "--config", tmp_path / "none.toml")
    )
    (tmp_path / "settings.json").write_text("{}")
    line = mistake(demur("pull", "--config", tmp_path / "settings.json"))
    assert "demur pull reads no settings.json: give a TOML file." in line
    line = mistake(demur("optimize", "--config", tmp_path / "settings.json"))
    assert "settings.json holds no run of demur: check the path." in line


OWN_METHOD = '''
from pydantic import Field

from demur.optimization.methods import Method, MethodSettings


class OpeningSettings(MethodSettings):
    """Method: refusal openings."""

    opening: str = Field("Sorry", description="opening of a refusal")
    strength: float = Field(1.0, gt=0, description="strength of the push")


class Openings(Method[OpeningSettings]):
    name = "openings"
    title = "Likelihood of an opening"
    terms = {"opening": "log-probability of the opening"}
    Settings = OpeningSettings

    def prepare(self, context):
        raise NotImplementedError

    def losses(self, read, rows, batch):
        raise NotImplementedError
'''


def test_the_settings_of_an_own_method_are_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_METHOD)
    Path("demur.toml").write_text('method = "mine.py:Openings"\n')
    for items in (["--method", "mine.py:Openings"], ["--config", "demur.toml"]):
        out = done(demur("optimize", *items, "--help"))
        assert "Method: refusal openings" in out
        assert "--opening" in out
        assert "--components" not in out
        line = mistake(demur("optimize", *items, "--strength", "0"))
        assert "--strength 0: must be more than 0." in line
    assert "no method 'magic'" in mistake(demur("optimize", "--method", "magic"))
    line = mistake(demur("optimize", "--method=mine.py:Nothing"))
    assert "'mine.py' defines no 'Nothing'" in line


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; sys.argv = ['demur', 'optimize', '--help']\n"
        "from demur.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "--learning-rate" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"
