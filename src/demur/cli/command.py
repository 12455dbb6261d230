"""Commands whose options are generated from a model of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer
from pydantic import BaseModel
from rich.markup import escape

from demur.cli.config import ReadRecorded, read_config
from demur.cli.screen import errors
from demur.cli.summaries import SUMMARIES
from demur.cli.usage import MORE, HelpedCommand, show_short_help
from demur.errors import DemurError, did_you_mean
from demur.settings import Option, as_choice, build, default_text, options_in

Settings = TypeVar("Settings", bound=BaseModel)

CONFIG = "config"
PRESET = "preset"


@dataclass(frozen=True)
class Command(Generic[Settings]):
    """One verb.

    Attributes:
        verb: name of the command.
        settings: model that the command's options and the keys of its TOML file come from.
        run: does the work with checked settings.
        details: what its help says below the summary.
        summary: what the command does, where that is not what the list of commands says of it.
        presets: complete settings by the name of the preset, the standard one first; empty where
            the command has no presets.
        recorded: reads the `settings.json` that the command's own work wrote; None where it writes
            none.
        expand: what given values stand for, where one of them stands for several.
        settle: adapts values that follow from chosen ones, once all are known.
        default_texts: descriptions of defaults that differ from those that the model gives.
        usual_config: name of a file of settings that the command speaks of where it lies here and
            is not read.
        common: names of the settings that most people need, in the order of the help, where there
            are too many to read: `-h` shows these, and they come first in `--help`.
        examples: command lines that the help ends with.
    """

    verb: str
    settings: type[Settings]
    run: Callable[[Settings], None]
    details: str = ""
    summary: str = ""
    presets: Mapping[str, Settings] = field(default_factory=dict)
    recorded: ReadRecorded | None = None
    expand: Callable[[Mapping[str, object]], Mapping[str, object]] = dict
    settle: Callable[[Mapping[str, object]], Mapping[str, object]] = dict
    default_texts: Mapping[str, str] = field(default_factory=dict)
    usual_config: str | None = None
    common: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """What the command does, the summary first, a paragraph a line."""
        summary = self.summary or SUMMARIES[self.verb]
        paragraphs = [summary, *filter(None, inspect.cleandoc(self.details).split("\n\n"))]
        return "\n\n".join(" ".join(one.split()) for one in paragraphs)

    @property
    def options(self) -> tuple[Option, ...]:
        """The settings, in the order of the help: arguments, and then the common ones."""
        found = {option.name: option for option in options_in(self.settings)}
        arguments = [name for name, option in found.items() if option.positional]
        return tuple({name: found[name] for name in (*arguments, *self.common, *found)}.values())

    def panel_of(self, option: Option) -> str | None:
        """Title of the group that the help shows a setting in; None for the first group."""
        if option.name in self.common or option.positional:
            return None
        return option.panel or (MORE if self.common else None)

    def add_to(self, app: typer.Typer, group: str | None = None) -> None:
        """Make the command one of an application's.

        Args:
            app: the application.
            group: title under which its help lists the command.
        """
        text = escape(self.help)
        settings = {"help_option_names": ["--help"]} if self.common else None
        app.command(
            self.verb,
            cls=self._kind(),
            help=text,
            rich_help_panel=group,
            context_settings=settings,
        )(self._function())

    def choose(self, given: Mapping[str, object], config: Path | None = None) -> Settings:
        """Checked settings: those given win over the file, and the file wins over the preset.

        Args:
            given: values by the settings' names, without those that were not given.
            config: TOML file, or the `settings.json` of work that this command did.

        Raises:
            DemurError: something cannot be read, is unknown or out of its range.
        """
        in_file: Mapping[str, object] = {}
        if config is not None:
            in_file = self.expand(
                read_config(config, self.settings, self.verb, self.recorded, given)
            )
        # An empty text in place of what the file gives means none; else it is a mistake.
        chosen = {
            name: () if name in in_file and _is_empty(value) else value
            for name, value in self.expand(given).items()
        }
        values = self.settle(self._with_choices({**in_file, **chosen}))
        base = self._base(values)
        try:
            return build(self.settings, values, base)
        except DemurError:
            if config is not None:  # the file is named where it is what is wrong
                build(self.settings, self.settle(self._with_choices(in_file)), base, str(config))
            raise

    def _kind(self) -> type[HelpedCommand]:
        """The class of typer's command, which writes the help."""
        given = self

        class Kind(HelpedCommand):
            required = tuple(one.metavar for one in given.options if one.required)
            common = (CONFIG, *given.common) if given.common else ()
            examples = given.examples

        return Kind

    def _base(self, values: Mapping[str, object]) -> Settings | None:
        if not self.presets:
            return None
        name = str(values.get(PRESET, next(iter(self.presets))))
        if name not in self.presets:
            # The help lists those that another method has as well.
            option = next(one for one in options_in(self.settings) if one.name == PRESET)
            raise DemurError(
                f"There is no preset {name!r:.60}{did_you_mean(name, option.choices)}: choose "
                f"{option.range}."
            )
        return self.presets[name]

    def _with_choices(self, values: Mapping[str, object]) -> dict[str, object]:
        """Values by name, those with a fixed choice as it is written, which others follow from."""
        options = {option.name: option for option in options_in(self.settings)}
        return {
            name: as_choice(options[name], value) if name in options else value
            for name, value in values.items()
        }

    def _function(self) -> Callable[..., None]:
        """A function whose signature has a parameter for every setting, as typer reads it."""
        options = self.options
        parameters = [_config_parameter(self.recorded is not None)]
        for option in options:
            default = self.default_texts.get(option.name) or default_text(option, self.presets)
            parameters += _parameters(option, default, self.panel_of(option))
        if self.common:
            parameters.append(_short_help_parameter())

        def invoke(**chosen: Any) -> None:
            chosen.pop("short_help", None)
            given: dict[str, object] = {}
            for option in options:
                value = chosen[option.name]
                if option.kind is bool and chosen[f"no_{option.name}"]:
                    if value is not None:
                        raise DemurError(
                            f"{option.flag} and {option.no_flag} contradict each other: leave "
                            "one out."
                        )
                    value = False
                if value is not None and value != []:
                    given[option.name] = value
            settings = self.choose(given, chosen[CONFIG])
            usual = self.usual_config
            if chosen[CONFIG] is None and usual is not None and Path(usual).is_file():
                note = f"{usual} lies here and is not read: add --config {usual} to use it."
                errors.print(note, highlight=False)
            self.run(settings)

        invoke.__name__ = self.verb
        signature = inspect.Signature(parameters)
        invoke.__signature__ = signature  # type: ignore[attr-defined]
        invoke.__annotations__ = {one.name: one.annotation for one in parameters}
        return invoke


