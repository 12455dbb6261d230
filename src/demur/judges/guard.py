"""A guard model as a judge of harm or of refusal."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from demur.bars import default_progress
from demur.errors import DemurError
from demur.judges.checks import require_equal, require_queries, say_missing
from demur.judges.guards import GuardFamily, find_guard_family
from demur.judges.protocol import Decision, Question
from demur.progress import Progress
from demur.records import answer_in
from demur.records.fingerprint import fingerprint

if TYPE_CHECKING:
    from demur.chat.exchanges import ExchangeModel

VERSION = 2
"""Version of the guard judges; goes up whenever a change to their code may change a verdict."""


class GuardJudge:
    """Asks a guard model through its own chat template and reads the verdict from its answer.

    The guard answers greedily, so that verdicts can be repeated. It reads what follows a reasoning.
    A blank response is safe and does not refuse; the guard is not asked about it. A response that
    does not fit into the guard's context, or is reasoning alone, has no verdict.

    Args:
        model: the guard.
        family: name of a family in `demur.judges.guards.GUARD_FAMILIES`; by default found by the
            model's name or its chat template.
        question: `harm` (True: unsafe) or `refusal` (True: refuses), which some families answer.

    Raises:
        DemurError: the family is unknown or does not answer the question, or the model's chat
            template is not that of its family.
    """

    needs_query = True

    def __init__(
        self, model: ExchangeModel, family: str | None = None, question: Question = "harm"
    ) -> None:
        self._model = model
        self.question: Question = question
        self.family = find_guard_family(model.name, model.template, family)
        self._read = self.family.reader(question)
        self._template = _template(model, self.family, asked_for=family is not None)
        self._renderers = [
            model.renderer(self._template, arguments) for arguments in self.family.arguments
        ]

    @classmethod
    def load(
        cls,
        model: str,
        family: str | None = None,
        question: Question = "harm",
        *,
        dtype: str | None = None,
        device: str | None = None,
        quantization: str | None = None,
        progress: Progress | None = None,
    ) -> GuardJudge:
        """Load a guard by hub name or folder; the other arguments are those of `ChatModel.load`.

        Raises:
            DemurError: the model cannot be fetched, read or used, or is not a guard that demur
                knows.
        """
        from demur.chat.exchanges import ExchangeModel

        loaded = ExchangeModel.load(
            model, dtype=dtype, device=device, quantization=quantization, progress=progress
        )
        return cls(loaded, family, question)

    @property
    def name(self) -> str:
        return f"guard:{self._model.name}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the model, its template and what it is asked."""
        return fingerprint(
            "guard judge",
            version=VERSION,
            model=self._model.fingerprint,
            family=self.family.name,
            question=self.question,
            template=self._template,
            arguments=self.family.arguments,
            new_tokens=self.family.new_tokens,
        )

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        """Judge each response; None where the guard's answer holds no verdict.

        Args:
            queries: texts of the queries; one is needed for each response that is not blank.
            responses: as many texts.
            progress: reports progress, and how many responses have no verdict.

        Raises:
            DemurError: queries and responses differ in number, or a query is missing or blank.
        """
        progress = progress or default_progress()
        require_equal("queries", queries, responses)
        answers_in = [answer_in(response) for response in responses]
        asked = [row for row, answer in enumerate(answers_in) if answer and answer.strip()]
        known = require_queries(self.name, [queries[row] for row in asked])
        exchanges = [
            (query, answers_in[row] or "") for query, row in zip(known, asked, strict=True)
        ]
        verdicts: list[Decision] = [None if answer is None else False for answer in answers_in]
        total = len(asked) * len(self._renderers)
        stage_name = f"Judging {self.question}: {self.name}"
        with progress.stage(stage_name, total, "answers") as stage:
            passes = [
                self._model.answer(exchanges, renderer, self.family.new_tokens, stage)
                for renderer in self._renderers
            ]
        for row, answers in zip(asked, zip(*passes, strict=True), strict=True):
            verdicts[row] = _combined(
                [None if answer is None else self._read(answer) for answer in answers]
            )
        say_missing(self.name, verdicts, progress)
        return verdicts


def _combined(verdicts: Sequence[Decision]) -> Decision:
    """True if one is True, False if all are False, else None."""
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
    or_give = "" if shipped is None else ", or give the family to use the template that it has"
    raise DemurError(
        f"{model.name!r:.200} comes without the chat template of {family.name} guards: put that of "
        f"the original tokenizer beside its weights{or_give}."
    )
