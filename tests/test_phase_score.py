"""`per_item_scores.csv`: its exact form, its numbers, and what stops it from being written."""

import csv
import io
import json
import os
import random
import statistics
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cells import guard, unguard
from pipeline.errors import ContractBroken, UnreadableFile
from pipeline.phases.score import COLUMNS, score
from pipeline.predictions import PREDICTION_COLUMNS
from pipeline.scoring.response import ScoringSettings

SHARED = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not on this machine")

CONTEXT = "Oslo is the capital of Norway. It was founded in 1040."


def closed(item_id, *answers, dataset="quiz", benchmark="triviaqa", cluster="c"):
    return {
        "answers": list(answers),
        "benchmark": benchmark,
        "cluster": cluster,
        "dataset": dataset,
        "id": item_id,
        "question": "?",
    }


def opened(item_id, *answers, context=CONTEXT, **fields):
    row = closed(item_id, *answers, **{"dataset": "squad", "benchmark": "squad_v2", **fields})
    return row | {"context": context, "is_unanswerable": not answers}


def said(item, text, condition="control", temp="0", sample=0, status="ok"):
    """A row of predictions.csv; *text* None is a request without a response."""
    row = dict.fromkeys(PREDICTION_COLUMNS, "")
    return row | {
        "dataset": guard(item["dataset"]),
        "item_id": guard(item["id"]),
        "condition": condition,
        "temp": temp,
        "sample_index": str(sample),
        "type": "open" if "context" in item else "closed",
        "response_text": guard(text or ""),
        "status": "error" if text is None else status,
    }


class Trial:
    """The files around one call of the phase."""

    def __init__(self, folder):
        self.prepared = (folder / "closed_book.jsonl", folder / "open_book.jsonl")
        self.predictions = folder / "predictions.csv"
        self.scores = folder / "per_item_scores.csv"

    def write(self, items, rows):
        for path, is_open in zip(self.prepared, (False, True), strict=True):
            lines = [json.dumps(item) + "\n" for item in items if ("context" in item) == is_open]
            path.write_text("".join(lines), encoding="utf-8")
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, PREDICTION_COLUMNS, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        self.predictions.write_bytes(stream.getvalue().encode())

    def score(self, **section):
        return score(self.predictions, self.prepared, self.scores, ScoringSettings.of(section))

    def run(self, items, rows, **section):
        """The rows of per_item_scores.csv."""
        self.write(items, rows)
        self.score(**section)
        with open(self.scores, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path)


# --- the file -------------------------------------------------------------------------------------


def test_the_whole_file_byte_for_byte(trial):
    capital, king, river = (
        opened("q2", "Oslo", cluster="Norway/0"),
        opened("q1", cluster="Norway/0"),
        closed("r|1", "Glomma"),
    )
    rows = []
    for condition, capitals, kings, rivers in (
        ("treatment", ["Oslo", "In Oslo"], ["I don't know", "Harald"], ["Glomma.", "glomma"]),
        ("control", ["Bergen", None], ["Oslo", "Oslo!"], [None, None]),
    ):
        for item, texts in ((capital, capitals), (king, kings), (river, rivers)):
            rows += [said(item, text, condition, "0.7", sample) for sample, text in enumerate(texts)]
    rows[1]["status"] = "truncated"
    trial.write([capital, king, river], rows)
    outcome = trial.score()
    expected = [
        COLUMNS,
        *"""
        quiz|r%7C1 quiz r|1 closed control 0.7 2 2 - - - - - - - - - - c 1 0 - - 0 -
        quiz|r%7C1 quiz r|1 closed treatment 0.7 2 0 1.0 0.0 1.0 0.0 0.0 0.0 - - - - c 1 2 1.0 - 0 -
        squad|q1 squad q1 open control 0.7 2 0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 Norway/0 0 2 1.0 0.0 0 -
        squad|q1 squad q1 open treatment 0.7 2 0 0.5 STD 0.5 STD 0.5 STD 0.5 STD 0.5 STD Norway/0 0 1 0.5 0.5 0 RULE
        squad|q2 squad q2 open control 0.7 2 1 0.0 - 0.0 - 0.0 - - - 1.0 - Norway/0 1 1 1.0 1.0 0 -
        squad|q2 squad q2 open treatment 0.7 2 0 0.5 STD F1 F1_STD 0.0 0.0 - - 0.5 STD Norway/0 1 2 0.5 0.0 1 -
        """.strip().split("\n"),
    ]
    cells = {
        "RULE": "0:dont_know",
        "-": "",
        "STD": repr(0.5**0.5),
        "F1": repr((1 + 2 / 3) / 2),
        "F1_STD": repr(statistics.stdev([1, 2 / 3])),
    }
    expected = [row if row is COLUMNS else [cells.get(cell, cell) for cell in row.split()] for row in expected]
    text = "".join('"' + '","'.join(row) + '"\r\n' for row in expected)
    assert trial.scores.read_bytes().decode() == text
    (output,) = outcome.outputs.values()
    assert (output.rows, output.written.size) == (6, len(text.encode()))
    assert outcome.artifacts == {
        "row_count": 6,
        "items": 3,
        "responses": 12,
        "missing": {"control": 3, "treatment": 0},
        "truncated": {"control": 0, "treatment": 1},
        "abstain_rules": {"dont_know": 1},
    }


