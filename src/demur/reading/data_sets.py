"""Data sets on the Hugging Face hub or in a folder, through the optional `datasets` package."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

from demur.errors import DemurError, did_you_mean, first_line
from demur.hub.failures import LOGIN, endpoint, explained_download, status_of
from demur.reading.files import NoWatch, Watch
from demur.reading.row import Row, listed

HUB_PREFIX = "hf:"
FORM = "hf:ORG/NAME:COLUMN, or with a configuration and a split hf:ORG/NAME/CONFIG@SPLIT:COLUMN"

_SECONDS = 10.0
_TOO_MANY = 429
_CONNECT = "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE"
_PAGE = re.compile(r"hf:https?://[^/]+/datasets/")
# A split may be a slice with a colon in it, as in `train[:100]`.
_SPEC = re.compile(
    r"hf:(?P<name>[^@:\s]+)(?:@(?P<split>[^:\[]+(?:\[[^\]]*\])?))?(?::(?P<column>.+))?"
)
_ABOVE = (".", "..", "~")
_NO_TEXTS = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")
"""Kinds of columns that hold no texts, and need packages of their own to be read."""


@dataclass(frozen=True)
class DataSet:
    """A split of a data set, and a column of it.

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
    def parse(cls, spec: str) -> DataSet:
        """Take a spec apart.

        Raises:
            DemurError: it is malformed.

        Example:
            >>> DataSet.parse("hf:org/name/parts@test:goal").config
            'parts'
        """
        match = _SPEC.fullmatch(_PAGE.sub(HUB_PREFIX, spec))
        if match is None:
            raise DemurError(f"Cannot read {spec!r:.300}: write {FORM}.")
        name, config = match["name"].rstrip("/"), None
        head, _, tail = name.rpartition("/")
        is_folder = _is_path(name)
        is_set = _exists(head) and head not in _ABOVE if is_folder else head.count("/") == 1
        if not _exists(name) and is_set:
            name, config = head, tail
        return cls(name, config, match["split"], match["column"])

    @property
    def dataset(self) -> str:
        """The data set with its configuration, as people write it."""
        return self.name if self.config is None else f"{self.name}/{self.config}"

    @property
    def source(self) -> str:
        """The data set with configuration and split, as people write it."""
        return self.dataset if self.split is None else f"{self.dataset}@{self.split}"

    @cached_property
    def loaded(self) -> Any:
        """The rows, without the columns that hold no texts.

        Without a connection, what was fetched before is used.

        Raises:
            DemurError: `datasets` is not installed, the data set cannot be loaded, or it has
                several configurations or splits and none is named.
        """
        found = _load(self)
        others = [name for name, kind in found.features.items() if type(kind).__name__ in _NO_TEXTS]
        return found.remove_columns(others) if others else found

    def rows(self, watch: Watch | None = None) -> Iterator[Row]:
        """The rows, one at a time.

        Args:
            watch: sees each row, as JSON.

        Raises:
            DemurError: it cannot be loaded, or not be read.
        """
        watch = watch or NoWatch()
        loaded = self.loaded
        try:
            for number, value in enumerate(loaded, start=1):
                watch.seen(json.dumps(value, sort_keys=True, default=repr).encode("ascii") + b"\n")
                yield Row(f"Dataset {self.dataset!r:.200} row {number}", value)
        except DemurError:
            raise
        except Exception as error:  # of the package, for a file that is damaged
            raise DemurError(
                f"Cannot read dataset {self.dataset!r:.200} ({first_line(error):.300}): fetch it "
                "again, or give a file."
            ) from error


def _load(spec: DataSet) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DemurError(
            "Data sets need the package datasets: run `pip install 'demur[datasets]'`."
        ) from error
    except Exception as error:  # for example of an address of the hub that is none
        raise DemurError(
            f"The datasets package cannot be used ({first_line(error):.200}): check HF_ENDPOINT, "
            "or install it again."
        ) from error
    is_here = _exists(spec.name)
    if _is_path(spec.name) and not (is_here and Path(spec.name).is_dir()):
        problem = "is a file" if is_here else "is no folder here"
        raise DemurError(
            f"{spec.name!r:.300} {problem}: give the folder of a data set, or a file without "
            f"{HUB_PREFIX!r}."
        )
    try:
        with without_waiting(datasets, spec.name, "give a file"):
            loaded = datasets.load_dataset(spec.name, spec.config, split=spec.split)
    except DemurError:
        raise
    except Exception as error:  # the package raises a dozen kinds, for the network as for the name
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


@contextmanager
def without_waiting(datasets: Any, name: str, otherwise: str) -> Iterator[None]:
    """Load a data set without the minutes in which the package asks a silent hub again.

    Where the hub does not answer, what was fetched before is used.

    Args:
        datasets: the package.
        name: the data set, a folder here, or a format of the package such as `json`.
        otherwise: what can be done where the hub does not answer, for messages.

    Raises:
        DemurError: the hub does not answer and the data set was not fetched before; or the hub says
            that there is none, or not for this user. Other errors of the package are left alone.
    """
    formats = getattr(getattr(datasets, "packaged_modules", None), "_PACKAGED_DATASETS_MODULES", {})
    unreached = None if _exists(name) or name in formats else _unreached(name)
    try:
        with _quiet(datasets, offline=unreached is not None):
            yield
    except Exception as error:  # of a dozen kinds
        if unreached is None:
            raise
        raise DemurError(
            f"Cannot load dataset {name!r:.200}, because {unreached} and it was not fetched "
            f"before: {_CONNECT}, or {otherwise}."
        ) from error


def _fix(datasets: Any, spec: DataSet) -> str:
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

    Raises:
        DemurError: the hub says that there is no such data set, or not for this user.
    """
    answers: list[BaseException | None] = []

    def ask() -> None:
        try:
            from huggingface_hub import HfApi

            HfApi(endpoint=endpoint()).dataset_info(name, timeout=_SECONDS)
            answers.append(None)
        except Exception as error:  # several kinds, of the address as of the connection
            answers.append(error)

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    # In a thread, since an answer that comes in drops is never late by itself.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS + 1)
    if not answers:
        return f"the hub does not answer within {_SECONDS:.0f} seconds"
    problem = answers[0]
    if problem is None:
        return None
    status = status_of(problem)
    is_answer = status is not None and status < 500 and status != _TOO_MANY
    if is_answer or type(problem).__name__ == "HFValidationError":
        with explained_download(name):
            raise problem
    return f"the hub does not answer ({first_line(problem):.200})"


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


def _is_path(name: str) -> bool:
    """Whether a name is written as that of a folder."""
    return name.startswith((".", "/", "~")) or Path(name).is_absolute()


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name too long, or one that no file can have
        return False
