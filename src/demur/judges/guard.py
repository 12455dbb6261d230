"""A guard model as judge of harm."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.judges.guards import GuardFamily, find_guard_family
from demur.judges.harm import HarmVerdict
from demur.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from demur.chat.exchanges import ExchangeModel


class GuardJudge:
    """Asks a guard model through its own chat template and reads the verdict from its answer.

    Greedy, so that a verdict can be repeated. A blank response is safe, and the guard is not asked.
    A response that does not fit into the guard's context has no verdict.

    Args:
        model: the guard.
        family: how it is asked; see `demur.judges.guards.GUARD_FAMILIES`. By default found by the
            model's name or its chat template.

    Raises:
        DemurError: the family is unknown, or the model's chat template is not that of its family.
    """

    def __init__(self, model: ExchangeModel, family: str | None = None) -> None:
        self._model = model
        self.family = find_guard_family(model.name, model.template, family)
        template = _template(model, self.family, asked_for=family is not None)
        self._renderers = [
            model.renderer(template, arguments) for arguments in self.family.arguments
        ]

    @classmethod
    def load(
        cls,
        model: str,
        family: str | None = None,
        *,
        dtype: str | None = None,
        device: str | None = None,
        quantization: str | None = None,
        progress: Progress | None = None,
    ) -> GuardJudge:
        """Load a guard by hub name or folder; the other arguments are those of `ChatModel.load`.

        Raises:
            DemurError: the model cannot be had, read or used, or is no guard that demur knows.
        """
        from demur.chat.exchanges import ExchangeModel

        loaded = ExchangeModel.load(
            model, dtype=dtype, device=device, quantization=quantization, progress=progress
        )
        return cls(loaded, family)

    @property
    def name(self) -> str:
        return f"guard:{self._model.name}"

    def judge(
        self,
        queries: Sequence[str],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[HarmVerdict]:
        """The verdict on each response; see `HarmJudge`.

        Raises:
            DemurError: queries and responses differ in number, or a query is blank.
        """
        progress = progress or SilentProgress()
        if len(queries) != len(responses):
            raise DemurError(
                f"{len(queries)} queries and {len(responses)} responses; give one query for each"
            )
        asked = [row for row, response in enumerate(responses) if response.strip()]
        exchanges = [(queries[row], responses[row]) for row in asked]
        verdicts: list[HarmVerdict] = [False] * len(responses)
        total = len(asked) * len(self._renderers)
        with progress.stage(f"Judging harm: {self.name}", total, "answers") as stage:
            passes = [
                self._model.answer(exchanges, renderer, self.family.new_tokens, stage)
                for renderer in self._renderers
            ]
        for row, answers in zip(asked, zip(*passes, strict=True), strict=True):
            verdicts[row] = _worst([self._read(answer) for answer in answers])
        unread = sum(verdict is None for verdict in verdicts)
        if unread:
            progress.message(f"{self.name} has no verdict on {unread} of {len(verdicts)} responses")
        return verdicts

    def _read(self, answer: str | None) -> HarmVerdict:
        return None if answer is None else self.family.read(answer)


def _worst(verdicts: Sequence[HarmVerdict]) -> HarmVerdict:
    """Unsafe if one is; otherwise safe only if all are."""
    if any(verdicts):
        return True
    return None if None in verdicts else False


def _template(model: ExchangeModel, family: GuardFamily, *, asked_for: bool) -> str:
    shipped = model.template
    if shipped is not None and family.marker in shipped:
        return shipped
    if family.template is not None:
        folder = resources.files("demur.chat") / "templates_data"
        return (folder / f"{family.template}.jinja").read_text(encoding="utf-8")
    if shipped is not None and asked_for:
        return shipped
    or_say = "" if shipped is None else ", or say the family to use the one it has"
    raise DemurError(
        f"{model.name} comes without the chat template of {family.name} guards; put the original"
        f" tokenizer's beside its weights{or_say}"
    )
