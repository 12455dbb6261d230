"""The judges of refusal by name."""

from __future__ import annotations

from collections.abc import Callable

from demur.errors import DemurError
from demur.judges.default import DefaultRefusalJudge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.protocol import RefusalJudge

_JUDGES: dict[str, Callable[[], RefusalJudge]] = {
    PaperRefusalJudge.name: PaperRefusalJudge,
    DefaultRefusalJudge.name: DefaultRefusalJudge,
}


def get_refusal_judge(name: str) -> RefusalJudge:
    """The refusal judge called `name`: `paper` or `default`.

    Raises `DemurError` for any other name.
    """
    if name not in _JUDGES:
        known = ", ".join(sorted(_JUDGES))
        raise DemurError(f"there is no refusal judge {name!r:.60}; choose one of: {known}")
    return _JUDGES[name]()