def test_neither_the_order_of_predictions_nor_that_of_items_matters(trial):
    items = [opened(f"q{n}", *(["Oslo", "Norway"][: n % 3])) for n in range(6)] + [closed("r", "x")]
    texts = ["Oslo", "the Norway", "in Oslo", "unknown", "", None]
    rng = random.Random(7)
    rows = [
        said(item, rng.choice(texts), condition, temp, sample)
        for temp in ("0", "1")
        for condition in ("control", "treatment")
        for item in items
        for sample in range(4)
    ]
    trial.run(items, rows)
    first = trial.scores.read_bytes()
    trial.run(rng.sample(items, len(items)), rng.sample(rows, len(rows)))
    assert trial.scores.read_bytes() == first


def test_rows_are_sorted_by_type_dataset_item_temperature_condition(trial):
    items = [opened("b", "x"), opened("a", "x", dataset="z"), closed("b", "x"), closed("B", "x"), closed("10", "x")]
    rows = [said(item, "x", condition, temp) for temp in ("10", "2", "0.5") for condition in "tc" for item in items]
    keys = [
        (row["type"], row["dataset"], row["item_id"], float(row["temp"]), row["condition"])
        for row in trial.run(items, rows)
    ]
    assert keys == sorted(keys)
    assert len(keys) == 30


def test_the_same_id_may_stand_in_both_books_and_in_two_datasets(trial):
    items = [opened("1", "Oslo"), closed("1", "Oslo", dataset="squad"), closed("1", "Bergen")]
    rows = trial.run(items, [said(item, "Oslo") for item in items])
    assert [(row["type"], row["dataset"], row["em"]) for row in rows] == [
        ("closed", "quiz", "0.0"),
        ("closed", "squad", "1.0"),
        ("open", "squad", "1.0"),
    ]


# --- numbers --------------------------------------------------------------------------------------


def test_what_does_not_apply_is_empty(trial):
    items = [closed("t", "Oslo"), closed("n", "Oslo", benchmark="nq_open"), opened("s", "Oslo"), opened("u")]
    rows = {row["item_id"]: row for row in trial.run(items, [said(item, "Oslo") for item in items])}
    filled = {
        name: [
            key for key in ("em", "em_std", "f1", "false_answer_rate", "unsupported_rate", "consistency") if row[key]
        ]
        for name, row in rows.items()
    }
    assert filled == {
        "t": ["em", "f1", "consistency"],
        "n": ["em", "consistency"],
        "s": ["em", "f1", "unsupported_rate", "consistency"],
        "u": ["em", "f1", "false_answer_rate", "unsupported_rate", "consistency"],
    }


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["Oslo", "oslo.", "in Oslo", "Oslo city of Norway", "unknown", None]), min_size=1)
)
def test_means_and_stds_are_those_of_the_samples_with_a_response(texts, tmp_path_factory):
    trial, item = Trial(tmp_path_factory.mktemp("trial")), opened("q", "Oslo")
    # The other condition answers: a trial without any answer is an error.
    rows = [said(item, given, condition, sample=number) for number, text in enumerate(texts)
            for condition, given in (("control", text), ("treatment", "Oslo"))]  # fmt: skip
    row, _ = trial.run([item], rows)
    values = {"Oslo": 1, "oslo.": 1, "in Oslo": 2 / 3, "Oslo city of Norway": 0.4, "unknown": 0}
    present = [text for text in texts if text is not None]
    f1 = [values[text] for text in present]
    assert (row["n_samples"], row["n_missing"]) == (str(len(texts)), str(texts.count(None)))
    assert row["f1"] == "" if not f1 else float(row["f1"]) == pytest.approx(statistics.mean(f1), abs=1e-12)
    assert (
        row["f1_std"] == "" if len(f1) < 2 else float(row["f1_std"]) == pytest.approx(statistics.stdev(f1), abs=1e-12)
    )
    assert (
        row["abstain_rate"] == "" if not f1 else float(row["abstain_rate"]) == present.count("unknown") / len(present)
    )
    assert int(row["n_answered"]) == len(present) - present.count("unknown")
    same = [text.lower().strip(".") for text in present]
    assert row["consistency"] == "" if not f1 else float(row["consistency"]) == max(map(same.count, same)) / len(same)


