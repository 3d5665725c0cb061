"""How far the answers and the comparison can be trusted: selective risk, and what the run could have found."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import curves
from pipeline.report.blocks import Block as Part
from pipeline.report.blocks import Details, Paragraph, Section, Table, folded
from pipeline.report.model import Model
from pipeline.report.places import metrics, suffix, where
from pipeline.report.text import DASH, count, exact_percent, exact_points, number, number_span, percent, unsigned_points
from pipeline.report.verdict import METRIC_NAMES


def selective_risk(model: Model) -> Section:
    """How reliable the answers are that a condition is surest of."""
    return Section("Selective Risk", "selective-risk", tuple(_selective_risk(model)))


def power(model: Model) -> Section:
    """What the run could have found, and what a further run would need."""
    return Section("Power / MDE", "power", tuple(_power(model)))


def _selective_risk(model: Model) -> Iterator[Part]:
    yield Paragraph(
        "Sorted by how often a question's samples agree, the surest answers come first. Risk is the share of wrong "
        "answers among those given; abstentions are neither right nor wrong here. A curve further down is better; one "
        "that ends further left belongs to a condition that abstains more. A single point: all are equally sure."
    )
    for treatment in model.treatments:
        yield curves.risk_coverage(model, treatment, f"risk-coverage{suffix(model, treatment)}")
    rows = []
    for block in model.blocks:
        risk = block.data["selective_risk"]
        for condition, side in ((model.control, "control"), (block.treatment, "treatment")):
            curve = risk[side]
            rows.append(
                (
                    where(model, block),
                    condition,
                    curve["confidence_source"],
                    percent(curve["max_coverage"]),
                    *(number(curve[key]) for key in ("aurc", "e_aurc", "augrc")),
                )
            )
        rows.append(
            (
                where(model, block),
                f"{block.treatment} − {model.control}",
                "",
                percent(risk["common_coverage"]),
                number(risk["delta_aurc"]) + (f" ({number_span(risk['ci_95'])})" if risk["ci_95"] else ""),
                DASH,
                DASH,
            )
        )
    areas = Table(
        ("Where", "Condition", "Confidence", "#Coverage", "#AURC (95% CI)", "#E-AURC", "#AUGRC"),
        tuple(rows),
        "AURC: area under the curve, the mean risk along it, lower is better; the difference is taken up to the "
        "coverage that both reach. E-AURC: what a perfect order of the same answers would save. AUGRC: the same area "
        "with risk taken over all questions.",
    )
    yield folded(areas, "Areas under the curves")


def _power(model: Model) -> Iterator[Part]:
    targets = [format(delta, "g") for delta in model.significance["stats_config"]["target_deltas"]]
    power_ = model.significance["stats_config"]["power"]
    rows, by_samples = [], []
    for block, name, metric in metrics(model):
        data = metric["power"]
        needed = data["n_required"] or {}
        rows.append(
            (
                where(model, block),
                METRIC_NAMES[name],
                count(metric["n_pairs"]),
                unsigned_points(data["mde"]),
                unsigned_points(data["mde_t"]),
                number(data["design_effect"], 2),
                *(count(needed.get(target)) for target in targets),
            )
        )
        if name == "em" and data["mde_by_K"]:
            by_samples.append((where(model, block), data["mde_by_K"]))
    found = Table(
        (
            "Where", "Metric", "#n", "#MDE", "#MDE (t)", "#Design effect",
            *(f"#n for {exact_points(float(target))}" for target in targets),
        ),
        tuple(rows),
        "MDE, the minimum detectable effect: the smallest true difference, in points, with which "
        f"{exact_percent(power_)} of such runs would have p < {model.alpha:g}, not corrected for other tests. n for: "
        "how many questions it takes to find that many points. Design effect: by how much shared clusters multiply "
        "them, taken as at least 1.",
    )  # fmt: skip
    yield folded(found, "Detectable differences")
    if by_samples:
        samples = sorted({int(key) for _, table in by_samples for key in table})
        yield Details(
            "What more samples per question would bring",
            (
                Table(
                    ("Where", *(f"#K = {number_}" for number_ in samples)),
                    tuple((w, *(unsigned_points(t.get(str(k))) for k in samples)) for w, t in by_samples),
                    "Smallest detectable difference in EM, in points, with as many questions and K samples of each.",
                ),
            ),
        )
