"""Runs against each other, and plans for the next: `compare` and `power` of the command line.

The statistics are those of the report; this module finds the files and puts the answer in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import workspace
from pipeline.errors import NotReady, UsageError
from pipeline.paths import RunPaths
from pipeline.workspace import Record

Document = dict[str, Any]


def compare(first: str, second: str) -> Document:
    """`RID[:trial[:condition]]` against another, paired on shared items; the same document as `significance.json`.

    The condition defaults to the first treatment. Raises UnknownRun, UsageError or NotReady.
    """
    from pipeline.statistics.analysis import compare as compare_scores
    from pipeline.statistics.settings import StatisticsSettings
    from pipeline.statistics.table import read_scores

    record, scores_a, condition_a = _find(first)
    _, scores_b, condition_b = _find(second)
    settings = StatisticsSettings.of(record.config["statistics"])
    names = (first, second) if first != second else (f"{first} (1)", f"{second} (2)")
    return compare_scores(read_scores(scores_a), condition_a, read_scores(scores_b), condition_b, settings, names)


def compare_text(document: Document, first: str, second: str) -> Iterator[str]:
    """One line per temperature, type and metric."""
    yield f"{second} minus {first}, paired on shared items"
    for temp, types in document["results"].items():
        for kind, block in types.items():
            for metric, numbers in block["metrics"].items():
                yield f"t={temp} {kind:<6} {metric:<18} {_words(numbers)}"


def _words(numbers: Document) -> str:
    delta = numbers["delta_mean"]
    if delta is None:
        return f"n={numbers['n_pairs']}: not defined"
    primary = numbers["primary"]  # where items share clusters, the test and interval that allow for it
    interval, p = primary["ci_95"], primary["p_value"]
    between = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval and interval[0] is not None else ""
    return f"{delta:+.4f}{between}  p={'-' if p is None else format(p, '.4g')}  n={numbers['n_pairs']}"


def _find(text: str) -> tuple[Record, Path, str]:
    rid, _, rest = text.partition(":")
    slug, _, condition = rest.partition(":")
    run = RunPaths.of(rid)
    try:
        record = workspace.read_record(run.record)
    except FileNotFoundError:
        raise workspace.unknown_run(rid) from None
    if not slug and len(record.trials) > 1:
        raise UsageError(f"run {rid} has {len(record.trials)} trials.", hint=f"say {rid}:{record.trials[0]}")
    slug = slug or record.trials[0]
    if slug not in record.trials:
        raise UsageError(f"run {rid} has no trial {slug!r}.", hint=f"trials are: {', '.join(record.trials)}")
    scores = run.trial(slug).scores
    if not scores.exists():
        raise NotReady("is not there yet.", where=str(scores), hint=f"doit resume rid={rid}")
    if not condition:
        prompts = next(iter(record.config["prompt_sets"].values()))
        condition = next(name for name in prompts if name != record.config["control"])
    return record, scores, condition


def power_from_pilot(
    pilot: str, temp: str | None, kind: str | None, metric: str, items: int | None, usd: float | None
) -> Document:
    """What the next experiment needs, from a finished run's variances; *usd* becomes requests at the pilot's price."""
    from pipeline import jsonl
    from pipeline.statistics import numbers, power

    record, scores, _ = _find(pilot)
    significance = jsonl.read_document(scores.with_name("significance.json"))
    temp = temp or next(iter(significance["results"]))
    blocks = significance["results"].get(temp, {})
    kind = kind or next(iter(blocks), "")
    found = blocks.get(kind, {}).get("metrics", {}).get(metric)
    if found is None:
        raise UsageError(f"run {pilot} has no {metric} at temperature {temp}, type {kind or '-'}.")
    told = found["power"]
    one = power.ONE_SAMPLE
    variances = power.Variances(
        total=one if found["sd_delta"] is None else found["sd_delta"] ** 2,
        omega2=one if told["omega2"] is None else told["omega2"],
        sigma2_control=one if told["sigma2_control"] is None else told["sigma2_control"],
        sigma2_treatment=one if told["sigma2_treatment"] is None else told["sigma2_treatment"],
        design_effect=told["design_effect"] or 1.0,
    )
    requests = None if usd is None else _requests_for(usd, jsonl.read_document(scores.with_name("costs.json")))
    settings = record.config["statistics"]
    planned = power.plan(
        variances,
        alpha=settings["alpha"],
        power=settings["power"],
        deltas=settings["target_deltas"],
        items=items,
        requests=requests,
    )
    return {"pilot": pilot, "temp": temp, "type": kind, "metric": metric, **numbers.seal(planned)}


def power_from_variances(omega2: float, sigma2: float, items: int | None, requests: int | None) -> Document:
    """The same from assumed variances: between items, and within an item (each condition alike)."""
    from pipeline import config as configuration
    from pipeline.statistics import numbers, power

    settings = configuration.defaults()["statistics"]
    variances = power.Variances(omega2 + 2 * sigma2, omega2, sigma2, sigma2)
    planned = power.plan(
        variances,
        alpha=settings["alpha"],
        power=settings["power"],
        deltas=settings["target_deltas"],
        items=items,
        requests=requests,
    )
    return numbers.seal(planned)


def power_text(document: Document) -> Iterator[str]:
    """A line per number of samples: items needed for each effect, and what the given items or budget can show."""
    yield f"alpha {document['alpha']}, power {document['power']}, design effect {document['design_effect']:.3g}"
    for row in document["by_samples"]:
        needs = ", ".join(
            f"{delta}: {'-' if n is None else format(n, ',')} items" for delta, n in row["items_needed"].items()
        )
        shows = "".join(
            f"; {word} {row[key]:.4f}"
            for key, word in (
                ("detectable", "these items show"),
                ("detectable_within_budget", "the budget shows"),
            )
            if row.get(key) is not None
        )
        yield f"K={row['samples']:<3} {needs}{shows}"
    yield from (f"warning: {warning}" for warning in document["warnings"])


def _requests_for(usd: float, costs: Document) -> int:
    rows = costs["usage_records"]
    if not costs["usd"] or not rows:
        raise UsageError("the pilot has no cost to plan with.", hint="give prices in its config, or --requests")
    return int(usd / (costs["usd"] / rows))