def _config_parameter(recorded: bool) -> inspect.Parameter:
    text = "TOML file with settings; what is given here as well wins"
    if recorded:
        text += ". The settings.json that this command wrote does the same again"
    info = typer.Option(
        f"--{CONFIG}", help=f"{text}.", metavar="FILE", show_default=False, rich_help_panel=None
    )
    return _parameter(CONFIG, Annotated[Path | None, info], None)


def _short_help_parameter() -> inspect.Parameter:
    info = typer.Option(
        "-h",
        help="Show the options that most people need and exit.",
        is_eager=True,
        expose_value=False,
        callback=show_short_help,
    )
    return _parameter("short_help", Annotated[bool, info], False)


def _parameters(option: Option, default: str, panel: str | None) -> list[inspect.Parameter]:
    text = _help(option, default)
    if option.positional:
        argument = typer.Argument(help=text, metavar=option.metavar, show_default=False)
        if option.repeatable:
            return [_parameter(option.name, Annotated[list[str] | None, argument], None)]
        return [_parameter(option.name, Annotated[str | None, argument], None)]
    info = typer.Option(
        option.flag,
        help=text,
        metavar=" " if option.kind is bool else option.metavar,
        rich_help_panel=panel,
        show_default=False,
    )
    if option.kind is bool:
        off = typer.Option(option.no_flag, hidden=True)
        return [
            _parameter(option.name, Annotated[bool | None, info], None),
            _parameter(f"no_{option.name}", Annotated[bool, off], False),
        ]
    kind: Any = list[str] | None if option.repeatable else str | None
    return [_parameter(option.name, Annotated[kind, info], None)]


def _help(option: Option, default: str) -> str:
    """Description, range and default of a setting in rich's markup."""
    text = option.sentence
    if option.repeatable and not option.positional:
        text += " Repeatable."
    if option.required:
        return f"{escape(text)} [dim]{escape('[required]')}[/dim]"
    if option.kind is bool and default != "no":
        default += f"; {option.no_flag} turns it off"
    return f"{escape(text)} [dim]{escape(f'[default: {default}]')}[/dim]"


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _is_empty(value: object) -> bool:
    """Whether an option that may be repeated was given once, with an empty text."""
    return isinstance(value, (list, tuple)) and list(value) == [""]
