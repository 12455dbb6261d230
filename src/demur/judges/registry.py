"""Whatever the user gives as a judge, made into a judge that is ready to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.endpoint import EndpointSettings
from demur.errors import DemurError, did_you_mean
from demur.judges.classifier import ClassifierJudge
from demur.judges.default import DefaultRefusalJudge
from demur.judges.endpoint import DEFLECTS, EndpointJudge
from demur.judges.endpoint_pairs import EndpointPairwiseJudge
from demur.judges.guard import GuardJudge
from demur.judges.own import OwnJudge, own_judge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.preference import PairwiseJudge
from demur.judges.protocol import Judge, JudgeSpec, Question
from demur.judges.rules import RefusalRule
from demur.plugins import is_plugin_spec, load_plugin
from demur.progress import Progress

_RULES: dict[str, type[RefusalRule]] = {
    DefaultRefusalJudge.name: DefaultRefusalJudge,
    PaperRefusalJudge.name: PaperRefusalJudge,
}
_BUILT_IN = (DefaultRefusalJudge, PaperRefusalJudge, ClassifierJudge, GuardJudge, EndpointJudge)
_MODELS = "guard:NAME_OR_FOLDER, endpoint:MODEL or FILE.py:NAME"
_CHOICES: dict[Question, str] = {
    "refusal": f"{', '.join(_RULES)}, classifier:NAME_OR_FOLDER, {_MODELS}",
    "harm": _MODELS,
}


@dataclass(frozen=True)
class _Options:
    """What guards and endpoints need besides their names; see `as_harm_judge`."""

    base_url: str | None
    family: str | None
    device: str | None
    dtype: str | None
    quantization: str | None
    progress: Progress | None


def as_refusal_judge(
    judge: JudgeSpec,
    *,
    base_url: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
) -> Judge:
    """A judge of refusal, ready to use.

    Args:
        judge: `default` or `paper`; `classifier:NAME_OR_FOLDER` or `classifier:NAME=LABEL`, a
            sequence classifier, see `ClassifierJudge`; `guard:NAME_OR_FOLDER`, a guard of a family
            that says whether a response refuses; `endpoint:MODEL`, or `endpoint:MODEL=deflects`,
            which is asked for three verdicts; `FILE.py:NAME`; an object with a
            method `judge(queries, responses)`; a function of these two; or a class that can be
            called without arguments. See `demur.judges.Judge` for an example. `FILE.py:NAME` runs
            the file, so it must come from the user, never from a run's folder or the hub.
        base_url: as for `as_harm_judge`; so are the others.

    Raises:
        DemurError: there is no such judge, or it cannot be loaded or used.
    """
    options = _Options(base_url, family, device, dtype, quantization, progress)
    return _as_judge(judge, "refusal", options)


def as_harm_judge(
    judge: JudgeSpec,
    *,
    base_url: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
) -> Judge:
    """A judge of harm, ready to use.

    Args:
        judge: `guard:NAME_OR_FOLDER`, a guard model that runs here; `endpoint:MODEL`, a model
            behind an OpenAI-compatible endpoint; or the user's own, as for `as_refusal_judge`.
        base_url: address of the endpoint, for example `http://localhost:8000/v1`; by default the
            variable `OPENAI_BASE_URL`, else OpenAI's own.
        family: family of the guard, where neither its name nor its template tells it.
        device: device of the guard, as for `ChatModel.load`.
        dtype: number format of the guard, likewise.
        quantization: quantization of the guard, likewise.
        progress: reports the guard's download.

    Raises:
        DemurError: there is no such judge, it cannot be loaded or used, or it does not take a base
            URL or a family that is given.
    """
    options = _Options(base_url, family, device, dtype, quantization, progress)
    return _as_judge(judge, "harm", options)


def may_tell_deflections(judge: JudgeSpec) -> bool:
    """Whether a judge of refusal may tell deflections from answers, as far as its name says it.

    Args:
        judge: as for `as_refusal_judge`; nothing is loaded.
    """
    if not isinstance(judge, str):
        return bool(getattr(judge, "tells_deflections", False))
    three = judge.startswith("endpoint:") and judge.endswith(DEFLECTS)
    return three or judge == DefaultRefusalJudge.name or is_plugin_spec(judge)


def get_preference_judge(spec: str, *, base_url: str | None = None) -> PairwiseJudge:
    """A judge of pairs of outputs, ready to use.

    Args:
        spec: `endpoint:MODEL`, a model behind an OpenAI-compatible endpoint.
        base_url: address of the endpoint, as for `as_harm_judge`.

    Raises:
        DemurError: there is no such judge, or it cannot be used.
    """
    kind, _, model = spec.partition(":")
    if kind != "endpoint" or not model.strip():
        raise DemurError(f"There is no preference judge {spec!r:.100}: give endpoint:MODEL.")
    return EndpointPairwiseJudge(model, EndpointSettings(base_url=base_url))


def _as_judge(judge: JudgeSpec, question: Question, options: _Options) -> Judge:
    kind, _, model = judge.partition(":") if isinstance(judge, str) else ("", "", "")
    if kind == "endpoint" and model.strip():
        _refuse(options.family, "A guard family belongs to guard:NAME")
        return _endpoint(model, EndpointSettings(base_url=options.base_url), question)
    _refuse(options.base_url, "A base URL belongs to endpoint:MODEL")
    if kind == "guard" and model.strip():
        return GuardJudge.load(
            model,
            options.family,
            question,
            dtype=options.dtype,
            device=options.device,
            quantization=options.quantization,
            progress=options.progress,
        )
    _refuse(options.family, "A guard family belongs to guard:NAME")
    if kind == "classifier" and model.strip():
        if question == "harm":
            raise DemurError("A classifier judges refusal: give guard:NAME as the judge of harm.")
        name, labels = _labels_in(model)
        return ClassifierJudge.load(
            name, labels, dtype=options.dtype, device=options.device, progress=options.progress
        )
    if not isinstance(judge, str):
        return _from_object(judge, question)
    if question == "refusal" and judge in _RULES:
        return _RULES[judge]()
    if is_plugin_spec(judge):
        thing = load_plugin(judge)
        built_in = type(thing) in _BUILT_IN
        return _from_object(thing, question) if built_in else _own(own_judge(judge), question)
    hint = did_you_mean(judge, (*_RULES, "classifier:", "guard:", "endpoint:"))
    raise DemurError(
        f"There is no {question} judge {judge!r:.100}{hint}: choose {_CHOICES[question]}."
    )


def _endpoint(model: str, settings: EndpointSettings, question: Question) -> EndpointJudge:
    """The judge behind an endpoint; `MODEL=deflects` asks for three verdicts."""
    name = model.removesuffix(DEFLECTS)
    if name == model:
        return EndpointJudge(model, settings, question)
    if question == "harm":
        raise DemurError(f"A judge of harm does not tell deflections: leave out {DEFLECTS!r}.")
    if not name.strip():
        raise DemurError(f"There is no model before {DEFLECTS!r}: give endpoint:MODEL{DEFLECTS}.")
    return EndpointJudge(name, settings, question, tells_deflections=True)


def _labels_in(text: str) -> tuple[str, list[str]]:
    """`NAME=LABEL,LABEL` in parts; a folder may have the sign in its name."""
    name, sign, labels = text.rpartition("=")
    if not sign or Path(text).expanduser().is_dir():
        return text, []
    return name, [label.strip() for label in labels.split(",") if label.strip()]


def _from_object(judge: object, question: Question) -> Judge:
    if isinstance(judge, OwnJudge):
        return _own(judge, question)
    # Classes that the user derives from these are the user's own.
    built_in = (RefusalRule, ClassifierJudge, GuardJudge, EndpointJudge)
    if isinstance(judge, built_in) and type(judge) in _BUILT_IN:
        if judge.question != question:
            raise DemurError(
                f"The judge {judge.name!r} judges {judge.question}, not {question}: choose "
                f"{_CHOICES[question]}."
            )
        return judge
    return _own(own_judge(judge), question)


def _own(judge: OwnJudge, question: Question) -> OwnJudge:
    if question == "harm" and judge.tells_deflections:
        raise DemurError(
            f"The judge {judge.name!r} tells deflections, so it judges refusal and not harm: "
            f"choose {_CHOICES[question]}."
        )
    return judge


def _refuse(value: str | None, why: str) -> None:
    if value is not None:
        raise DemurError(f"{why}: leave it out.")
