"""Runs against each other, and plans for the next: `compare` and `power` of the command line.

The statistics are those of the report; this module finds the files and puts the answer in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import fingerprints, jsonl, runs
from pipeline.config import Config
from pipeline.custom_id import temp_key
from pipeline.errors import DamagedArtifact, NotReady, UsageError
from pipeline.identity import differences
from pipeline.paths import RunPaths, TrialPaths
from pipeline.plain import columns
from pipeline.record import read_record
from pipeline.report.text import usd

Document = dict[str, Any]
Settings = Mapping[str, Any]

_SHOWN = 5  # items or rows named in a message
# Beyond these numbers no experiment is planned, and arithmetic ends before long.
_MOST = 1e15
_LEAST_DELTA = 1e-6
# Warnings of what makes an interval or a test shown here wrong; the others explain numbers that are not shown.
_AGAINST = frozenset(("missing_differs", "n_small", "few_clusters", "uneven_clusters", "skewed_mean"))


# --- compare ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """One condition of one trial; *control* is what the run calls its control.

    *name* is what it was asked for by, with the condition where that was left to us and the trial has several.
    """

    name: str
    run: RunPaths
    config: Settings
    control: str
    slug: str
    condition: str

    def finished(self, file: Path) -> Path:
        """*file* of the trial. Raises NotReady when its phase has not written it, UnreadableFile when none can look."""
        if not _is_there(file):
            raise NotReady("is not there yet.", where=str(file), hint=f"doit resume rid={self.run.rid}")
        return file

    @property
    def files(self) -> TrialPaths:
        """The trial's files."""
        return self.run.trial(self.slug)


def compare(first: str, second: str) -> Document:
    """`RID[:trial[:condition]]` against another, paired on shared items; the same document as `significance.json`.

    The first takes the place of the control; a condition defaults to the run's first treatment, settings are the
    first run's. Where a trial has several treatments, the name in the document says which one was taken.
    Raises UnknownRun, UsageError (also when a shared item is not the same question) or NotReady.
    """
    one, other = _side(first), _side(second)
    if (one.run, one.slug, one.condition) == (other.run, other.slug, other.condition):
        trial = f"{one.run.rid}:{one.slug}"
        raise UsageError(
            f"{first} and {second} name the same answers: {one.condition} of {trial}.",
            hint=f"name conditions, as in {trial}:{one.control} {trial}:{one.condition}",
        )
    scores = [side.finished(side.files.scores) for side in (one, other)]
    _refuse_other_questions(one, other)
    from pipeline.statistics.analysis import compare as compare_scores
    from pipeline.statistics.settings import StatisticsSettings
    from pipeline.statistics.table import read_scores

    tables = [read_scores(path) for path in scores]
    settings = StatisticsSettings.of(one.config["statistics"])
    names = (one.name, other.name)
    document = compare_scores(tables[0], one.condition, tables[1], other.condition, settings, names)
    document["warnings"] += _other_rules(one, other)
    return document


def compare_text(document: Document) -> Iterator[str]:
    """One line per temperature, type and metric that has a shared item; what is left out; what speaks against it."""
    yield f"{document['treatment']} minus {document['control']}, paired on shared items"
    rows = [("temp", "type", "metric", "items", "difference", "95% CI", "p", "q")]
    unpaired, apart = 0, []
    remarks: dict[str, list[str]] = {}
    for temp, types in document["results"].items():
        for kind, block in types.items():
            unpaired += block["n_unpaired"]
            if not block["n_items"]:
                apart.append(f"{temp} {kind}")
                continue
            for metric, numbers in block["metrics"].items():
                rows.append((temp, kind, metric, *_cells(numbers)))
                for remark in numbers["warnings"]:
                    remarks.setdefault(remark, []).append(f"{temp} {kind} {metric}")
            for remark in block["warnings"]:
                remarks.setdefault(remark, []).append(f"{temp} {kind}")
    yield from columns(rows)
    if unpaired:
        none = f"; none is shared at {', '.join(apart)}" if apart else ""
        yield f"left out: {unpaired:,} items (by type and temperature) that only one of the two holds{none}"
    yield from (f"warning: {remark}" for remark in document["warnings"])
    for remark, places in remarks.items():
        if remark.partition(":")[0] in _AGAINST:
            yield f"warning: {remark} ({', '.join(places[:_SHOWN])}{', ...' if len(places) > _SHOWN else ''})"


def _cells(numbers: Document) -> tuple[str, str, str, str, str]:
    primary = numbers["primary"]  # where items share clusters, the test and interval that allow for it
    delta, interval, p, q = numbers["delta_mean"], primary["ci_95"], primary["p_value"], primary["q_value"]
    return (
        f"{numbers['n_pairs']:,}",
        "-" if delta is None else f"{delta:+.4f}",
        f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "-",
        "-" if p is None else format(p, ".4g"),
        "-" if q is None else format(q, ".4g"),
    )


