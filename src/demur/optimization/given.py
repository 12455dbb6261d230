"""What a caller gave in the place of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel

    from demur.judges import Judge, JudgeSpec
    from demur.optimization.methods import MethodSpec
    from demur.prompts import SafetyPrompt
    from demur.queries import QueryChoice, QuerySet


@dataclass(frozen=True)
class Given:
    """What a caller gave in the place of names; None where the settings name it.

    Attributes:
        basic_prompt: basic prompt.
        judge: judge of refusal.
        method: class of the method.
        sets: queries, by the names of the settings.
    """

    basic_prompt: SafetyPrompt | None = None
    judge: JudgeSpec | None = None
    method: MethodSpec | None = None
    sets: Mapping[str, QueryChoice] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the settings that objects stand for."""
        single = {"basic_prompt": self.basic_prompt, "judge": self.judge, "method": self.method}
        given = [name for name, value in single.items() if value is not None]
        return tuple(sorted([*given, *self.sets]))

    def described(
        self, queries: BaseModel, basic: SafetyPrompt, judge: Judge, sets: Mapping[str, QuerySet]
    ) -> dict[str, object]:
        """Settings that have the names of what was given, to be put in the place of the others.

        Args:
            queries: the settings of the queries.
            basic: the basic prompt.
            judge: the judge of refusal.
            sets: the sets that are used, by the names of the settings.
        """
        names = {name: (sets[name].name,) for name in self.sets if name in sets}
        changed: dict[str, object] = {"queries": queries.model_copy(update=names)}
        if self.basic_prompt is not None:
            changed["basic_prompt"] = basic.name
        if self.judge is not None:
            changed["judge"] = judge.name
        return changed