def test_equal_scores_have_no_spread_at_all(trial):
    """0.1 + 0.1 + 0.1 is not 3 x 0.1; a std of 1e-17 would pass for a difference."""
    item = opened("q", "a1 " * 19)
    (row,) = trial.run([item], [said(item, "a1", sample=number) for number in range(3)])
    assert (row["f1"], row["f1_std"]) == (repr(2 * 1.0 * (1 / 19) / (1 / 19 + 1.0)), "0.0")


def test_the_rule_of_each_abstention_stands_beside_its_sample(trial):
    """An audit of the detector joins it with predictions.csv, in whatever order these stand there."""
    item = opened("q", "Oslo")
    texts = ["I don't know", "Oslo", "", None, "The...", "The passage does not say.", "unknown"]
    (row,) = trial.run([item], [said(item, text, sample=number) for number, text in reversed([*enumerate(texts)])])
    rules = "0:dont_know 2:empty 4:empty_after_normalisation 5:passage_silent 6:unknown"
    assert row["abstain_rules"] == rules
    (row,) = trial.run([opened("q", "Unknown")], [said(item, "unknown")])
    assert (row["abstain_rate"], row["abstain_rules"]) == ("0.0", "")


def test_the_settings_reach_the_scores(trial):
    item = opened("q", "Oslo")
    replies = [said(item, "Norway has a capital city.\nAnswer: Oslo")]
    (row,) = trial.run([item], replies)
    assert (row["em"], row["unsupported_rate"], row["unsupported_alt_rate"]) == ("0.0", "1.0", "0.0")
    (row,) = trial.run([item], replies, unsupported="overlap")
    assert (row["em"], row["unsupported_rate"], row["unsupported_alt_rate"]) == ("0.0", "0.0", "1.0")
    (row,) = trial.run([item], replies, extraction="after_marker")
    assert (row["em"], row["unsupported_rate"], row["unsupported_alt_rate"]) == ("1.0", "0.0", "0.0")


def test_an_earlier_tools_temperature_is_the_same_temperature(trial):
    item = closed("q", "Oslo")
    (row,) = trial.run([item], [said(item, "Oslo", temp="0.0"), said(item, "Oslo", temp="0", sample=1)])
    assert (row["temp"], row["n_samples"]) == ("0", "2")


def test_a_label_of_unanswerable_outweighs_answers(trial):
    item = opened("q", "Oslo") | {"is_unanswerable": True}
    (row,) = trial.run([item], [said(item, "Oslo")])
    assert (row["answerable"], row["em"], row["false_answer_rate"]) == ("0", "0.0", "1.0")


def test_each_question_is_held_against_its_own_passage(trial):
    """Passages are read again by their place in the file, also after the file has changed."""
    items = [opened(f"q{n}", f"x{n}", context=f"word x{n} {'é' * n}") for n in range(50)]
    rows = [said(item, f"x{n}", condition) for condition in ("control", "treatment") for n, item in enumerate(items)]
    assert {row["unsupported_rate"] for row in trial.run(items, rows)} == {"0.0"}
    changed = [item | {"context": "nothing"} for item in items]
    assert {row["unsupported_rate"] for row in trial.run(changed, rows)} == {"1.0"}


