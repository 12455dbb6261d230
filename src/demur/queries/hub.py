"""Read queries from a dataset on the Hugging Face hub, through the optional `datasets` package."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError, did_you_mean, first_line
from demur.hub.failures import LOGIN, endpoint, status_of
from demur.limits import MOST_QUERIES
from demur.reading import GivenQueries, check_query, exists, listed
from demur.records import Query, text_of

HUB_PREFIX = "hf:"
FORM = "hf:ORG/NAME:COLUMN, or with a configuration and a split hf:ORG/NAME/CONFIG@SPLIT:COLUMN"

_SECONDS = 10.0
_CONNECT = "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE"
_PAGE = re.compile(r"hf:https?://[^/]+/datasets/")
# A split may be a slice with a colon in it, as in `train[:100]`.
_SPEC = re.compile(
    r"hf:(?P<name>[^@:\s]+)(?:@(?P<split>[^:\[]+(?:\[[^\]]*\])?))?(?::(?P<column>.+))?"
)


@dataclass(frozen=True)
class HubSpec:
    """A column of a dataset.

    Attributes:
        name: `organisation/name`, or a folder here.
        config: name of its configuration, or None for its only one.
        split: name of its split, possibly with a slice, or None for `train` or its only one.
        column: name of the column, or None where none is named.
    """

    name: str
    config: str | None
    split: str | None
    column: str | None

    @classmethod
    def parse(cls, spec: str) -> HubSpec:
        """Take a spec apart.

        Raises:
            DemurError: it is malformed.

        Example:
            >>> HubSpec.parse("hf:org/name/parts@test:goal").config
            'parts'
        """
        match = _SPEC.fullmatch(_PAGE.sub(HUB_PREFIX, spec))
        if match is None:
            raise DemurError(f"Cannot read {spec!r:.300}: write {FORM}.")
        name, config = match["name"].rstrip("/"), None
        head, _, tail = name.rpartition("/")
        is_folder = name.startswith((".", "/", "~")) or Path(name).is_absolute()
        if not exists(Path(name)) and (exists(Path(head)) if is_folder else head.count("/") == 1):
            name, config = head, tail
        return cls(name, config, match["split"], match["column"])

    @property
    def dataset(self) -> str:
        """The dataset with its configuration, as people write it."""
        return self.name if self.config is None else f"{self.name}/{self.config}"


def read_hub(spec: str) -> tuple[str, GivenQueries]:
    """The dataset's name (as in `spec`, less its prefix) and the queries in the named column.

    Without a connection, what was fetched before is used.

    Raises:
        DemurError: the spec is malformed, `datasets` is not installed, the dataset cannot be
            loaded, it has several configurations or splits and none is named, or the column is
            missing or holds something other than texts and conversations.
    """
    parsed = HubSpec.parse(spec)
    dataset = _load(parsed)
    source = f"Dataset {parsed.dataset!r:.200}"
    column, columns = parsed.column, tuple(map(str, dataset.column_names))
    if column is None:
        raise DemurError(
            f"{source} needs the name of the column with the queries, after a colon: its columns "
            f"are {listed(columns)}."
        )
    if column not in columns:
        raise DemurError(
            f"{source} has no column {column!r:.80}{did_you_mean(column, columns)}: its columns "
            f"are {listed(columns)}."
        )
    if len(dataset[column]) > MOST_QUERIES:
        raise DemurError(
            f"{source} has more than {MOST_QUERIES} rows: give a part of its split, for example "
            f"{HUB_PREFIX}{parsed.dataset}@{parsed.split or 'train'}[:1000]:{column:.80}."
        )
    queries: list[Query] = []
    blank = 0
    for number, value in enumerate(dataset[column], start=1):
        query = check_query(value, column, f"{source} row {number}")
        query = query.strip() if isinstance(query, str) else query
        blank += not text_of(query)
        queries += [query] if text_of(query) else []
    return spec.removeprefix(HUB_PREFIX), GivenQueries(tuple(queries), blank)


def _load(spec: HubSpec) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DemurError(
            "Queries from the hub need the datasets package: pip install 'demur[datasets]'."
        ) from error
    unreached = None if exists(Path(spec.name)) else _unreached(spec.name)
    try:
        with _quiet(datasets, offline=unreached is not None):
            loaded = datasets.load_dataset(spec.name, spec.config, split=spec.split)
    except Exception as error:  # the package raises a dozen kinds, for the network as for the name
        if unreached is not None:
            raise DemurError(
                f"Cannot load dataset {spec.dataset!r:.200}, because {unreached} and it was not "
                f"fetched before: {_CONNECT}, or give a file."
            ) from error
        raise DemurError(
            f"Cannot load dataset {spec.dataset!r:.200} ({first_line(error):.300}): "
            f"{_fix(datasets, spec)}."
        ) from error
    if spec.split is not None:
        return loaded
    splits = list(map(str, loaded))
    if "train" in splits:
        return loaded["train"]
    if len(splits) == 1:
        return loaded[splits[0]]
    raise DemurError(
        f"Dataset {spec.dataset!r:.200} has the splits {listed(splits)}: choose one with "
        f"{HUB_PREFIX}{spec.dataset}@SPLIT:COLUMN."
    )


def _fix(datasets: Any, spec: HubSpec) -> str:
    """What to do about a dataset that cannot be loaded."""
    configs: list[str] = []
    with suppress(Exception), _quiet(datasets, offline=False):
        configs = list(map(str, datasets.get_dataset_config_names(spec.name)))
    if spec.config not in configs and (spec.config is not None or len(configs) > 1) and configs:
        hint = "" if spec.config is None else did_you_mean(spec.config, configs)
        return (
            f"choose one of its configurations, {listed(configs)}{hint}, with "
            f"{HUB_PREFIX}{spec.name}/CONFIG@SPLIT:COLUMN"
        )
    if configs and spec.split is not None:
        with suppress(Exception), _quiet(datasets, offline=False):
            found = datasets.get_dataset_split_names(spec.name, spec.config)
            return f"its splits are {listed(list(map(str, found)))}"
    return f"check the spelling (private ones need {LOGIN}), or give a file"


def _unreached(name: str) -> str | None:
    """Why the hub does not answer, found out in seconds; None where it answers.

    The package itself tries again and again, for minutes.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi(endpoint=endpoint()).dataset_info(name, timeout=_SECONDS)
    except Exception as error:
        # An answer of the hub itself, even no, is given to the package, whose message is better.
        status = status_of(error)
        refused = isinstance(error, ValueError)  # a name that no repository can have
        if refused or (status is not None and status < 500):
            return None
        return f"the hub does not answer ({first_line(error):.200})"
    return None


@contextmanager
def _quiet(datasets: Any, *, offline: bool) -> Iterator[None]:
    """Without the package's bars and remarks; offline also without its attempts to connect."""
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, before = logger.level, constants.HF_HUB_OFFLINE
    config = getattr(datasets, "config", None)
    own = getattr(config, "HF_HUB_OFFLINE", False)
    disable = getattr(datasets, "disable_progress_bars", None)
    if disable is not None:
        disable()
    logger.setLevel(logging.ERROR)
    try:
        if offline:
            constants.HF_HUB_OFFLINE = True
            if config is not None:
                config.HF_HUB_OFFLINE = True
        yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = before
        if config is not None:
            config.HF_HUB_OFFLINE = own
