"""Settings: pydantic models as options, TOML keys and commands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from demur.errors import DemurError
from demur.settings import (
    build,
    command_line,
    default_text,
    options_in,
    options_of,
    read_toml,
    values_of,
)


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(Group):
    """How to sample.

    More about it.
    """

    temperature: float = Field(default=1.0, ge=0, description="temperature of the sampling")
    top_p: float = Field(default=0.9, gt=0, le=1, description="probability that is reached")
    tokens: int | None = Field(
        default=None,
        ge=1,
        lt=500,
        description="tokens at most",
        json_schema_extra={"default": "no limit"},
    )
    cut: bool = Field(default=False, description="cut the last paragraph")
    short: bool = Field(default=True, description="keep it short")

    @model_validator(mode="after")
    def _agrees(self) -> Sampling:
        if self.cut and self.short:
            raise ValueError("short responses have nothing to cut: add --no-short")
        return self


class Everything(Group):
    """All there is."""

    model: str = Field(
        default="tiny", description="the model", json_schema_extra={"argument": True}
    )
    prompts: tuple[str, ...] = Field(default=("long", "short"), description="prompts to read")
    dtype: Literal["auto", "float32"] | None = Field(default=None, description="number format")
    output: Path | None = Field(default=None, description="folder")
    seed: int = Field(default=0, ge=0, description="seed of all")
    sampling: Sampling = Sampling()


def test_every_field_is_an_option() -> None:
    options = {option.name: option for option in options_in(Everything)}
    assert list(options) == [
        *("model", "prompts", "dtype", "output", "seed"),
        *("temperature", "top_p", "tokens", "cut", "short"),
    ]
    top_p = options["top_p"]
    assert (top_p.flag, top_p.key, top_p.panel) == ("--top-p", "sampling.top_p", "How to sample")
    assert top_p.wanted == "a number, more than 0, at most 1"
    assert options["tokens"].wanted == "a whole number, 1 or more, less than 500"
    assert options["seed"].panel is None
    assert options["dtype"].wanted == "auto or float32"
    assert options["model"].positional
    assert options["prompts"].repeatable


def test_a_model_that_cannot_have_options_is_refused() -> None:
    class Twice(Group):
        seed: int = Field(default=0, description="another seed")
        inner: Everything = Everything()

    class Silent(Group):
        seed: int = 0

    class Nested(Group):
        table: dict[str, int] = Field(default={}, description="a table")

    for model, message in (
        (Twice, "two settings 'seed': rename one"),
        (Silent, "'seed' of Silent has no description"),
        (Nested, "'table' of Nested has a type that no option can have"),
    ):
        with pytest.raises(DemurError, match=message):
            options_in(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "-1"}, "--seed -1: must be 0 or more."),
        ({"seed": "many"}, "--seed many: must be a whole number, 0 or more."),
        ({"seed": 1.5}, "--seed 1.5: must be a whole number, 0 or more."),
        ({"seed": True}, "--seed True: must be a whole number, 0 or more."),
        ({"seed": None}, "--seed none: must be a whole number, 0 or more."),
        ({"temperature": "nan"}, "--temperature nan: must be a number, 0 or more."),
        ({"temperature": float("inf")}, "--temperature inf: must be a number, 0 or more."),
        ({"top_p": "1.5"}, "--top-p 1.5: must be more than 0, at most 1."),
        ({"top_p": "150%"}, "--top-p 150%: must be more than 0, at most 1."),
        ({"top_p": "%"}, "--top-p %: must be a number, more than 0, at most 1."),
        ({"top_p": "5%%%"}, "--top-p 5%%%: must be a number, more than 0, at most 1."),
        ({"seed": "2%"}, "--seed 2%: must be a whole number, 0 or more."),
        ({"tokens": 500}, "--tokens 500: must be 1 or more, less than 500."),
        ({"cut": "yes"}, "--cut yes: must be true or false."),
        ({"dtype": "float8"}, "--dtype float8: must be auto or float32."),
        ({"prompts": ["long", 3]}, "--prompts 3: must be text."),
        ({"output": ""}, "--output '': must be a path."),
        ({"cut": True}, "Short responses have nothing to cut: add --no-short."),
        ({"sead": 1}, "There is no setting 'sead': write 'seed'."),
        ({"xyzzy": 1}, "There is no setting 'xyzzy': leave it out."),
        ({"seed": "\x1b[2J" + "9x" * 99}, "--seed ?[2J"),
    ],
)
def test_bad_values_are_told_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(DemurError) as caught:
        build(Everything, values)
    line = str(caught.value)
    assert line.startswith(message)
    assert line.isprintable()
    assert len(line) < 160


def test_values_are_read_from_text_and_win_over_the_base() -> None:
    base = build(Everything, {"seed": 3, "tokens": 7, "prompts": ("plain",)})
    assert base.seed == 3
    values = {"tokens": "none", "temperature": "1e-3", "prompts": "", "output": "a b"}
    chosen = build(Everything, values, base)
    assert chosen.seed == 3
    assert chosen.sampling.tokens is None
    assert chosen.sampling.temperature == 0.001
    assert chosen.prompts == ()
    assert chosen.output == Path("a b")
    assert build(Everything, values_of(chosen)) == chosen
    assert build(Everything, {"seed": np.int64(5), "top_p": np.float32(0.5)}).seed == 5


def test_a_share_may_be_given_in_percent() -> None:
    assert build(Everything, {"top_p": "2%"}).sampling.top_p == 0.02
    assert build(Everything, {"top_p": " 12.5 % "}).sampling.top_p == 0.125


def test_a_required_setting_that_is_missing_is_named() -> None:
    class Show(Group):
        folder: str = Field(description="folder to show", json_schema_extra={"argument": True})

    with pytest.raises(DemurError, match="'folder' is missing: give the folder to show"):
        build(Show, {})
    assert options_of(build(Show, {"folder": "-x"})) == ["--", "-x"]


def test_toml_keys_may_stand_at_the_top_or_in_their_table(tmp_path: Path) -> None:
    file = tmp_path / "demur.toml"
    file.write_text('seed = 4\ntop_p = 0.5\nprompts = ["a", "b"]\n[sampling]\ntokens = 9\n')
    values = read_toml(file, Everything)
    assert values == {"seed": 4, "top_p": 0.5, "prompts": ["a", "b"], "tokens": 9}
    assert build(Everything, values).prompts == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sampling]\ntemprature = 1\n", "no setting 'sampling.temprature' .*'sampling.temperatur"),
        ("sede = 1\n", "no setting 'sede' .in .*: write 'seed'"),
        ("[training]\nseed = 1\n", "no setting 'training.seed' .in .*: write 'seed'"),
        ("top_p = 0.5\n[sampling]\ntop_p = 0.4\n", "has 'top_p' twice"),
        ("seed =\n", "cannot be read as TOML"),
        ("a = " + "[" * 3000, "cannot be read as TOML"),
        (".".join("a" * 90) + " = 1", "There is no setting 'a.a.a.a"),
        (".".join("a" * 2000) + " = 1", "a key of more than 100 parts"),
        (None, "There is no file .*: check the path"),
    ],
)
def test_mistakes_in_toml_are_told_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "demur.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DemurError, match=message) as caught:
        read_toml(file, Everything)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_settings_are_read_from_regular_files_of_some_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "large.toml").write_text("#" * 1_000_001)
    for name, word in (("pipe", "is a pipe"), ("zero", "is a device"), ("large", "is above 1 MB")):
        with pytest.raises(DemurError, match=word):
            read_toml(tmp_path / f"{name}.toml", Everything)


def test_bad_values_name_the_file() -> None:
    with pytest.raises(DemurError, match=r"--top-p 0 \(in demur.toml\): must be more than 0"):
        build(Everything, {"top_p": 0}, where="demur.toml")


def test_settings_become_options_that_give_them_again() -> None:
    chosen = build(
        Everything,
        {
            **{"model": "my models/7b", "prompts": ["it's", "-x"], "dtype": "float32"},
            **{"seed": 7, "temperature": 0.25, "tokens": 12, "cut": True, "short": False},
        },
    )
    items = options_of(chosen)
    assert items == [
        *("my models/7b", "--prompts", "it's", "--prompts=-x", "--dtype", "float32"),
        *("--seed", "7", "--temperature", "0.25", "--tokens", "12", "--cut", "--no-short"),
    ]
    assert shlex.split(command_line("optimize", items)) == ["demur", "optimize", *items]
    assert options_of(Everything()) == []
    assert options_of(chosen, chosen) == []
    back = options_of(Everything(), chosen)
    assert back[:3] == ["tiny", "--prompts", "long"]
    assert back[5:7] == ["--dtype", "none"]
    assert options_of(build(Everything, {"prompts": ""})) == ["--prompts", ""]


def test_defaults_are_told_for_every_preset() -> None:
    options = {option.name: option for option in options_in(Everything)}
    presets = {
        "standard": Everything(),
        "quick": build(Everything, {"seed": 2, "tokens": 8, "short": False}),
        "paper": build(Everything, {"seed": 2, "prompts": ""}),
    }
    assert default_text(options["seed"], presets) == "0; quick 2, paper 2"
    assert default_text(options["tokens"], presets) == "no limit; quick 8"
    assert default_text(options["short"], presets) == "yes; quick no"
    assert default_text(options["prompts"], presets) == "long, short; paper none"
    assert default_text(options["top_p"], presets) == "0.9"
    assert default_text(options["dtype"], {}) == "none"
