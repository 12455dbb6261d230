"""Running tasks of lm-eval, and what is read of its results.

This module needs lm-eval. It is imported where a check begins.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from unittest.mock import patch

from demur.capability.settings import NEEDS_LM_EVAL
from demur.errors import DemurError, did_you_mean, first_line
from demur.reading import without_waiting

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

try:
    import datasets
    import lm_eval
    from datasets.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from lm_eval import evaluator
    from lm_eval.api import task as lm_eval_task
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise DemurError(NEEDS_LM_EVAL) from error

from demur.capability.language_model import ConditionedModel
from demur.capability.results import MetricValues, TaskScores

VERSION = str(lm_eval.__version__)
_OWN_TASK = "give a task of your own with --include-path"
_NO_TASK = "give another --tasks, or the folder of its YAML file with --include-path"


class Harness:
    """The tasks of lm-eval.

    Args:
        include_path: folder with further tasks, or None.

    Raises:
        DemurError: the folder is missing, or holds a file that cannot be read.
    """

    def __init__(self, include_path: str | None = None) -> None:
        if include_path is not None and not Path(include_path).is_dir():
            raise DemurError(
                f"There is no folder {include_path!r:.300}: name the one with the YAML files of "
                "your tasks."
            )
        with _quiet(), _explained("The tasks of lm-eval cannot be read", "check --include-path"):
            self._manager = TaskManager(include_path=include_path)

    def check(self, tasks: Sequence[str]) -> None:
        """Find tasks that do not exist or whose data cannot be had, before anything slow.

        Raises:
            DemurError: there is one.
        """
        for number, name in enumerate(tasks):
            if name in tasks[:number]:
                raise DemurError(f"The task {name!r:.100} is given twice: leave one out.")
            known = list(self._manager.all_tasks)
            if name not in known:
                raise DemurError(
                    f"lm-eval has no task {name!r:.100}{did_you_mean(name, known)}: {_NO_TASK}."
                )
        for name in tasks:
            with (
                _quiet(),
                _explained(
                    f"The task {name!r:.100} cannot be loaded",
                    "correct its YAML file if it is yours, or choose another task",
                ),
            ):
                self._manager.load([name])

    def scores(
        self, model: ConditionedModel, task: str, limit: int, fewshot: int | None
    ) -> tuple[TaskScores, ...]:
        """What a model scores on a task, or on each task of a group.

        Args:
            model: the model under its condition.
            task: name of the task.
            limit: number of samples, at most.
            fewshot: number of solved examples; None for the task's own.

        Raises:
            DemurError: the task cannot be run.
        """
        with _quiet(), _explained(f"The task {task!r:.100} cannot be run", "choose another one"):
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=[task],
                limit=limit,
                num_fewshot=fewshot,
                task_manager=self._manager,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
                bootstrap_iters=0,
                log_samples=True,
            )
        samples: Mapping[str, list[dict[str, Any]]] = found["samples"]
        return tuple(
            _scores(name, found["results"][name], found["versions"].get(name), rows)
            for name, rows in sorted(samples.items())
        )


def _scores(
    name: str, result: Mapping[str, Any], version: object, rows: Sequence[Mapping[str, Any]]
) -> TaskScores:
    """What is kept of a task's results.

    Raises:
        DemurError: a metric is no number, or there is none that is one.
    """
    metrics: list[MetricValues] = []
    for key, value in result.items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr"):
            continue
        if isinstance(value, float) and not isfinite(value):
            raise DemurError(
                f"The metric {metric!r:.60} of the task {name!r:.100} is {value} and no number: "
                "choose another --tasks, or correct its YAML file if it is yours."
            )
        if not _is_number(value):  # of several values, for example
            continue
        of_filter = sorted(
            (row for row in rows if row["filter"] == kind), key=lambda row: int(row["doc_id"])
        )
        values = [row.get(metric) for row in of_filter]
        numbers = [float(one) for one in values if _is_number(one)]  # type: ignore[arg-type]
        whole = tuple(numbers) if len(numbers) == len(values) else ()
        metrics.append(MetricValues(metric, kind, float(value), whole))
    if not metrics:
        raise DemurError(
            f"The task {name!r:.100} has no metric that is a number: choose another --tasks."
        )
    documents = {int(row["doc_id"]): str(row["doc_hash"]) for row in rows}
    return TaskScores(
        task=name,
        version=str(version),
        documents=tuple(documents[place] for place in sorted(documents)),
        metrics=tuple(metrics),
    )


def _is_number(value: object) -> bool:
    """Whether a value of lm-eval is a finite number; it has numbers of several packages."""
    try:
        return value is not None and not isinstance(value, str) and isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and lines of lm-eval: the stages say the same.

    It would also ask git for the commit of whatever folder the command is given in.
    """
    logger = logging.getLogger("lm_eval")
    before, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        with (
            patch.object(lm_eval_task, "tqdm", lambda items, **_: items),
            patch.object(evaluator, "get_git_commit_hash", lambda: None),
            patch.object(datasets, "load_dataset", _explaining(datasets.load_dataset)),
        ):
            yield
    finally:
        logger.setLevel(before)
        if bars:
            enable_progress_bars()


class _NoDataError(Exception):
    """The data of a task cannot be loaded; the message says why."""


def _explaining(load: Callable[..., Any]) -> Callable[..., Any]:
    """The loading of a data set, which is given up soon where the hub does not answer."""

    def load_dataset(path: str, *more: Any, **options: Any) -> Any:
        try:
            with without_waiting(datasets, str(path), _OWN_TASK):
                return load(path, *more, **options)
        except DemurError:
            raise
        except Exception as error:  # of a dozen kinds
            raise _NoDataError(f"{type(error).__name__}: {first_line(error):.200}") from error

    return load_dataset


@contextmanager
def _explained(what: str, fix: str) -> Iterator[None]:
    """Turn whatever a task raises into a `DemurError`; a task is a program of a stranger."""
    try:
        yield
    except DemurError:
        raise
    except _NoDataError as error:
        raise DemurError(
            f"{what} ({error}): its data cannot be had, so check its path, the connection, "
            f"HF_ENDPOINT and HF_HUB_OFFLINE, or {_OWN_TASK}."
        ) from error
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_line(error):.200}"
        raise DemurError(f"{what} ({reason}): {fix}.") from error
