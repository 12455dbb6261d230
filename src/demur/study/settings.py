"""The settings of a study, from its file or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from demur.chat.settings import WorkLoadSettings
from demur.errors import DemurError
from demur.evaluation.settings import (
    AmountSettings,
    EvaluateSettings,
    JudgeSettings,
    QuerySettings,
    ResponseSettings,
    ServerSettings,
)
from demur.files import safe_name
from demur.gate.settings import CheckSettings
from demur.optimization.preset_values import settled
from demur.optimization.settings import OptimizeSettings, expanded, method_for
from demur.prompts import BUILT_IN_PROMPTS
from demur.records import NO_PROMPT
from demur.settings import build, load_toml, options_in, unknown_setting, values_in
from demur.study.record import UNTRAINED
from demur.study.source import StudySource

_NAMED = ("models", "basic_prompts", "prompts", "methods")
"""Keys that are a list, or a table of names."""

_TABLES = ("load", "training")
"""Tables whose keys are settings of other commands."""

_MOST_NAME = 100
"""Letters of a name; the folder of a cell has two of them."""

_OF_THE_GRID = {
    "basic_prompt": "basic_prompts",
    "method": "methods",
    "model": "models",
    "seed": "seeds",
    "system_prompt": "system_prompt",
}
"""Settings of a single run or evaluation that a study has at the top."""


class CommonSettings(BaseModel):
    """What all cells of a study have in common.

    Attributes:
        seeds: seeds of training and sampling.
        system_prompt: text file with the application's own system text, or None.
        queries: queries that every prompt is measured on.
        judges: judges of the measured responses.
        sampling: how many responses are measured, and how long.
        gate: what a check of the study requires.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seeds: tuple[int, ...] = Field(
        default=(0,),
        min_length=1,
        description="seeds of training and sampling, each its own cells",
        json_schema_extra={"limited": True},
    )
    system_prompt: str | None = Field(
        default=None,
        description="text file with the application's own system text, which is never trained",
    )
    queries: QuerySettings = QuerySettings()
    judges: JudgeSettings = JudgeSettings()
    sampling: AmountSettings = AmountSettings()
    gate: CheckSettings = CheckSettings()

    @field_validator("seeds")
    @classmethod
    def _known_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= one < 2**32 for one in seeds) or len(set(seeds)) < len(seeds):
            raise ValueError("must be whole numbers from 0 to 4294967295, each at most once")
        return seeds


class ModelSettings(WorkLoadSettings):
    """A model of a study: one that is loaded here, or one behind a server."""

    server: ServerSettings = Field(default_factory=ServerSettings)


@dataclass(frozen=True)
class StudyModel:
    """A model of a study.

    Attributes:
        name: name in the study.
        settings: which model it is, and how it computes.
    """

    name: str
    settings: ModelSettings

    @property
    def is_served(self) -> bool:
        """Whether a server answers instead of a model here."""
        return self.settings.server.endpoint is not None


@dataclass(frozen=True)
class StudyPrompt:
    """A safety prompt of a study.

    Attributes:
        name: name in the study.
        spec: what it is loaded by: a built-in name, a file or a folder.
    """

    name: str
    spec: str


@dataclass(frozen=True)
class StudyMethod:
    """A method of a study with its settings.

    Attributes:
        name: name in the study.
        base: name of the method, or `file.py:Class`.
        settings: every setting of a run; basic prompt and seed are those of the grid.
    """

    name: str
    base: str
    settings: OptimizeSettings[Any]


@dataclass(frozen=True)
class StudySettings:
    """Everything that a study's file says.

    Attributes:
        name: name of the study.
        models: the models.
        basic_prompts: prompts of text, which are measured and which every method starts from.
        prompts: further prompts, which are only measured.
        methods: the methods; none for a study that trains nothing.
        common: what all cells have in common.
        source: what all of this is made from.
    """

    name: str
    models: tuple[StudyModel, ...]
    basic_prompts: tuple[StudyPrompt, ...]
    prompts: tuple[StudyPrompt, ...]
    methods: tuple[StudyMethod, ...]
    common: CommonSettings
    source: StudySource

    @property
    def measured_prompts(self) -> tuple[StudyPrompt, ...]:
        """All prompts that are measured as they are, without none."""
        return (*self.basic_prompts, *self.prompts)

    def evaluation(self, seed: int, prompts: Sequence[str]) -> EvaluateSettings:
        """The settings of one evaluation.

        Args:
            seed: seed of the sampling.
            prompts: what the safety prompts are loaded by.
        """
        common, sampling = self.common, self.common.sampling
        return EvaluateSettings(
            prompt=tuple(prompts),
            system_prompt=common.system_prompt,
            queries=common.queries,
            judges=common.judges,
            sampling=ResponseSettings(samples=sampling.samples, tokens=sampling.tokens, seed=seed),
        )