def _side(text: str) -> _Side:
    rid, _, rest = text.partition(":")
    slug, _, condition = rest.partition(":")
    run = runs.named(rid)
    try:
        record = read_record(run.record)
    except FileNotFoundError:
        raise runs.unknown_run(rid) from None
    trials = {trial.slug: trial for trial in Config(record.config, run.root).trials}
    if not slug and len(trials) > 1:
        raise UsageError(f"run {rid} has {len(trials)} trials.", hint=f"say one of {rid}:{f', {rid}:'.join(trials)}")
    slug = slug or next(iter(trials))
    if slug not in trials:
        raise UsageError(f"run {rid} has no trial {slug!r}.", hint=f"trials are: {', '.join(trials)}")
    control, *treatments = trials[slug].conditions
    if not condition and len(treatments) > 1:
        text = f"{rid}:{slug}:{treatments[0]}"
    return _Side(text, run, record.config, control, slug, condition or treatments[0])


def _refuse_other_questions(one: _Side, other: _Side) -> None:
    """Equal ids do not make equal questions: an edited question would be compared with its old self."""
    if one.run == other.run:
        return
    asked, again = _questions(one.run), _questions(other.run)
    changed = [item for item, row in asked.items() if again.get(item, row) != row]
    if changed:
        shown = ", ".join("|".join(item) for item in changed[:_SHOWN])
        more = f" and {len(changed) - _SHOWN:,} more" if len(changed) > _SHOWN else ""
        raise UsageError(
            f"{one.run.rid} and {other.run.rid} hold other questions, passages or answers under the same id: "
            f"{shown}{more}.",
            hint="give questions that were changed new ids, and run again",
        )


def _other_rules(one: _Side, other: _Side) -> list[str]:
    """A warning where the two were scored by other rules: then part of a difference is one of scoring."""
    changed = differences(one.config["scoring"], other.config["scoring"])
    return [f"scoring_differs: the answers were scored by other rules ({'; '.join(changed)})"] if changed else []


def _questions(run: RunPaths) -> dict[tuple[str, str], Document]:
    """(dataset, id) -> the prepared row without its cluster; none for a run without prepared rows.

    Raises DamagedArtifact for a line that is no prepared row.
    """
    found = {}
    for path in (run.closed_book, run.open_book):
        for line in jsonl.lines(path) if _is_there(path) else ():
            try:
                row = jsonl.loads(line.data)
                found[row["dataset"], row["id"]] = {**row, "cluster": None}
            except (jsonl.BadJson, KeyError, TypeError) as error:
                raise DamagedArtifact(
                    "is no question as prepare writes it.",
                    where=f"{path} line {line.number}",
                    hint=f"doit resume rid={run.rid}",
                ) from error
    return found


def _is_there(path: Path) -> bool:
    return fingerprints.kind(path) is not None and path.exists()  # alone, `exists` raises where it may not look


# --- power -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What is asked of a plan: differences to show (None: the config's), and what is at hand."""

    deltas: Sequence[float] | None = None
    items: int | None = None
    requests: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--items", self.items), ("--requests", self.requests), ("--usd", self.usd)):
            if value is not None and not 0 < value < _MOST:
                raise UsageError(f"{name} {value}: must be a number above 0, and below {_MOST:g}.")
        if not all(_LEAST_DELTA <= delta <= 1 for delta in self.deltas or ()):
            raise UsageError(
                f"--delta: a difference to plan for is above 0 (at least {_LEAST_DELTA:f}) and at most 1.",
                hint="two points, say, are 0.02",
            )
        if self.requests is not None and self.usd is not None:
            raise UsageError("--requests and --usd say the same twice; give one of them.")


def power_from_pilot(pilot: str, temp: str | None, kind: str | None, metric: str, wanted: Wanted) -> Document:
    """What the next experiment needs, by a finished run's variances; money becomes requests at that run's price.

    Raises UnknownRun, UsageError for what the pilot does not hold, NotReady, or DamagedArtifact for a file that is not
    what its phase writes.
    """
    from pipeline.report.artifacts import read_significance
    from pipeline.statistics import power
    from pipeline.statistics.estimates import ONE_CLUSTER

    side = _side(pilot)
    significance = read_significance(side.finished(side.files.significance))
    contrasts = {significance["treatment"]: significance} | significance["contrasts"]
    results = contrasts[_chosen("treatment", side.condition, contrasts)]["results"]
    temp = _chosen("temperature", temp and _temp_key(temp), results)
    kind = _chosen("type", kind, results[temp])
    found = results[temp][kind]["metrics"]
    numbers = found[_chosen(f"{kind} metric", metric, found)]
    if numbers["sd_delta"] is None:
        where = f"at temperature {temp}, type {kind}"
        raise UsageError(f"{pilot} has too few items with {metric} {where} to plan by: {numbers['n_pairs']}.")
    told = numbers["power"]
    one = power.ONE_SAMPLE
    variances = power.Variances(
        total=numbers["sd_delta"] ** 2,
        omega2=one if told["omega2"] is None else told["omega2"],
        sigma2_control=one if told["sigma2_control"] is None else told["sigma2_control"],
        sigma2_treatment=one if told["sigma2_treatment"] is None else told["sigma2_treatment"],
        design_effect=told["design_effect"] or (ONE_CLUSTER if numbers["sd_delta"] else 1.0),
        clipped=power.CLIPPED in numbers["warnings"],
    )
    document: Document = {"pilot": side.name, "temp": temp, "type": kind, "metric": metric}
    requests = wanted.requests
    if wanted.usd is not None:
        document["usd_per_request"] = price = _price_of_a_request(side.finished(side.files.costs))
        requests = int(wanted.usd / price)
    return document | _planned(variances, side.config["statistics"], wanted, requests)