# --- hostile content ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '","',
        '"\r\n"',
        "a\nb\r\nc\rd",
        '"',
        '""","',
        "=1+1",
        "'quoted'",
        "''",
        "\x00",
        "\u2028",
        "\ufeff",
        "x" * 200_000,
        ",",
    ],
    ids=lambda text: repr(text[:6]),
)
def test_any_text_comes_back_from_the_csv_as_it_was(trial, text):
    item = closed("q", text, "Oslo", benchmark="nq_open")
    (row,) = trial.run([item], [said(item, text)])
    assert row["em"] == "1.0"


@pytest.mark.parametrize(
    "item_id", ["a|b", "100%", "%7C", "=1", "'x", "-1", 'say "hi"', "two\nlines", "ünï", " ", "a,b"]
)
def test_an_item_id_may_hold_any_character(trial, item_id):
    item = closed(item_id, "Oslo")
    (row,) = trial.run([item], [said(item, "Oslo")])
    assert (unguard(row["item_id"]), row["em"]) == (item_id, "1.0")
    assert row["item_key"].count("|") == 1


def test_memory_does_not_grow_with_the_answers(trial):
    items = [closed(str(number), "Oslo") for number in range(60)]
    trial.write(items, [said(item, f"{item['id']} {n} " * 3_000, sample=n) for item in items for n in range(5)])
    assert trial.predictions.stat().st_size > 4_000_000
    tracemalloc.start()
    trial.score()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


# --- what must agree ------------------------------------------------------------------------------

A, B = closed("a", "Oslo"), closed("b|1", "Oslo")
FULL = [said(item, "Oslo", condition) for condition in ("control", "treatment") for item in (A, B)]
KEPT = "No score was written; the scores that stood there are untouched."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "predictions.csv: there is no prediction."),
        ([*FULL, said(closed("zz", ""), "x")], "predictions.csv: 1 items were never prepared: quiz|zz (closed)."),
        ([*FULL, said(opened("a", dataset="quiz"), "x")], "1 items were never prepared: quiz|a (open)."),
        (
            [said(closed(f"z{n}", ""), "x") for n in range(7)],
            "7 items were never prepared: quiz|z0 (closed), quiz|z1 (closed), quiz|z2 (closed), quiz|z3 (closed), "
            "quiz|z4 (closed), ...",
        ),
        ([*FULL, FULL[1]], "1 samples stand there more than once: quiz|b%7C1 (closed) control 0 sample 0."),
        (
            FULL[:-1],
            "1 of items x conditions x temperatures do not have 1 samples: quiz|b%7C1 (closed) treatment 0 has 0.",
        ),
        ([*FULL, said(A, "x", sample=1)], "3 of items x conditions x temperatures do not have 2 samples"),
        ([row | {"sample_index": "1"} for row in FULL], "4 of items x conditions x temperatures do not have 1 samples"),
        ([*FULL, said(A, "x", temp="1")], "3 of items x conditions x temperatures do not have 1 samples"),
        ([*FULL, said(A, "x", sample=1, status="lost")], "row 5: not a prediction: the status 'lost'."),
        ([*FULL, said(A, "x", temp="warm")], "row 5: not a prediction: could not convert string to float: 'warm'."),
        ([*FULL, said(A, "x", temp="nan")], "row 5: not a prediction: the temperature 'nan'."),
        ([*FULL, said(A, "x", sample="²")], "row 5: not a prediction: the sample_index '²'."),
        ([*FULL, said(A, "x", sample="1000")], "row 5: not a prediction: the sample_index '1000'."),
    ],
)
def test_predictions_that_do_not_fit_the_items_are_an_error_that_names_them(trial, rows, message):
    trial.scores.write_text("old")
    trial.write([A, B], rows)
    with pytest.raises(ContractBroken) as caught:
        trial.score()
    assert message in str(caught.value)
    assert KEPT in str(caught.value)
    assert "Next: doit forget parse" in str(caught.value)
    assert trial.scores.read_text() == "old"
    assert not list(trial.scores.parent.glob(".*tmp"))