def read_study(path: str | Path) -> StudySettings:
    """The settings in a study's file.

    Args:
        path: TOML file.

    Raises:
        DemurError: it cannot be read, has an unknown key, or a value is missing or out of range.
    """
    return study_settings(load_toml(path), Path(path).stem, str(path))


def study_settings(given: Mapping[str, Any], name: str, where: str = "") -> StudySettings:
    """The settings of a study.

    Args:
        given: what the study's file has, as tables; see `docs/study.md`.
        name: name of the study where it is not given.
        where: the file, for messages; empty for values from Python.

    Raises:
        DemurError: as for `read_study`.
    """
    known = (*_NAMED, *_TABLES, "name")
    plain: dict[str, Any] = _plain(given)
    tables = {key: plain[key] for key in known if key in plain}
    rest = {key: value for key, value in plain.items() if key not in known}
    _require_known(rest, where)
    common = build(CommonSettings, values_in(rest, CommonSettings, where), None, where)
    called = tables.get("name", name)
    if not isinstance(called, str) or not 0 < len(safe_name(called)) <= _MOST_NAME:
        raise DemurError(
            f"'name'{_in(where)} must be a text with letters or digits, up to {_MOST_NAME}."
        )
    for key in _TABLES:
        if not isinstance(tables.get(key, {}), dict):
            raise DemurError(f"{key!r}{_in(where)} must be a table: write [{key}].")
    methods = _named(tables, "methods", where)
    settings = StudySettings(
        name=called,
        models=tuple(
            _model(one, own, tables.get("load", {}), where)
            for one, own in _named(tables, "models", where).items()
        ),
        basic_prompts=_prompts(tables, "basic_prompts", where),
        prompts=_prompts(tables, "prompts", where),
        methods=tuple(
            _method(one, own, tables.get("training", {}), where) for one, own in methods.items()
        ),
        common=common,
        source=StudySource(plain, name, where),
    )
    _require_complete(settings, tables, where)
    return settings


def _plain(value: object) -> Any:
    """Tuples as lists and paths as texts, so that Python gives what a file gives."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _require_known(rest: Mapping[str, Any], where: str) -> None:
    """Name the nearest key for one that a study does not have."""
    options = options_in(CommonSettings)
    groups = {group for one in options for group in one.groups}
    names = {one.name for one in options}
    for key in rest:
        if key in _OF_THE_GRID and key not in names:
            raise DemurError(
                f"A study has no {key!r}{_in(where)}: write {_OF_THE_GRID[key]}, which may have "
                "several."
            )
        if key not in names and key not in groups:
            raise unknown_setting(key, [*_NAMED, *_TABLES, *sorted(groups | names)], where)


def _require_complete(settings: StudySettings, tables: Mapping[str, object], where: str) -> None:
    """Check that the parts of a study go together."""
    if not settings.models:
        raise DemurError(f"There are no models{_in(where)}: give models, for example a list.")
    if settings.methods and not settings.basic_prompts:
        raise DemurError(f"The methods{_in(where)} have nothing to start from: give basic_prompts.")
    if "training" in tables and not settings.methods:
        raise DemurError(f"[training]{_in(where)} is for methods: give methods, or leave it out.")
    names = [one.name for one in settings.measured_prompts]
    _require_distinct("prompts", names, where)
    served = next((one for one in settings.models if one.is_served), None)
    if served is not None and settings.methods:
        raise DemurError(
            f"The model {served.name!r:.80}{_in(where)} is behind a server, where nothing can be "
            "trained: leave the methods out, or give a model that is loaded here."
        )
    if settings.common.gate.candidate or settings.common.gate.baseline_prompt:
        raise DemurError(
            f"A study checks every prompt{_in(where)}: leave candidate and baseline_prompt out."
        )


def _named(tables: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The entries of a list, or of a table of names."""
    found = tables.get(key, [])
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list) and all(isinstance(one, str) and one for one in found):
        if len(set(found)) < len(found):
            raise DemurError(f"{key}{_in(where)} has one twice: leave it out.")
        if key == "methods":
            found = {one: {} for one in found}
        else:
            found = {_short(one): one for one in _distinct(found, key, where)}
    if not isinstance(found, dict):
        raise DemurError(f"{key}{_in(where)} must be a list of names, or tables [{key}.NAME].")
    _require_distinct(key, list(found), where)
    return found


