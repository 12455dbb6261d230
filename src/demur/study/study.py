"""A study: models x prompts x methods x seeds, measured alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from demur.progress import Progress
from demur.study.planning import StudyPlan, folder_of, plan_study
from demur.study.results import FinishedStudy
from demur.study.settings import StudySettings, read_study, study_settings
from demur.study.storage import checked_url
from demur.study.travel import CellStorage
from demur.study.work import Runner, do_study


class Study:
    """Models, prompts, methods and seeds; every combination is trained and measured alike.

    Args:
        name: name of the study.
        output: folder of the study; by default one below `demur-studies` with the study's name.
        storage: URL of a folder that `fsspec` knows, for example `s3://bucket/studies/mine`, where
            finished cells are stored as well and are taken from; see `docs/cluster.md`.
        **given: what a study's file has, with its tables as dictionaries: `models`,
            `basic_prompts`, `prompts`, `methods`, `seeds`, `training`, `load`, `queries`, `judges`,
            `sampling`, `system_prompt`.

    Raises:
        DemurError: there is no such key, or a value is missing or out of range.

    Example:
        >>> study = Study(
        ...     "mine",
        ...     models=["qwen2.5-coder-0.5b"],
        ...     basic_prompts=["long", "short"],
        ...     methods={"dro": {}, "likelihood": {"epochs": 2}},
        ...     seeds=[0, 1],
        ... )
        >>> print(study.plan())  # doctest: +SKIP
        >>> print(study.run())  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str = "study",
        *,
        output: str | Path | None = None,
        storage: str | None = None,
        **given: Any,
    ):
        self.settings: StudySettings = study_settings(given, name)
        self.output, self.storage = output, storage

    @classmethod
    def load(
        cls, path: str | Path, output: str | Path | None = None, storage: str | None = None
    ) -> Study:
        """Read a study's file.

        Args:
            path: TOML file.
            output: folder of the study, as for `Study`.
            storage: URL of a folder, as for `Study`.

        Raises:
            DemurError: the file cannot be read, has an unknown key, or a value is missing or out
                of range.
        """
        study = cls.__new__(cls)
        study.settings, study.output, study.storage = read_study(path), output, storage
        return study

    @property
    def path(self) -> Path:
        """The folder of the study."""
        return folder_of(self.settings, self.output)

    def plan(self, progress: Progress | None = None) -> StudyPlan:
        """The cells with what they cost; no model is loaded and nothing is written.

        Args:
            progress: reports downloads of query sets.

        Raises:
            DemurError: something cannot be read or does not fit together.
        """
        if self.storage is not None:
            checked_url(self.storage)  # before anything else is read
        plan = plan_study(self.settings, self.output, progress)
        return plan if self.storage is None else _with_storage(plan, self.storage)

    def run(self, progress: Progress | None = None, runner: Runner | None = None) -> FinishedStudy:
        """Do what is left, and write tables, figures and pages.

        The same call goes on where an earlier one stopped. A cell that fails does not stop the
        others: see `failures` of the result.

        Args:
            progress: reports progress.
            runner: what does the cells, for example `RayCluster()`; by default this process, one
                after another.

        Raises:
            DemurError: something cannot be read or does not fit together.
        """
        plan = self.plan(progress)
        do_study(plan, progress, runner)
        finished = FinishedStudy.load(plan.path)
        finished.write(progress, pages=False)
        return finished


def _with_storage(plan: StudyPlan, url: str) -> StudyPlan:
    """The plan of a study whose cells are stored at a URL as well; nothing is written.

    Args:
        plan: the study.
        url: address of the study's folder there.

    Raises:
        DemurError: the address cannot be used, another study is there, or a cell was done there
            with other settings.
    """
    storage = CellStorage(url)
    there = () if storage.owner(plan.record.name) is None else storage.cells(plan.record.cells)
    return replace(plan, storage=storage, stored=frozenset(there))
