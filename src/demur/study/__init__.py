"""Studies: models x prompts x methods x seeds, to tables, tests and figures.

`settings` reads the file, `planning` makes the cells and says what they cost, and `work` does them
here, or `cluster` on many machines. `results` reads what came of them and makes tables, figures and
pages. `recheck` compares a study with an earlier one.
"""

from typing import TYPE_CHECKING

from demur.lazy import lazy_names

if TYPE_CHECKING:
    from demur.study.cluster import RayCluster
    from demur.study.planning import StudyPlan, plan_study
    from demur.study.recheck import StudyCheck, check_study
    from demur.study.record import KIND
    from demur.study.results import FinishedStudy
    from demur.study.settings import StudySettings, read_study
    from demur.study.study import Study
    from demur.study.work import do_study
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "KIND": "demur.study.record",
            "FinishedStudy": "demur.study.results",
            "RayCluster": "demur.study.cluster",
            "StudyCheck": "demur.study.recheck",
            "check_study": "demur.study.recheck",
            "Study": "demur.study.study",
            "StudyPlan": "demur.study.planning",
            "StudySettings": "demur.study.settings",
            "do_study": "demur.study.work",
            "plan_study": "demur.study.planning",
            "read_study": "demur.study.settings",
        },
    )

__all__ = [
    "KIND",
    "FinishedStudy",
    "RayCluster",
    "Study",
    "StudyCheck",
    "StudyPlan",
    "StudySettings",
    "check_study",
    "do_study",
    "plan_study",
    "read_study",
]