def _distinct(specs: list[str], key: str, where: str) -> list[str]:
    _require_distinct(key, [_short(one) for one in specs], where)
    return specs


def _short(spec: str) -> str:
    """What a model or a prompt is called that has no name of its own."""
    path = Path(spec)
    return path.stem if path.suffix in (".txt", ".gguf", ".md") else path.name or spec


def _require_distinct(key: str, names: list[str], where: str) -> None:
    """Check that names can be those of folders, no two the same."""
    taken: set[str] = set()
    for name in names:
        plain = safe_name(name).lower()
        if not plain:
            raise DemurError(f"{key}{_in(where)} has a name without letters: {name!r:.60}.")
        if len(plain) > _MOST_NAME:
            raise DemurError(
                f"{key}{_in(where)} has a name of {len(plain)} letters, {name!r:.30}..., and "
                f"folders are called after it: give one of up to {_MOST_NAME} in a table [{key}]."
            )
        if plain in taken:
            raise DemurError(
                f"{key}{_in(where)} has two that are called {name!r:.60}: give them names of their "
                f"own in a table [{key}]."
            )
        taken.add(plain)


def _prompts(tables: Mapping[str, Any], key: str, where: str) -> tuple[StudyPrompt, ...]:
    found: list[StudyPrompt] = []
    for name, spec in _named(tables, key, where).items():
        if not isinstance(spec, str) or not spec:
            raise DemurError(
                f"The prompt {name!r:.60} in {key}{_in(where)} must be a text: {BUILT_IN_PROMPTS}, "
                "a file or a folder."
            )
        if spec == NO_PROMPT or safe_name(name).lower() == NO_PROMPT:
            raise DemurError(
                f"{NO_PROMPT!r} in {key}{_in(where)} is measured in every study: leave it out."
            )
        found.append(StudyPrompt(name, spec))
    return tuple(found)


def _model(name: str, own: object, shared: Mapping[str, Any], where: str) -> StudyModel:
    place = _place(where, f"models.{name}")
    table: Mapping[str, Any] = own if isinstance(own, dict) else {"model": own}
    values = values_in(shared, ModelSettings, _place(where, "load"))
    if "model" in values:
        raise DemurError(f"[load]{_in(where)} has a model: write it into models.")
    values.update(values_in(table, ModelSettings, place))
    if "endpoint" not in values:
        values.setdefault("model", name)
    elif "sample_at" in values:
        raise DemurError(
            f"The model {name!r:.80}{_in(where)} has an endpoint, where everything is done, and "
            "sample_at, which is for a model that is loaded here: give one of them."
        )
    return StudyModel(name, build(ModelSettings, values, None, place))


def _method(name: str, own: object, shared: Mapping[str, Any], where: str) -> StudyMethod:
    if not isinstance(own, dict):
        raise DemurError(f"The method {name!r:.60}{_in(where)} must be a table [methods.NAME].")
    if safe_name(name).lower() == UNTRAINED:
        raise DemurError(
            f"The method {name!r:.60}{_in(where)} is called as what no method trained: give it "
            "another name."
        )
    place = _place(where, f"methods.{name}")
    base = str(own.get("method", name))
    preset = own.get("preset", shared.get("preset"))
    method_for(str(preset or ""), base)
    start = OptimizeSettings.from_preset(str(preset or "standard"), base)
    values: dict[str, object] = {}
    for table, told in ((shared, _place(where, "training")), (own, place)):
        found = values_in(table, type(start), told)
        for key, above in _OF_THE_GRID.items():
            if key in found and not (table is own and key == "method"):
                raise DemurError(
                    f"{key!r} ({told}) belongs to the study: write {above} at the top."
                )
        values.update(found)
    values.update(method=base, preset=start.preset)
    settings = build(type(start), settled(expanded(values)), start, place)
    return StudyMethod(name, base, settings)


def _place(where: str, table: str) -> str:
    return f"[{table}] of {where}" if where else f"[{table}]"


def _in(where: str) -> str:
    return f" (in {where})" if where else ""