def test_a_trial_without_any_answer_is_an_error_that_says_why(trial):
    """All rows filtered ended with exit code 0 and "missing: none": the download had been fine."""
    reasons = ["no text in the response (finish_reason stop)"] * 3 + ["500: " + "overloaded " * 50]
    rows = [said(row, None, condition) for row in (A, B) for condition in ("control", "treatment")]
    trial.scores.write_text("old")
    trial.write([A, B], [row | {"error": reason} for row, reason in zip(rows, reasons, strict=True)])
    with pytest.raises(ContractBroken) as caught:
        trial.score()
    assert (
        "none of 4 requests has an answer; there is nothing to compare (3: no text in the response (finish_reason "
        "stop); 1: 500: overloaded "
    ) in str(caught.value)
    assert "max_tokens" in str(caught.value)
    assert "overloaded " * 10 not in str(caught.value)
    assert trial.scores.read_text() == "old"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda data: b"",
            "the columns type, dataset, item_id, condition, temp, sample_index, status, response_text are missing.",
        ),
        (lambda data: data.replace(b'"status"', b'"state"'), "the columns status are missing."),
        (lambda data: data[: data.rindex(b"slo")], "after row 3: not readable as CSV in UTF-8"),
        (lambda data: data.replace(b"Oslo", b"\xff"), "not readable as CSV in UTF-8"),
        (lambda data: data + b'"a","b"\r\n', "row 5: 2 cells instead of 16."),
        (lambda data: data + b'"a"b\r\n', "not readable as CSV in UTF-8"),
    ],
)
def test_a_damaged_csv_is_named_with_its_row(trial, damage, message):
    trial.write([A, B], FULL)
    trial.predictions.write_bytes(damage(trial.predictions.read_bytes()))
    with pytest.raises(ContractBroken) as caught:
        trial.score()
    assert message in str(caught.value)
    assert not trial.scores.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": ', "not JSON"),
        (b"[]", "list indices"),
        (
            json.dumps(closed("c", benchmark="squad")).encode(),
            "the benchmark 'squad' is not one of nq_open, squad_v2, triviaqa",
        ),
        (json.dumps({key: value for key, value in A.items() if key != "cluster"}).encode(), "no 'cluster'"),
        (json.dumps(A).encode(), "the item quiz|a (closed) stands there twice"),
    ],
)
def test_a_prepared_row_that_cannot_be_used_is_named(trial, line, message):
    trial.write([A, B], FULL)
    trial.prepared[0].write_bytes(trial.prepared[0].read_bytes() + line + b"\n")
    with pytest.raises(ContractBroken) as caught:
        trial.score()
    assert f"closed_book.jsonl line 3: not a usable prepared item ({message}" in str(caught.value)
    assert not trial.scores.exists()


def test_a_file_that_cannot_be_read_is_not_called_damaged(trial):
    trial.write([A, B], FULL)
    trial.predictions.unlink()
    trial.predictions.mkdir()
    with pytest.raises(UnreadableFile):
        trial.score()


# --- real data ------------------------------------------------------------------------------------


@needs_data
def test_two_real_systems_get_their_official_totals(trial):
    """BERT as control and nlnet as treatment on SQuAD v2, through files, as in a run."""
    document = json.loads((SHARED / "squad_v2_dev_sample.json").read_text(encoding="utf-8"))
    items = [
        opened(entry["id"], *[answer["text"] for answer in entry["answers"]], context=paragraph["context"])
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for entry in paragraph["qas"]
    ]
    systems = {"control": "bert_single", "treatment": "nlnet_single"}
    rows = []
    for condition, system in systems.items():
        answers = json.loads((SHARED / f"squad_v2_dev_sample.predictions.{system}.json").read_text(encoding="utf-8"))
        rows += [said(item, answers[item["id"]], condition) for item in items]
    scores = trial.run(items, rows)
    totals = json.loads((SHARED / "expected_official_scores.json").read_text(encoding="utf-8"))["squad_v2"]
    for condition, system in systems.items():
        found = [row for row in scores if row["condition"] == condition]
        unanswerable = [float(row["false_answer_rate"]) for row in found if row["answerable"] == "0"]
        assert len(found) == 1000
        assert sum(float(row["em"]) for row in found) / 10 == pytest.approx(totals[system]["exact"], abs=1e-9)
        assert sum(float(row["f1"]) for row in found) / 10 == pytest.approx(totals[system]["f1"], abs=1e-9)
        assert 100 * (1 - statistics.mean(unanswerable)) == pytest.approx(totals[system]["NoAns_exact"], abs=1e-9)
        assert sum(float(row["abstain_rate"]) for row in found) == sum(
            row["response_text"] == "" for row in rows if row["condition"] == condition
        )
