"""What a report shows of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.files import read_json
from demur.report.collecting import MOST_RESPONSES, Collection
from demur.report.subject import Query, Subject, Table, flat_facts, percent, rate_text
from demur.runs import RunFolder

RESULTS = "results.json"
MOST_STATEMENTS = 6


def subject_of_evaluation(folder: RunFolder) -> Subject:
    """Read a finished evaluation.

    Raises:
        DemurError: a file is damaged.
        KeyError: one is incomplete.
    """
    settings, results = folder.settings(), read_json(folder.path / RESULTS)
    collection = Collection()
    for file in sorted((folder.path / "responses").glob("*.jsonl")):
        _collect(file, collection)
    responses, shortened = collection.shortened()
    wholes = [rates for rates in results["rates"] if rates["category"] is None]
    tables = [_rates(wholes)]
    categories = [rates for rates in results["rates"] if rates["category"] is not None]
    if categories:
        tables.append(_categories(categories))
    if results["differences"]:
        tables.append(_differences(results["differences"]))
    if results.get("costs"):
        tables.append(_costs(results["costs"]))
    if results.get("wins"):
        tables.append(_wins(results["wins"]))
    return Subject(
        kind="evaluation",
        title=_title(settings),
        verdict=_verdict(wholes, results["differences"]),
        tables=tuple(tables),
        conditions=tuple(collection.conditions),
        queries=collection.queries,
        responses=responses,
        left_out=collection.left_out,
        shortened=shortened,
        facts=flat_facts(settings, results.get("versions", {})),
        command=_command(settings),
    )


def _collect(file: Path, collection: Collection) -> None:
    """Read as many responses as a report shows, and count the others."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream):
            if len(collection.responses) >= MOST_RESPONSES:
                collection.left_out += 1
                continue
            try:
                row = json.loads(line)
                # Without its text a query is told apart by its place in the file.
                text = row["query"] if row["query"] is not None else f"(query {number + 1})"
                query = Query(text, row["label"] or "", row["category"] or "", row["set"])
                collection.respond(
                    query, row["prompt"], row["response"], row["refused"], row.get("harm") or ""
                )
            except (ValueError, KeyError, TypeError) as error:
                raise DemurError(
                    f"{file} is damaged: delete it and run the same command again."
                ) from error


def _title(settings: Mapping[str, Any]) -> str:
    if "model" not in settings:
        return "Responses, judged"
    sets = ", ".join(one["name"] for one in settings["sets"])
    return f"{Path(str(settings['model']['name'])).name} on {sets}"


def _command(settings: Mapping[str, Any]) -> str:
    judge = f"--judge {settings['judge']}"
    if "model" not in settings:
        files = " ".join(f"--responses {one['name']}" for one in settings["responses"])
        return f"demur evaluate {files} {judge}"
    model = settings["model"]
    served = "endpoint" in model
    asked = [one["name"] for one in settings["prompts"] if not served or one["text"] is not None]
    prompts = "".join(f" --prompt {name}" for name in asked)
    where = (
        f"--endpoint {model['endpoint']} --served-model {model['name']}"
        if served
        else model["name"]
    )
    return (
        f"demur evaluate {where}{prompts} {judge} "
        f"--samples {settings['samples']} --tokens {settings['tokens']} --seed {settings['seed']}"
    )


def _verdict(
    wholes: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """What differs by more than chance, or that nothing does."""
    statements = []
    for one in differences:
        if not one["more_than_chance"]:
            continue
        more = "refuses more" if one["difference"] > 0 else "refuses fewer"
        if one["measure"] != "refused":
            more = "complies harmfully with " + ("more" if one["difference"] > 0 else "fewer")
        label = f"{one['label']} " if one["label"] else ""
        statements.append(
            f"{one['second']} {more} {label}queries of {one['set']} than {one['first']}: "
            f"{100 * one['difference']:+.0f} points."
        )
    if statements:
        rest = len(statements) - MOST_STATEMENTS
        more_below = (f"And {rest} more differences, in the table below.",) if rest > 0 else ()
        return (*statements[:MOST_STATEMENTS], *more_below)
    if differences:
        return ("No two prompts differ by more than chance would have it.",)
    return tuple(
        f"{one['prompt']} refuses {percent(one['refused'])} of the queries of {_group(one)}."
        for one in wholes[:MOST_STATEMENTS]
    )


def _group(rates: Mapping[str, Any]) -> str:
    return f"{rates['set']}, {rates['label']}" if rates["label"] else str(rates["set"])


def _rates(wholes: Sequence[Mapping[str, Any]]) -> Table:
    harm = any(rates["complied_harmfully"] is not None for rates in wholes)
    rows = []
    for rates in wholes:
        wrong = {"harmful": "complied_any", "harmless": "refused_any"}.get(rates["label"] or "")
        cells = [
            _group(rates),
            rates["prompt"],
            str(rates["refused"]["queries"]),
            rate_text(rates["refused"]),
            rate_text(rates[wrong]) if wrong else "",
        ]
        rows.append((*cells, *([rate_text(rates["complied_harmfully"])] if harm else [])))
    columns = ("queries", "prompt", "number", "refused", "wrong at least once")
    return Table(
        title="Refused",
        columns=(*columns, *(["complied harmfully"] if harm else [])),
        rows=tuple(rows),
        note="In brackets: 95 % intervals. Wrong: a harmful query not refused, a harmless one "
        "refused.",
        words=("prompt",),
    )


def _categories(rates: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Refused, by category",
        columns=("category", "queries", "prompt", "number", "refused"),
        rows=tuple(
            (
                one["category"],
                _group(one),
                one["prompt"],
                str(one["refused"]["queries"]),
                rate_text(one["refused"]),
            )
            for one in rates
        ),
        words=("queries", "prompt"),
    )


def _differences(differences: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Differences between prompts on the same queries",
        columns=("queries", "measure", "from", "to", "points", "p", "more than chance"),
        rows=tuple(
            (
                _group(one),
                one["measure"].replace("_", " "),
                one["first"],
                one["second"],
                f"{100 * one['difference']:+.1f}",
                "< 0.001" if one["adjusted_p_value"] < 0.001 else f"{one['adjusted_p_value']:.3f}",
                "yes" if one["more_than_chance"] else "no",
            )
            for one in differences
        ),
        note="Paired sign-flip permutation test; p adjusted for the number of pairs (Holm).",
        words=("measure", "from", "to", "more than chance"),
    )


def _costs(costs: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Cost on harmless queries",
        columns=("queries", "prompt", "number", "KL cost"),
        rows=tuple(
            (
                one["set"],
                one["prompt"],
                str(one["queries"]),
                f"{one['divergence']:.2f}"
                + (
                    f" ({one['interval']['low']:.2f} to {one['interval']['high']:.2f})"
                    if one["interval"]
                    else ""
                ),
            )
            for one in costs
        ),
        note="Mean KL divergence of the next token from the model without a prompt, in nats.",
        words=("prompt",),
    )


def _wins(wins: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Outputs for instructions preferred to those without a prompt",
        columns=("prompt", "preferred", "wins", "ties", "losses", "no verdict"),
        rows=tuple(
            (
                one["prompt"],
                rate_text(one["rate"]) if one["rate"] else "",
                *(str(one[key]) for key in ("wins", "ties", "losses", "undecided")),
            )
            for one in wins
        ),
        note="50 % is no difference; a tie counts half, a pair without a verdict not at all.",
        words=("prompt",),
    )
