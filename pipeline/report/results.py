"""The results of each contrast: every metric per temperature and type, then dataset by dataset."""

from __future__ import annotations

from collections.abc import Iterator

from scipy.special import stdtrit

from pipeline.custom_id import OPEN
from pipeline.report import figures
from pipeline.report.artifacts import Block, Json
from pipeline.report.blocks import Block as Part
from pipeline.report.blocks import Bullets, Code, Details, Heading, Line, Paragraph, Section, Table
from pipeline.report.model import Model
from pipeline.report.places import suffix
from pipeline.report.text import (
    DASH,
    count,
    number,
    p_cell,
    percent,
    percent_span,
    points,
    points_span,
)
from pipeline.report.verdict import METRIC_MEANINGS, METRIC_NAMES, TYPE_NAMES, judge


def results(model: Model, treatment: str) -> Section:
    """The results of *treatment*: figures first, then a table for every temperature and type."""
    title = "Results" if len(model.treatments) == 1 else f"Results: {treatment} against {model.control}"
    return Section(title, f"results{suffix(model, treatment)}", tuple(_results(model, treatment)))


def datasets(model: Model, treatment: str) -> Section:
    """The same per dataset, and what the datasets say together."""
    title = "Datasets" if len(model.treatments) == 1 else f"Datasets: {treatment} against {model.control}"
    return Section(title, f"datasets{suffix(model, treatment)}", tuple(_datasets(model, treatment)))


def _results(model: Model, treatment: str) -> Iterator[Part]:
    tail = suffix(model, treatment)
    blocks = model.of(treatment)
    if not blocks:
        yield Paragraph("There are no rows to compare.")
        return
    yield figures.forest(model, treatment, f"forest{tail}")
    yield Paragraph(
        "Filled marks are differences shown after correction, hollow ones are not. ↑ more is better, ↓ less is better, "
        "no arrow: neither."
    )
    yield figures.outcomes(model, treatment, f"outcomes{tail}")
    for temp in model.temps:
        here = [block for block in blocks if block.temp == temp]
        if here:
            yield Heading(f"Temperature {temp}")
        for block in here:
            rows = tuple(_row(model, block.data, name) for name, _ in block.metrics)
            yield Table(_columns(model, treatment, "Metric"), rows, f"{TYPE_NAMES[block.type]}.")
            if block.type == OPEN and len(block.data["abstention"]) > 1:
                yield _abstention(model, block)
            if any(any(metric["n_missing_samples"].values()) for _, metric in block.metrics):
                yield _missing(model, block)
    yield Details(
        "What the columns mean",
        (
            Bullets(tuple(f"{METRIC_NAMES[name]}: {meaning}." for name, meaning in METRIC_MEANINGS.items())),
            Paragraph(
                "Differences are treatment − control, in percentage points; their interval, p and q (p corrected for "
                "how many tests there are) are the primary ones: they allow for questions that share a cluster. Means "
                "are over questions; the interval beside a mean is its 95% t interval and treats questions as "
                "independent. n: questions with a value in both conditions."
            ),
        ),
        printed=True,
    )


def _columns(model: Model, treatment: str, first: str) -> tuple[str, ...]:
    sides = (f"#{model.control}", "#95% CI", f"#{treatment}", "#95% CI")
    return (first, "Verdict", "#Difference", "#95% CI", "#p", "#q", *sides, "#n")


def _row(model: Model, data: Json, name: str, label: Line | None = None) -> tuple[Line, ...]:
    metric = data["metrics"][name]
    return (
        METRIC_NAMES[name] if label is None else label,
        judge(metric, data["tost"].get(name), model.alpha).value,
        points(metric["delta_mean"]),
        points_span(metric["primary"]["ci_95"]),
        p_cell(metric["primary"]["p_value"]),
        p_cell(metric["primary"]["q_value"]),
        percent(metric["mean_control"]),
        percent_span(_interval(metric, "control")),
        percent(metric["mean_treatment"]),
        percent_span(_interval(metric, "treatment")),
        count(metric["n_pairs"]),
    )


def _interval(metric: Json, side: str) -> tuple[float, float] | None:
    """The 95% t interval of one condition's mean, within 0 and 1; None where nothing varies: that is no certainty."""
    mean, se, n = metric[f"mean_{side}"], metric[f"se_{side}"], metric["n_pairs"]
    if not se or n < 2:
        return None
    half = float(stdtrit(n - 1, 0.975)) * se
    return max(0.0, mean - half), min(1.0, mean + half)


