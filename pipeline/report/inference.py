"""The statistics in full: every test, interval, effect size and equivalence test, in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.report.artifacts import Block, Json
from pipeline.report.blocks import Block as Part
from pipeline.report.blocks import Bullets, Details, Heading, Line, Paragraph, Section, Table, folded
from pipeline.report.model import Model
from pipeline.report.places import metrics, where
from pipeline.report.text import (
    DASH,
    count,
    exact_points,
    number,
    number_span,
    p_cell,
    points,
    points_span,
)
from pipeline.report.verdict import METRIC_NAMES

_FAMILIES = {
    "primary": "sign-flip tests of all questions",
    "subgroup": "the same per dataset",
    "mcnemar": "McNemar tests of all questions",
    "mcnemar_subgroup": "McNemar tests per dataset",
    "wilcoxon": "Wilcoxon tests of all questions",
    "wilcoxon_subgroup": "Wilcoxon tests per dataset",
}


_MEANINGS = (
    "d (paired): mean difference over the standard deviation of the differences; Hedges g: the same, corrected for "
    "small samples; d (av): over the mean standard deviation of the two conditions.",
    "Cliff δ: how often a treatment's value exceeds a control's, minus the reverse, over all pairs of questions.",
    "Dominance: (won − lost) / all; won and lost mean a higher and a lower value, whichever is better.",
    "Hodges-Lehmann: the median of the means of all pairs of differences.",
)


def significance(model: Model) -> Section:
    """Tests, intervals, effect sizes, families and equivalence."""
    return Section("Significance", "significance", tuple(_significance(model)))


def _significance(model: Model) -> Iterator[Part]:
    yield Heading("McNemar")
    yield Table(
        (
            "Where", "#Both right", "#Only treatment", "#Only control", "#Neither", "#p exact", "#p mid", "#q",
            "#Odds ratio", "#95% CI", "#Ties", "#p without ties",
        ),
        tuple(_mcnemar(model, block) for block in model.blocks),
        "A question counts as right when more than half of its samples are; a tie at one half counts as wrong. Ties: "
        "how many such questions control and treatment have.",
    )  # fmt: skip
    yield Heading("Effect sizes")
    sizes = Table(
        (
            "Where", "Metric", "#d (paired)", "#Hedges g", "#d (av)", "#Cliff δ", "#Dominance", "#Hodges-Lehmann",
            "#Won", "#Tied", "#Lost",
        ),
        tuple(_effects(model, block, name, metric) for block, name, metric in metrics(model)),
        "Hodges-Lehmann in percentage points.",
    )  # fmt: skip
    yield folded(sizes, "Effect sizes")
    yield Details("What the columns mean", (Bullets(_MEANINGS),), printed=True)
    yield Heading("Other tests and intervals")
    yield Details(
        "Wilcoxon, t, and intervals by other methods",
        (
            Table(
                (
                    "Where", "Metric", "#p sign flip", "#p cluster flip", "#p t", "#p cluster t", "#p Wilcoxon",
                    "#q Wilcoxon", "#W", "#Rank biserial",
                ),
                tuple(_tests(model, block, name, metric) for block, name, metric in metrics(model)),
            ),
            Table(
                ("Where", "Metric", "#t", "#BCa", "#Percentile", "#Cluster t", "#Cluster percentile"),
                tuple(_intervals(model, block, name, metric) for block, name, metric in metrics(model)),
                "95% intervals of the difference, in points; BCa and percentile are bootstraps.",
            ),
        ),
    )  # fmt: skip
    yield Heading("Families of tests")
    shown = _discoveries(model)
    yield Table(
        ("Family", "What is in it", "#Tests", f"#q < {model.alpha:g}"),
        tuple(
            (name, _FAMILIES.get(name, DASH), count(family["m"]), count(shown[name]))
            for name, family in sorted(model.significance["fdr"]["families"].items())
        ),
        "Benjamini-Hochberg within each family. Metrics that say the same of every question share one test.",
    )
    yield Heading("Equivalence (TOST)")
    rows = tuple(row for block in model.blocks for row in _tost(model, block))
    if rows:
        tests = Table(
            (
                "Where",
                "Metric",
                "#Margin",
                "#Difference",
                f"#{100 * (1 - 2 * model.alpha):.4g}% CI",
                "#p not worse",
                "#p equivalent",
                "Says",
            ),
            rows,
            "Margins in points; they prove something only if set before the answers were seen. Two one-sided t tests, "
            "cluster-robust where clusters are. "
            "The interval decides: equivalent when it lies within the margin, not worse when its bad end does. Where "
            "all questions, or all clusters, differ by the same it is a point, no certainty, and nothing is tested.",
        )
        yield folded(tests, "Equivalence tests")
    else:
        yield Paragraph("No margins were set, so equivalence was not tested.")


def _mcnemar(model: Model, block: Block) -> tuple[Line, ...]:
    table = block.data["mcnemar"]
    odds = "∞" if table["or_infinite"] else number(table["odds_ratio"], 2)
    return (
        where(model, block),
        *(count(table[key]) for key in ("n_both", "b", "c", "n_neither")),
        *(p_cell(table[key]) for key in ("p_exact", "p_mid", "q_value")),
        odds,
        number_span(table["or_ci_95"], 2),
        f"{table['n_ties_control']:,} / {table['n_ties_treatment']:,}",
        p_cell(table["without_ties"]["p_exact"]),
    )


def _effects(model: Model, block: Block, name: str, metric: Json) -> tuple[Line, ...]:
    sizes = ("cohens_d", "hedges_g", "cohens_d_av", "cliffs_delta", "paired_dominance")
    return (
        where(model, block),
        METRIC_NAMES[name],
        *(number(metric[key], 2) for key in sizes),
        points(metric["hodges_lehmann"]),
        *(count(metric[key]) for key in ("wins", "ties", "losses")),
    )


def _tests(model: Model, block: Block, name: str, metric: Json) -> tuple[Line, ...]:
    cluster, ranks = metric.get("cluster") or {}, metric["wilcoxon"]
    p_values = (metric["perm_p_value"], cluster.get("sign_flip_p"), metric["p_t"], cluster.get("p"))
    return (
        where(model, block),
        METRIC_NAMES[name],
        *(p_cell(p) for p in (*p_values, ranks["p_value"], ranks["q_value"])),
        number(ranks["W"], 1),
        number(ranks["rank_biserial"], 2),
    )


def _intervals(model: Model, block: Block, name: str, metric: Json) -> tuple[Line, ...]:
    cluster, bootstrap = metric.get("cluster") or {}, metric["bootstrap"]
    intervals = (
        metric["ci_95_t"],
        bootstrap["bca_95"],
        bootstrap["percentile_95"],
        cluster.get("ci_95"),
        cluster.get("bootstrap_ci_95"),
    )
    return (where(model, block), METRIC_NAMES[name], *(points_span(interval) for interval in intervals))


def _discoveries(model: Model) -> Counter[str]:
    """How many tests of each family have a q-value below alpha."""
    shown: Counter[str] = Counter()
    for block in model.blocks:
        for data, tail in ((block.data, ""), *((inner, "_subgroup") for _, inner in block.datasets())):
            for metric in data["metrics"].values():
                shown["subgroup" if tail else "primary"] += _below(metric["primary"]["q_value"], model.alpha)
                shown[f"wilcoxon{tail}"] += _below(metric["wilcoxon"]["q_value"], model.alpha)
            shown[f"mcnemar{tail}"] += _below(data["mcnemar"]["q_value"], model.alpha)
    return shown


def _below(q: float | None, alpha: float) -> bool:
    return q is not None and q < alpha


def _tost(model: Model, block: Block) -> Iterator[tuple[Line, ...]]:
    for name, _ in block.metrics:
        if name not in block.data["tost"]:
            continue
        test = block.data["tost"][name]
        says = (
            "equivalent" if test["equivalent"] else "not worse" if test["non_inferior"]
            else "unclear" if test["equivalent"] is not None else "not tested: no variance" if test["se"] == 0 else DASH
        )  # fmt: skip
        yield (
            where(model, block),
            METRIC_NAMES[name],
            f"±{exact_points(test['margin'])}",
            points(test["delta_mean"]),
            points_span(test["ci"]),
            p_cell(test["p_non_inferiority"]),
            p_cell(test["p_equivalence"]),
            says,
        )
