"""Whether two evaluations can be compared: the same judge, the same sampling, the same queries."""

from __future__ import annotations

from demur.errors import DemurError
from demur.evaluation.comparison import Comparison
from demur.evaluation.record import EvaluationRecord, JudgeRecord
from demur.queries.turns import THIRD, name_in_turn
from demur.records import FilesRecord, ModelRecord


def recorded(comparison: Comparison, what: str) -> EvaluationRecord:
    """What an evaluation measured, and how.

    Args:
        comparison: the evaluation.
        what: what it is called in a message, for example `baseline`.

    Raises:
        DemurError: it is not an evaluation, and does not say how it was measured.
    """
    if comparison.settings is None:
        raise DemurError(
            f"The {what} is not an evaluation: give the folder of one, which demur evaluate writes."
        )
    return comparison.settings


def require_comparable(before: EvaluationRecord, after: EvaluationRecord) -> None:
    """Check that verdicts of two evaluations mean the same, and are about the same queries.

    Raises:
        DemurError: their judges, samples or limits of tokens differ, or they share no query set.
    """
    _require_judge("judge", "--judge", before.judge, after.judge)
    _require_judge("judge of harm", "--harm-judge", before.harm_judge, after.harm_judge)
    if not before.conditions or not after.conditions:
        return  # how responses in files were sampled is not known
    for name, option, old, new in (
        ("samples", "--samples", before.settings.sampling.samples, after.settings.sampling.samples),
        ("tokens", "--tokens", before.most_tokens, after.most_tokens),
    ):
        if old != new:
            raise DemurError(
                f"The evaluations differ in {name}, {old} before and {new} after, so that their "
                f"rates cannot be compared: measure with {option} {old}."
            )
    known = {text for one in before.sets for text in (one.name, one.fingerprint)}
    if not any(one.name in known or one.fingerprint in known for one in after.sets):
        names = ", ".join(one.name for one in before.sets)
        raise DemurError(
            f"The evaluations share no queries: measure those of the one before, {names:.200}."
        )


def require_same_queries(before: EvaluationRecord, after: EvaluationRecord) -> None:
    """Check that every set of the evaluation before is measured again, with the same queries.

    Raises:
        DemurError: a set is missing or has other queries.
    """
    if not before.conditions or not after.conditions:
        return  # files name their sets row by row
    known = {one.fingerprint for one in after.sets}
    names = {one.name for one in after.sets}
    for one in before.sets:
        if one.fingerprint in known:
            continue
        if one.name in names:
            seed = before.settings.sampling.seed
            fix = "measure the same queries, or make a new baseline with these"
            if one.name.endswith(name_in_turn("", THIRD)) and seed != after.settings.sampling.seed:
                fix = (
                    f"what stands before them follows from the seed, so measure with --seed {seed}"
                )
            raise DemurError(
                f"The queries of {one.name!r:.100} are others than in the baseline: {fix}."
            )
        raise DemurError(
            f"The baseline has queries {one.name!r:.100}, which are not measured now: measure them "
            "as well, or make a new baseline without them."
        )


def differences(before: EvaluationRecord, after: EvaluationRecord) -> list[str]:
    """What else differs between two evaluations, a sentence each."""
    found: list[str] = []
    old, new = before.answerer, after.answerer
    if type(old) is not type(new):
        found.append(f"Before, {_kind(old)} answered, and after, {_kind(new)}.")
    elif not isinstance(new, FilesRecord) and old.fingerprint != new.fingerprint:
        names = (getattr(old, "name", ""), getattr(new, "name", ""))
        told = f": {names[0]} before, {names[1]} after" if names[0] != names[1] else ""
        found.append(f"The model or how it computes is another one{told}.")
    seeds = before.settings.sampling.seed, after.settings.sampling.seed
    if before.conditions and after.conditions and seeds[0] != seeds[1]:
        found.append(f"The seed was {seeds[0]} before and is {seeds[1]} after.")
    if before.system_prompt != after.system_prompt:
        found.append("The application's own system text is another one.")
    return found


def _kind(answerer: object) -> str:
    if isinstance(answerer, ModelRecord):
        return "a model here"
    return "files" if isinstance(answerer, FilesRecord) else "a server"


def _require_judge(
    what: str, option: str, old: JudgeRecord | None, new: JudgeRecord | None
) -> None:
    if (old and old.fingerprint) == (new and new.fingerprint):
        return
    before, after = (None if one is None else one.name for one in (old, new))
    if before == after:
        raise DemurError(
            f"The {what} {str(after)!r:.100} is not as it was in the evaluation before, in its "
            "rules, model or endpoint: measure that evaluation again."
        )
    fix = (
        f"measure without {option}" if before is None else f"measure with {option} {before!r:.100}"
    )
    raise DemurError(
        f"The {what} is {str(before or 'none')!r:.100} before and {str(after or 'none')!r:.100} "
        f"after, so that verdicts cannot be compared: {fix}."
    )