def _abstention(model: Model, block: Block) -> Table:
    """Abstaining is right where the passage holds no answer and a loss where it does."""
    rows = []
    for kind, label in (("unanswerable", "no answer in the passage"), ("answerable", "an answer in the passage")):
        if kind in block.data["abstention"]:
            data = block.data["abstention"][kind]
            rows.append(
                (
                    label,
                    percent(data["mean_control"]),
                    percent(data["mean_treatment"]),
                    points(data["delta_mean"]),
                    points_span(data["ci_95_t"]),
                    p_cell(data["p_t"]),
                    count(data["n_pairs"]),
                )
            )
    return Table(
        ("Questions with", f"#{model.control}", f"#{block.treatment}", "#Difference", "#95% CI (t)", "#p (t)", "#n"),
        tuple(rows),
        "Abstentions, by what the passage holds; t test over questions, not corrected.",
    )


def _missing(model: Model, block: Block) -> Details:
    """Each mean between its bounds: what leaving missing answers out could hide at most."""
    rows = []
    for name, metric in block.metrics:
        control, treatment, delta = (
            [metric[f"bounds_{of}"][end] for end in ("worst", "best")] for of in ("control", "treatment", "delta")
        )
        rows.append(
            (
                METRIC_NAMES[name],
                *(count(metric["n_missing_samples"][side]) for side in ("control", "treatment")),
                percent(metric["mean_control"]),
                DASH if None in control else percent_span(control),
                percent(metric["mean_treatment"]),
                DASH if None in treatment else percent_span(treatment),
                points(metric["delta_mean"]),
                DASH if None in delta else points_span(delta),
            )
        )
    sides = tuple(f"#{side}{end}" for side in (model.control, block.treatment) for end in ("", ", worst to best"))
    missing = (f"#Missing {model.control}", f"#Missing {block.treatment}")
    return Details(
        f"{TYPE_NAMES[block.type]}, temperature {block.temp}: what missing answers could change",
        (
            Table(
                ("Metric", *missing, *sides, "#Difference", "#Worst to best"),
                tuple(rows),
                "Means had each missing answer been scored worst, or best; of the difference, worst for "
                f"{block.treatment}. Abstaining, of which no end is better, stands as the worst.",
            ),
        ),
    )


def _datasets(model: Model, treatment: str) -> Iterator[Part]:
    blocks = [block for block in model.of(treatment) if len(block.datasets()) > 1]
    if not blocks:
        yield Paragraph("Each type has one dataset, so its results are the ones above.")
        return
    yield figures.forest_of(
        [row for block in blocks for row in _forest_rows(model, block)],
        f"forest-datasets{suffix(model, treatment)}",
        f"Difference {treatment} − {model.control} in EM, percentage points",
        f"Difference in exact match between {treatment} and {model.control}, per dataset, with 95% intervals.",
    )
    for block in blocks:
        tables = tuple(
            Table(
                _columns(model, treatment, "Dataset"),
                tuple(
                    _row(model, data, name, Code(dataset))
                    for dataset, data in block.datasets()
                    if name in data["metrics"]
                ),
                f"{METRIC_NAMES[name]}; q within the family of dataset tests.",
            )
            for name, _ in block.metrics
        )
        yield Details(f"{TYPE_NAMES[block.type]}, temperature {block.temp}, by dataset", tables)
    yield Heading("Meta-analysis over datasets")
    yield from _meta(blocks)


def _forest_rows(model: Model, block: Block) -> Iterator[figures.Row]:
    yield figures.Row(f"{TYPE_NAMES[block.type]}, T={block.temp}")
    for dataset, data in block.datasets():
        em = data["metrics"]["em"]
        verdict = judge(em, data["tost"].get("em"), model.alpha)
        yield figures.Row(dataset, em["delta_mean"], em["primary"]["ci_95"], verdict)


def _meta(blocks: list[Block]) -> Iterator[Part]:
    rows = []
    for block in blocks:
        for name, _ in block.metrics:
            meta = block.data["meta"].get(name)
            if meta is None or meta["k"] < 2:
                continue
            fixed, random, spread = meta["fixed"], meta["random"], meta["heterogeneity"]
            rows.append(
                (
                    f"{TYPE_NAMES[block.type]}, T={block.temp}",
                    METRIC_NAMES[name],
                    count(meta["k"]),
                    f"{points(fixed['estimate'])} ({points_span(fixed['ci_95'])})",
                    f"{points(random['estimate'])} ({points_span(random['ci_95'])})",
                    points_span(random["hksj_ci_95"]),
                    p_cell(random["p"]),
                    number(spread["Q"], 2),
                    p_cell(spread["p_value"]),
                    percent(spread["I2"]),
                )
            )
    if not rows:
        yield Paragraph("No metric has two datasets with a spread of their own, so there is nothing to pool.")
        return
    yield Table(
        (
            "Where",
            "Metric",
            "#k",
            "#Fixed (95% CI)",
            "#Random (95% CI)",
            "#HKSJ 95% CI",
            "#p random",
            "#Q",
            "#p of Q",
            "#I²",
        ),
        tuple(rows),
        "Inverse-variance and DerSimonian-Laird estimates in points; with few datasets trust the wider HKSJ interval.",
    )