def power_from_variances(omega2: float, sigma2: float, wanted: Wanted) -> Document:
    """The same from assumed variances: between items, and within an item (each condition alike)."""
    from pipeline import config as configuration
    from pipeline.statistics import power

    if not (0 <= omega2 <= 1 and 0 <= sigma2 <= 1):
        raise UsageError("--omega2 and --sigma2 are variances: 0 or more, and at most 1, as scores are from 0 to 1.")
    if wanted.usd is not None:
        raise UsageError("--usd needs a finished run to take the price of a request from.", hint="say --requests")
    variances = power.Variances(omega2 + 2 * sigma2, omega2, sigma2, sigma2)
    return _planned(variances, configuration.defaults()["statistics"], wanted, wanted.requests)


def power_text(document: Document) -> Iterator[str]:
    """A line per number of samples: items each difference needs, and what the given items or budget can show."""
    if "pilot" in document:
        where = f"at temperature {document['temp']}, {document['type']} questions"
        yield f"by {document['metric']} in {document['pilot']} {where}"
    effect = document["design_effect"]
    design = "" if effect in (1, None) else f"; clusters multiply items by {effect:.3g}"
    yield f"items for a power of {document['power']} at a two-sided alpha of {document['alpha']}{design}"
    first = document["by_samples"][0]
    rows = [("samples per item", *(f"to show {float(delta):g}" for delta in first["items_needed"]))]
    if "detectable" in first:
        rows[0] += ("those items show",)
    if "detectable_within_budget" in first:
        rows[0] += ("budget: items", "which show")
    for row in document["by_samples"]:
        cells = [str(row["samples"]), *map(_count, row["items_needed"].values())]
        if "detectable" in row:
            cells.append(_effect(row["detectable"]))
        if "detectable_within_budget" in row:
            cells += [_count(row["affordable_items"]), _effect(row["detectable_within_budget"])]
        rows.append(tuple(cells))
    yield from columns(rows)
    if document["total_variance"] and len({row["variance"] for row in document["by_samples"]}) == 1:
        yield "answers do not vary within an item, so more samples change nothing"
    yield "a request is an item under one condition: items x 2 x samples, for each temperature"
    if "usd_per_request" in document:
        yield f"a request costs {usd(document['usd_per_request'])}, the mean of all the pilot's, whatever their type"
    # What follows in brackets are keys of the document, for those who read that.
    yield from (f"warning: {warning.partition(' (')[0]}" for warning in document["warnings"])


def _planned(variances: Any, settings: Settings, wanted: Wanted, requests: int | None) -> Document:
    from pipeline.statistics import numbers, power

    planned = power.plan(
        variances,
        alpha=settings["alpha"],
        power=settings["power"],
        deltas=wanted.deltas or settings["target_deltas"],
        items=wanted.items,
        requests=requests,
    )
    return numbers.seal(planned)


def _chosen(what: str, name: str | None, found: Mapping[str, Any]) -> str:
    name = name or next(iter(found), None)
    if name is None or name not in found:
        raise UsageError(f"the pilot has no {what} {name or ''}.", hint=f"it has: {', '.join(found) or 'none'}")
    return name


def _temp_key(text: str) -> str:
    try:
        return temp_key(text)
    except ValueError:
        raise UsageError(f"--temp {text}: is no number.") from None


def _price_of_a_request(costs: Path) -> float:
    """US dollars, the mean over all requests of the run: costs.json does not tell open from closed ones."""
    from pipeline.report.artifacts import read_costs

    document = read_costs(costs)
    price: float | None = document["usd_per_request"]
    if not price:
        raise UsageError("the pilot has no cost to plan with.", hint="give prices in its config, or say --requests")
    return price


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _effect(size: float | None) -> str:
    return "-" if size is None else f"{size:.4f}"
