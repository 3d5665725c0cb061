"""From `per_item_scores.csv` to `significance.json`: what is read, what is refused, what a reader may rely on."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paired_data import SETS, Paired, row, rows_of, text_of, written
from scipy import stats as scipy_stats

from pipeline import jsonl, schema
from pipeline.errors import ContractBroken, DamagedArtifact, UsageError
from pipeline.phases.stats import stats
from pipeline.statistics.analysis import analyse, compare
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores

MARGINS = {"em": 0.02, "f1": 0.02, "abstain_rate": 0.05, "false_answer_rate": 0.02, "unsupported_rate": 0.02}
QUICK = StatisticsSettings(seed=11, bootstrap_samples=1000, permutation_samples=1000, margins=MARGINS)


def mixed_rows(seed: int = 0, n: int = 24, treatments: tuple[str, ...] = ("treatment",)) -> list[dict[str, str]]:
    """Open and closed book, two temperatures, three datasets, clusters, unanswerable and missing ones, K = 4."""
    rng = random.Random(seed)
    rows = []
    for dataset, kind, has_f1 in (
        ("squad_v2", "open", True),
        ("triviaqa", "closed", True),
        ("nq_open", "closed", False),
    ):
        for i in range(n):
            answerable = kind == "closed" or i % 3 > 0
            skill = rng.random()
            for temp in ("0", "0.25"):
                for shift, condition in enumerate(("control", *treatments)):
                    kept = 4 - (rng.random() < 0.1) - 4 * (rng.random() < 0.04)
                    kept = max(kept, 0)
                    abstained = [rng.random() < (0.1 if answerable else 0.6) for _ in range(kept)]
                    right = [rng.random() < skill + 0.1 * shift for _ in range(kept)]
                    em = [float(a != answerable and (a or r)) for a, r in zip(abstained, right, strict=True)]
                    partial = [max(e, rng.choice([0, 0, 0.4, 2 / 3])) if answerable and not a else e
                               for e, a in zip(em, abstained, strict=True)]  # fmt: skip
                    values: dict[str, object] = {}
                    for name, samples in {
                        "em": em,
                        "f1": partial if has_f1 else [],
                        "abstain_rate": abstained,
                        "false_answer_rate": [not a for a in abstained] if not answerable else [],
                        "unsupported_rate": [rng.random() < 0.2 for _ in em] if kind == "open" else [],
                    }.items():
                        values[name] = float(np.mean(samples)) if samples else None
                        values[f"{name}_std"] = float(np.std(samples, ddof=1)) if len(samples) > 1 else None
                    values |= {
                        "n_samples": 4,
                        "n_missing": 4 - kept,
                        "answerable": int(answerable),
                        "cluster": f"p{i // 3}",
                    }
                    values["consistency"] = rng.choice([0.5, 0.75, 1.0]) if kept else None
                    rows.append(row(f"q{i:03d}", condition, dataset=dataset, type=kind, temp=temp, **values))
    return rows


def analysed(rows: list[dict[str, str]], folder: Path, **changes: Any) -> dict[str, Any]:
    scores = read_scores(written(folder / "scores.csv", rows))
    treatments = sorted(set(scores.conditions) - {"control"})
    return analyse(scores, StatisticsSettings.of(QUICK.as_json() | changes), "control", treatments)


def nulls(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from nulls(child, (*path, key))
    elif isinstance(value, list) and any(child is None for child in value):
        yield path


def unexplained(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """The nulls that no warning of the nearest object with `warnings` names."""
    missing = []
    for path in nulls(document):
        node, holder, depth = document, document, 0
        for level, key in enumerate(path[:-1], 1):
            node = node[key]
            if "warnings" in node:
                holder, depth = node, level
        name = ".".join(path[depth:])
        named = [
            part
            for text in holder["warnings"]
            if text.endswith(")")
            for part in text[text.rindex("(") + 1 : -1].split(", ")
        ]
        if name not in named:
            missing.append(path)
    return missing


def assert_publishable(document: dict[str, Any]) -> None:
    assert schema.problems(document, "significance.schema") == []
    assert unexplained(document) == []
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def without(value: Any, *keys: str) -> Any:
    if isinstance(value, dict):
        return {key: without(child, *keys) for key, child in value.items() if key not in keys}
    return [without(child, *keys) for child in value] if isinstance(value, list) else value


def test_a_mixed_experiment_gives_a_publishable_document(tmp_path: Path) -> None:
    target = tmp_path / "significance.json"
    outcome = stats(written(tmp_path / "s.csv", mixed_rows()), target, QUICK, "control", ["treatment"])
    document = jsonl.read_document(target)
    assert_publishable(document)
    assert outcome.outputs[target].written.size == target.stat().st_size
    assert target.read_bytes() == jsonl.dumps_pretty(document)
    assert outcome.artifacts["rows"] == 3 * 24 * 2 * 2
    assert outcome.artifacts["temps"] == document["temps"] == ["0", "0.25"]
    assert set(document["results"]["0.25"]) == {"open", "closed"}
    assert set(document["results"]["0"]["closed"]["metrics"]) == {"em", "f1", "abstain_rate"}
    assert set(document["results"]["0"]["closed"]["subgroups"]["dataset"]["nq_open"]["metrics"]) == {
        "em",
        "abstain_rate",
    }
    assert set(document["results"]["0"]["open"]["metrics"]) == set(MARGINS)
    assert document["results"]["0"]["open"]["metrics"]["f1"]["bootstrap"]["method"] == "grid"
    assert document["results"]["0"]["open"]["metrics"]["em"]["bootstrap"]["exact"]


# The keys that the definitions of the statistics name, by the object they stand in; notebooks rely on them.
KEYS = {
    "metrics.em": "n_pairs n_dropped n_missing_samples mean_control mean_treatment delta_mean sd_delta se ci_95_t p_t "
    "pearson_r se_unpaired ci_95 perm_p_value hodges_lehmann cohens_d cohens_d_av cliffs_delta paired_dominance",
    "metrics.em.cluster": "unit n_clusters se_cr1 se_cr0 ci_95 p design_effect bootstrap_ci_95 sign_flip_p",
    "metrics.em.bootstrap": "method B seed percentile_95 bca_95 z0 acceleration exact",
    "metrics.em.permutation": "method R seed mc_se min_p",
    "metrics.em.wilcoxon": "W W_plus W_minus n_nonzero zero_method method p_value rank_biserial q_value",
    "metrics.em.primary": "p_value q_value",
    "metrics.em.power": "alpha power mde mde_t n_required sigma2_control sigma2_treatment omega2 mde_by_K",
    "mcnemar": "b c n_both n_neither p_exact p_mid odds_ratio or_ci_95 or_ci_method or_infinite binarize "
    "n_ties_control n_ties_treatment q_value",
    "tost.em": "margin alpha direction p_non_inferiority p_equivalence non_inferior equivalent ci_90",
    "meta.em": "k groups excluded fixed random heterogeneity",
    "meta.em.fixed": "estimate se ci_95 p",
    "meta.em.random": "estimate se ci_95 tau2 p hksj_ci_95",
    "meta.em.heterogeneity": "Q df p_value I2",
    "selective_risk": "delta_aurc ci_95",
    "selective_risk.control": "confidence_source points max_coverage aurc e_aurc",
    "subgroups.dataset.nq_open": "n_items mcnemar metrics selective_risk tost",
}


def test_every_key_of_the_definitions_is_there(tmp_path: Path) -> None:
    """`bootstrap.seed` once was not."""
    document = analysed(mixed_rows(), tmp_path)
    block = document["results"]["0"]["closed"]
    for place, keys in KEYS.items():
        found = block
        for key in place.split("."):
            found = found[key]
        assert set(keys.split()) <= set(found), place
    assert set(document["fdr"]["families"]["primary"]) == {"m", "members"}


def test_what_its_schema_does_not_allow_is_not_written(tmp_path: Path) -> None:
    """Readers check the schema: written unchecked, a bug here looked like damage to them."""
    target = tmp_path / "significance.json"
    odd = replace(QUICK, cluster="sentence")
    with pytest.raises(ValueError, match=r"would write an invalid significance\.json: .*sentence"):
        stats(written(tmp_path / "s.csv", mixed_rows(n=3)), target, odd, "control", ["treatment"])
    assert not target.exists()


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_gives_a_publishable_document(name: str, tmp_path: Path) -> None:
    nothing = {
        "em": None,
        "f1": None,
        "abstain_rate": None,
        "unsupported_rate": None,
        "consistency": None,
        "n_missing": 1,
    }
    rows = rows_of(SETS[name]) or [row("q1", **nothing), row("q1", "treatment")]
    document = analysed(rows, tmp_path)
    assert_publishable(document)
    metric = document["results"]["0"]["open"]["metrics"]["em"]
    assert metric["n_pairs"] == len(SETS[name].control)
    if metric["n_pairs"] > 1 and np.ptp(SETS[name].deltas) > 0:
        reference = scipy_stats.ttest_rel(SETS[name].treatment, SETS[name].control)
        assert metric["p_t"] == pytest.approx(reference.pvalue, rel=1e-9)


def test_same_scores_same_bytes(tmp_path: Path) -> None:
    scores = written(tmp_path / "s.csv", mixed_rows())
    targets = [tmp_path / "a.json", tmp_path / "b.json"]
    for target in targets:
        stats(scores, target, QUICK, "control", ["treatment"])
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_floats_have_ten_digits(tmp_path: Path) -> None:
    def floats(value: Any) -> Iterator[float]:
        if isinstance(value, float):
            yield value
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from floats(child)

    document = analysed(mixed_rows(), tmp_path)
    assert all(number == float(f"{number:.10g}") for number in floats(document))


def test_clusters_decide_the_primary_test(tmp_path: Path) -> None:
    document = analysed(rows_of(SETS["clusters of 10"]), tmp_path)
    metric = document["results"]["0"]["open"]["metrics"]["em"]
    assert metric["primary"]["test"] == "cluster_sign_flip"
    assert metric["primary"]["p_value"] == metric["cluster"]["sign_flip_p"] > metric["perm_p_value"]
    assert metric["primary"]["ci_95"] == metric["cluster"]["ci_95"]
    assert document["results"]["0"]["open"]["meta"]["em"]["groups"][0]["se"] == metric["cluster"]["se_cr1"]
    assert document["results"]["0"]["open"]["tost"]["em"]["df"] == 29
    assert any(text.startswith("clustered:") for text in document["results"]["0"]["open"]["warnings"])
    plain = analysed(rows_of(SETS["clusters of 10"]), tmp_path, cluster="none")["results"]["0"]["open"]["metrics"]["em"]
    assert "cluster" not in plain
    assert plain["primary"]["p_value"] == plain["perm_p_value"] == metric["perm_p_value"]


def test_few_items_and_clusters_are_warned_of(tmp_path: Path) -> None:
    metric = analysed(rows_of(SETS["8 uneven clusters"]), tmp_path)["results"]["0"]["open"]["metrics"]["em"]
    assert any(text.startswith("few_clusters: 8 clusters") for text in metric["warnings"])
    assert not any(text.startswith("uneven_clusters") for text in metric["warnings"])
    clusters = np.repeat(np.arange(30), [60] + 29 * [2])  # like (3600 + 29 * 4)^2 / (60^4 + 29 * 2^4) = 1.07 even ones
    control, treatment = np.random.default_rng(1).integers(0, 2, (2, len(clusters))).astype(float)
    data = Paired(control, treatment, np.ones(len(clusters), dtype=int), clusters)
    metric = analysed(rows_of(data), tmp_path)["results"]["0"]["open"]["metrics"]["em"]
    assert any(text.startswith("uneven_clusters: 30 clusters weigh like 1 of one size") for text in metric["warnings"])
    metric = analysed(rows_of(SETS["13 items with ties"]), tmp_path)["results"]["0"]["open"]["metrics"]["em"]
    assert metric["ci_95_method"] == "t"
    assert any(text.startswith("n_small:") for text in metric["warnings"])


def test_missing_is_counted_and_bounded_and_never_zero(tmp_path: Path) -> None:
    """Two items of two samples; the treatment lacks one sample of the first and both of the second."""
    nothing = {"em": None, "f1": None, "abstain_rate": None, "unsupported_rate": None, "consistency": None}
    rows = [
        row("q1", n_samples=2, em=0.5, f1=0.5),
        row("q1", "treatment", n_samples=2, n_missing=1, em=1.0, f1=1.0),
        row("q2", n_samples=2, em=1.0, f1=1.0),
        row("q2", "treatment", n_samples=2, n_missing=2, **nothing),
    ]
    document = analysed(rows, tmp_path)
    assert_publishable(document)
    metric = document["results"]["0"]["open"]["metrics"]["em"]
    assert (metric["n_pairs"], metric["n_dropped"]) == (1, 1)
    assert metric["n_missing_samples"] == {"control": 0, "treatment": 3}
    assert (metric["mean_control"], metric["mean_treatment"]) == (0.5, 1.0)
    assert metric["bounds_control"] == {"worst": 0.75, "best": 0.75}
    assert metric["bounds_treatment"] == {"worst": 0.25, "best": 1.0}
    assert metric["bounds_delta"] == {"worst": -0.5, "best": 0.25}
    unsupported = document["results"]["0"]["open"]["metrics"]["unsupported_rate"]
    assert unsupported["bounds_treatment"] == {"worst": 0.75, "best": 0.0}  # lower is better
    assert document["results"]["0"]["open"]["samples"]["treatment"] == {"expected": 4, "missing": 3, "truncated": 0}


def test_bounds_are_of_the_same_items_on_both_sides(tmp_path: Path) -> None:
    """A difference of 0.0 stood beside bounds of +0.5 to +0.47: an answer that left the metric undefined, or none at
    all, counted on the other side alone.
    """
    nothing = {"em": None, "f1": None, "abstain_rate": None, "consistency": None}
    rows = [
        *(row(f"q{i}", condition, unsupported_rate=1.0) for i in range(4) for condition in ("control", "treatment")),
        *(row(f"u{i}", unsupported_rate=0.0) for i in range(4)),
        *(row(f"u{i}", "treatment", unsupported_rate=None) for i in range(4)),
        row("s", n_missing=1, unsupported_rate=None, **nothing),
        row("s", "treatment", unsupported_rate=1.0),
        row("x", n_missing=1, unsupported_rate=None, **nothing),
        row("x", "treatment", unsupported_rate=None),
    ]
    metric = analysed(rows, tmp_path)["results"]["0"]["open"]["metrics"]["unsupported_rate"]
    assert (metric["n_pairs"], metric["n_dropped"], metric["delta_mean"]) == (4, 6, 0.0)
    assert metric["bounds_control"] == {"worst": 1.0, "best": 0.8}
    assert metric["bounds_treatment"] == {"worst": 1.0, "best": 1.0}
    assert metric["bounds_delta"] == {"worst": 0.2, "best": 0.0}


def test_a_metric_without_meaning_for_an_item_does_not_dilute_it(tmp_path: Path) -> None:
    """Zeros for answerable questions once halved the effect on false answers."""
    rows = []
    for i in range(40):
        answerable = i % 2
        for condition, rate in (("control", 1.0), ("treatment", 0.8)):
            rows.append(row(f"q{i}", condition, n_samples=5, answerable=answerable,
                            false_answer_rate=None if answerable else rate))  # fmt: skip
    metric = analysed(rows, tmp_path)["results"]["0"]["open"]["metrics"]["false_answer_rate"]
    assert (metric["n_pairs"], metric["n_not_applicable"], metric["n_dropped"]) == (20, 20, 0)
    assert metric["delta_mean"] == -0.2


def test_one_hypothesis_counts_once_in_its_family(tmp_path: Path) -> None:
    """On unanswerable questions EM is 1 - false answers: testing both is testing one thing twice."""
    rows = []
    for i in range(30):
        for condition, wrong in (("control", i % 3 == 0), ("treatment", i % 5 == 0)):
            rows.append(row(f"q{i}", condition, answerable=0, em=float(not wrong), f1=float(i % 2),
                            abstain_rate=float(not wrong), false_answer_rate=float(wrong)))  # fmt: skip
    document = analysed(rows, tmp_path)
    members = document["fdr"]["families"]["primary"]["members"]
    assert members == ["treatment/0/open/em", "treatment/0/open/f1", "treatment/0/open/unsupported_rate"]
    metrics = document["results"]["0"]["open"]["metrics"]
    assert metrics["false_answer_rate"]["primary"]["q_value"] == metrics["em"]["primary"]["q_value"]


def test_every_treatment_meets_the_control(tmp_path: Path) -> None:
    rows = mixed_rows(n=9, treatments=("brief", "chain"))
    document = analysed(rows, tmp_path)
    assert_publishable(document)
    assert (document["treatment"], set(document["contrasts"])) == ("brief", {"chain"})
    alone = analysed([one for one in rows if one["condition"] != "brief"], tmp_path)
    assert without(document["contrasts"]["chain"]["results"], "q_value") == without(alone["results"], "q_value")
    members = document["fdr"]["families"]["primary"]["members"]
    assert len(members) == document["fdr"]["families"]["primary"]["m"]
    assert {member.split("/")[0] for member in members} == {"brief", "chain"}


def test_abstention_is_split_by_kind_of_question(tmp_path: Path) -> None:
    block = analysed(mixed_rows(), tmp_path)["results"]["0"]
    assert set(block["open"]["abstention"]) == {"answerable", "unanswerable"}
    assert set(block["closed"]["abstention"]) == {"answerable"}
    kinds = block["open"]["abstention"]
    assert (
        kinds["answerable"]["n_pairs"] + kinds["unanswerable"]["n_pairs"]
        == block["open"]["metrics"]["abstain_rate"]["n_pairs"]
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda text: text.replace('"0.0"', '"nan"', 1), ContractBroken, r"row 2: em: 'nan' is no number"),
        (lambda text: text.replace('"0.0"', '"inf"', 1), ContractBroken, r"row 2: em: 'inf' is no number"),
        (lambda text: text.replace('"0.0"', '"1.5"', 1), ContractBroken, r"row 2: em: '1.5' is no number from 0 to 1"),
        (lambda text: text.replace('"0.0"', '"x"', 1), ContractBroken, r"row 2: em: 'x' is no number"),
        (lambda text: text.replace('"consistency"', '"certainty"'), ContractBroken, "columns missing: consistency"),
        (lambda text: text.split("\r\n")[0] + "\r\n", ContractBroken, "no rows"),
        (lambda text: "", ContractBroken, "columns missing"),
        (lambda text: text + '"q1"\r\n', ContractBroken, "row 4: 1 fields, not 24"),
        (lambda text: text + '"q1', DamagedArtifact, "not a CSV file"),
        (
            lambda text: text + text.split("\r\n")[1] + "\r\n",
            ContractBroken,
            r"repeat .* squad_v2\|q1\|control\|0\|open",
        ),
        (lambda text: text.replace('"treatment"', '"other"'), ContractBroken, "unknown condition 'other'"),
        (lambda text: text.replace('"open"', '"essay"'), ContractBroken, "unknown type 'essay'"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(change, error, message: str, tmp_path: Path) -> None:
    """An older significance.json stays as it is."""
    target = tmp_path / "significance.json"
    target.write_text("old")
    table = tmp_path / "s.csv"
    table.write_text(change(text_of([row("q1"), row("q1", "treatment")])), encoding="utf-8", newline="")
    with pytest.raises(error, match=message):
        stats(table, target, QUICK, "control", ["treatment"])
    assert target.read_text() == "old"


def test_two_temperatures_never_share_a_key(tmp_path: Path) -> None:
    rows = [row("q1", condition, temp=temp) for condition in ("control", "treatment") for temp in ("0.2", "0.25")]
    assert analysed(rows, tmp_path)["temps"] == ["0.2", "0.25"]
    rows += [row("q1", condition, temp="0.2000000001") for condition in ("control", "treatment")]
    with pytest.raises(ContractBroken, match="share one key"):
        analysed(rows, tmp_path)


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    rows = [
        row(name, condition, dataset=name)
        for condition in ("control", "treatment")
        for name in ("a|b", "a", '"', "=1\n", "ü")
    ]
    assert_publishable(analysed(rows, tmp_path))


def test_runs_are_compared_on_the_items_they_share(tmp_path: Path) -> None:
    rows = mixed_rows()
    a = read_scores(written(tmp_path / "a.csv", [one for one in rows if one["item_id"] < "q020"]))
    b = read_scores(written(tmp_path / "b.csv", [one for one in rows if one["item_id"] > "q003"]))
    document = compare(a, "treatment", b, "control", QUICK, ("A", "B"))
    assert_publishable(document)
    block = document["results"]["0"]["open"]
    assert (document["control"], document["treatment"]) == ("A", "B")
    assert (block["n_items"], block["n_unpaired"]) == (16, 8)
    shared = [one for one in rows if "q003" < one["item_id"] < "q020"]
    swapped = {"control": "treatment", "treatment": "control"}
    mirrored = analysed([one | {"condition": swapped[one["condition"]]} for one in shared], tmp_path)
    keys = ("q_value", "n_unpaired", "warnings")
    assert without(document["results"], *keys) == without(mirrored["results"], *keys)


def test_runs_without_a_shared_item_are_not_compared(tmp_path: Path) -> None:
    a = read_scores(written(tmp_path / "a.csv", [row("q1", temp="0")]))
    b = read_scores(written(tmp_path / "b.csv", [row("q1", temp="0.7")]))
    with pytest.raises(UsageError, match="share no item"):
        compare(a, "control", b, "control", QUICK, ("A", "B"))
    with pytest.raises(UsageError, match="no condition 'treatment'"):
        compare(a, "treatment", b, "control", QUICK, ("A", "B"))


def test_settings_are_those_of_the_config() -> None:
    section = schema.load("experiment.schema")["properties"]["statistics"]
    known = {name: rule["default"] for name, rule in section["properties"].items()}
    assert set(StatisticsSettings.of(known).as_json()) == set(known)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    """Small tables with ties, zeros, missing responses, clusters and more than one dataset."""
    samples = draw(st.sampled_from([1, 2, 4]))
    rows = []
    for dataset in draw(st.sampled_from([["first"], ["first", "second"]])):
        for i in range(draw(st.integers(1, 9))):
            answerable = draw(st.integers(0, 1))
            for condition in ("control", "treatment"):
                kept = samples - draw(st.sampled_from([0, 0, 0, 1]))
                em, abstained = (draw(st.integers(0, kept)) for _ in range(2))
                abstained = min(abstained, kept - em) if answerable else em
                f1 = max(em / kept, draw(st.sampled_from([0.0, 0.4, 2 / 3]))) if kept else None
                rows.append(row(
                    f"q{i}", condition, dataset=dataset, n_samples=samples, n_missing=samples - kept,
                    em=em / kept if kept else None, f1=f1, abstain_rate=abstained / kept if kept else None,
                    false_answer_rate=None if answerable or not kept else 1 - abstained / kept,
                    unsupported_rate=0.0 if kept else None, answerable=answerable, cluster=f"p{i // 2}",
                    consistency=draw(st.sampled_from([0.5, 1.0])) if kept else None,
                ))  # fmt: skip
    return rows


PROPERTY = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(tmp_path: Path, rows: list[dict[str, str]], rng: random.Random) -> None:
    before = analysed(rows, tmp_path)
    assert_publishable(before)
    rng.shuffle(rows)
    assert analysed(rows, tmp_path) == before


@PROPERTY
@given(tables())
def test_another_dataset_changes_no_block_of_the_first(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    """Only q-values may change: they belong to a family, which has more members now."""
    more = rows + [one | {"dataset": "third"} for one in rows_of(SETS["three items"])]
    before, after = (analysed(some, tmp_path)["results"]["0"]["open"]["subgroups"]["dataset"] for some in (rows, more))
    assert set(after) == {*before, "third"}
    for name, block in before.items():
        assert without(after[name], "q_value") == without(block, "q_value")


SWAPPED = {"control": "treatment", "treatment": "control", "wins": "losses", "losses": "wins", "b": "c", "c": "b",
           "W_plus": "W_minus", "W_minus": "W_plus", "p_above": "p_below", "p_below": "p_above"}  # fmt: skip
SWAPPED |= {
    f"{stem}_{one}": f"{stem}_{SWAPPED[one]}"
    for stem in ("mean", "se", "bounds", "sigma2", "n_ties")
    for one in ("control", "treatment")
}
NEGATED = {"delta_mean", "delta_aurc", "estimate", "hodges_lehmann", "cohens_d", "hedges_g", "cohens_d_av",
           "cliffs_delta", "paired_dominance", "rank_biserial", "z0", "acceleration"}  # fmt: skip
INTERVALS = {"ci", "ci_95", "ci_95_t", "ci_90", "percentile_95", "bca_95", "bootstrap_ci_95", "hksj_ci_95"}
DIRECTED = {"p_non_inferiority", "non_inferior", "or_infinite", "warnings", "fdr"}  # say more than a sign


def relabelled(value: Any, key: str = "") -> Any:
    """What a document must become when control and treatment change places."""
    if key in NEGATED and value is not None:
        return -value
    if key in INTERVALS and value is not None:
        return [-value[1], -value[0]]
    if key == "bounds_delta" and value is not None:
        return {"worst": value["best"] and -value["best"], "best": value["worst"] and -value["worst"]}
    if key == "odds_ratio":
        return 1 / value if value else value
    if key == "or_ci_95" and value is not None:
        return [1 / end if end else None if end == 0 else 0.0 for end in value[::-1]]
    if isinstance(value, dict):
        return {
            SWAPPED.get(name, name): relabelled(child, name) for name, child in value.items() if name not in DIRECTED
        }
    return [relabelled(child) for child in value] if isinstance(value, list) else value


def close(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        assert set(a) == set(b), path
        return [where for key in a for where in close(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [where for i, (x, y) in enumerate(zip(a, b, strict=True)) for where in close(x, y, f"{path}.{i}")]
    if isinstance(a, float | int) and isinstance(b, float | int):
        return [] if math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-9) else [f"{path}: {a} {b}"]
    return [] if a == b else [f"{path}: {a} {b}"]


@PROPERTY
@given(tables())
def test_relabelling_the_conditions_flips_signs_and_nothing_else(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    """Intervals mirror to 1e-7 of themselves: a root of the cluster bootstrap is found from another side."""
    before = analysed(rows, tmp_path)["results"]
    changed = [one | {"condition": SWAPPED[one["condition"]]} for one in rows]
    after = without(analysed(changed, tmp_path)["results"], *DIRECTED)
    odds = ("odds_ratio",)  # 0 becomes infinite, which is null
    assert close(without(relabelled(before), *odds), without(after, *odds)) == []


def test_official_scores_of_two_readers(tmp_path: Path, shared_data: Path) -> None:
    """Real answers of BERT and nlnet to 1,000 SQuAD v2 questions, scored by the official script."""
    source = shared_data / "expected_official_scores_per_question.csv"
    with open(source, encoding="utf-8", newline="") as stream:
        records = [one for one in csv.DictReader(stream) if one["dataset"] == "squad_v2"]
    names = {"nlnet_single": "control", "bert_single": "treatment"}
    rows = [
        row(
            one["id"], names[one["system"]], em=float(one["em"]), f1=float(one["f1"]), answerable=int(one["answerable"])
        )
        for one in records
        if one["system"] in names
    ]
    metrics = analysed(rows, tmp_path)["results"]["0"]["open"]["metrics"]
    scores = {c: {one["item_id"]: one for one in rows if one["condition"] == c} for c in names.values()}
    for name in ("em", "f1"):
        control, treatment = (np.array([float(scores[c][i][name]) for i in sorted(scores[c])]) for c in names.values())
        reference = scipy_stats.ttest_rel(treatment, control)
        assert metrics[name]["n_pairs"] == 1000
        assert metrics[name]["delta_mean"] == pytest.approx(np.mean(treatment - control), rel=1e-9)
        assert metrics[name]["p_t"] == pytest.approx(reference.pvalue, rel=1e-8)
    b, c = (int(np.sum(np.array([float(scores[x][i]["em"]) - float(scores[y][i]["em"]) for i in scores[x]]) > 0))
            for x, y in (("treatment", "control"), ("control", "treatment")))  # fmt: skip
    assert metrics["em"]["perm_p_value"] == pytest.approx(scipy_stats.binomtest(b, b + c).pvalue, rel=1e-9)
