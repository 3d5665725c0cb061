"""costs: numbers one can check by hand, and null with a reason for what is not known."""

import csv
import io
import json

import pytest
from faulty_disk import FaultyDisk, leftovers, operations
from small_trial import CLOSED, OPEN, SmallTrial, completion

from pipeline import config, custom_id, jsonl, schema
from pipeline.errors import DamagedArtifact, DiskTrouble
from pipeline.ledger import ID_TAKEN
from pipeline.phases.costs import costs
from pipeline.phases.score import COLUMNS

# US dollars per million tokens: 4 in, 20 out; half of both in batch mode, half again for cached input.
PRICES = {"models": {"small": {"input_per_mtok": 4, "output_per_mtok": 20}}}
IN, OUT, CACHED = 2e-6, 10e-6, 1e-6
TAKEN = "taken"


class Priced(SmallTrial):
    """Two items, one temperature, two samples; *counts* is what the provider says of each attempt."""

    def __init__(self, folder, **changes):
        super().__init__(folder, [OPEN, CLOSED], **{"samples_per_item": 2, "prices": PRICES, **changes})
        self.ready()

    def used(self, tokens):
        """Parse answers with the *tokens* (prompt, completion, total, cached) that a function of the id gives."""
        self.combine(lambda name: completion("x", tokens=tokens(name)))
        self.parse()

    def history(self, *counts, estimate=0.01, failed=""):
        """attempts.json: the first part has one attempt per entry of *counts*, the others have one like the first.

        TAKEN stands for an attempt that never was, because its id was another's.
        """
        parts = []
        for number, part in enumerate(self.index.parts):
            attempts = [
                {
                    "attempt": n,
                    "counts": {} if said == TAKEN else dict(said),
                    "estimate": {"usd": estimate},
                    "state": ID_TAKEN if said == TAKEN else "COMPLETED",
                }
                for n, said in enumerate(counts if number == 0 else counts[:1], 1)
            ]
            rows = part.rows if part.condition == failed else 0
            parts.append({"part": part.part, "rows": part.rows, "failed": rows, "attempts": attempts})
        self.paths.attempts.write_bytes(jsonl.dumps_pretty({"schema_version": 1, "parts": parts}))

    def scored(self, *rows):
        """per_item_scores.csv with (condition, item_key, em, n_samples, n_missing)."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, COLUMNS, restval="", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        names = ("condition", "item_key", "em", "n_samples", "n_missing")
        writer.writerows(dict(zip(names, row, strict=True)) for row in rows)
        self.paths.scores.write_bytes(stream.getvalue().encode())

    def costs(self):
        return costs(self.paths, self.config, self.trial)

    @property
    def document(self):
        found = json.loads(self.paths.costs.read_bytes())
        assert schema.problems(found, "costs.schema") == []
        return found


SCORES = [
    ("control", "quiz|o1", "0.5", "2", "0"),
    ("control", "quiz|c%7C1", "1.0", "2", "1"),
    ("treatment", "quiz|o1", "0.0", "2", "0"),
    ("treatment", "quiz|c%7C1", "", "2", "2"),
]
COUNTS = {"input_tokens": 400, "output_tokens": 40, "cached_tokens": 0}


@pytest.fixture
def small(quick_path):
    trial = Priced(quick_path)
    trial.used(lambda name: (100, 10, 110, 50) if "treatment" in name else (100, 10, 110, 0))
    trial.history(COUNTS)
    trial.scored(*SCORES)
    return trial


# --- what it costs --------------------------------------------------------------------------------


def test_the_whole_document_by_hand(small):
    small.costs()
    control = 400 * IN + 40 * OUT  # 0.0012
    treatment = 200 * IN + 200 * CACHED + 40 * OUT  # 0.0010
    assert (round(control, 6), round(treatment, 6)) == (0.0012, 0.001)
    rows = {
        "prompt_tokens": 400,
        "completion_tokens": 40,
        "total_tokens": 440,
        "usage_records": 4,
        "unpriced_rows": 0,
        "unpriced_answers": 0,
    }
    blocks = {
        "control": {**rows, "cached_tokens": 0, "usd": 0.0012, "usd_per_request": 0.0003},
        "treatment": {**rows, "cached_tokens": 200, "usd": 0.001, "usd_per_request": 0.00025},
    }
    part = {"attempts": 1, "rows": 4, "failed": 0, "provider_input_tokens": 400, "provider_output_tokens": 40}
    assert small.document == {
        "prompt_tokens": 800,
        "completion_tokens": 80,
        "total_tokens": 880,
        "cached_tokens": 200,
        "usage_records": 8,
        "unpriced_rows": 0,
        "unpriced_answers": 0,
        "usd": 0.0022,
        "usd_per_request": 0.000275,
        "schema_version": 4,
        "usage_source": {"type": "predictions", "path": "small-default/results/usage.csv"},
        "batch_discount_applied": True,
        "pricing": {
            "provider": "emulator",
            "model_key": "small",
            "input_rate_per_mtok": 4,
            "output_rate_per_mtok": 20,
            "rate_type": "list price per million tokens, before discounts",
            "table_found": True,
            "use_batch_api": True,
            "batch_discount": 0.5,
            "cached_discount": 0.5,
            "reason": None,
        },
        "conditions": {
            # em x answered samples: 0.5 x 2 + 1.0 x 1 = 2 correct answers of control, none of treatment
            "control": {**blocks["control"], "items": 2, "correct_answers": 2.0, "usd_per_item": 0.0006,
                        "usd_per_correct_answer": 0.0006},
            "treatment": {**blocks["treatment"], "items": 2, "correct_answers": 0.0, "usd_per_item": 0.0005,
                          "usd_per_correct_answer": None},
        },
        "temps": {"0": blocks},
        "parts": [
            {"part": "t0_control_p01", **part, "usd": 0.0012},
            {"part": "t0_treatment_p01", **part, "usd": 0.0012},
        ],
        "attempts": {
            "submissions": 2,
            "estimated_usd_at_most": 0.02,
            "provider_counts": {"input_tokens": 800, "output_tokens": 80, "cached_tokens": 0},
            "provider_usd": 0.0024,
            "spent_on_unused_rows_usd": 0.0002,
        },
    }  # fmt: skip


def test_the_price_of_one_thing_has_ten_digits_however_small_it_is(quick_path):
    """Six decimals left one or two digits of it: $0.000001 for $0.0000013, and a plan by that was off by a third."""
    small = Priced(quick_path, prices={"models": {"small": {"input_per_mtok": 0.02, "output_per_mtok": 0.05}}})
    small.used(lambda name: (61, 3, 64, 0))
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    control = small.document["conditions"]["control"]
    exact = 4 * (61 * 0.01e-6 + 3 * 0.025e-6)
    assert control["usd"] == 0.000003
    assert control["usd_per_item"] == control["usd_per_correct_answer"] == float(f"{exact / 2:.10g}")
    assert control["usd_per_request"] == small.document["usd_per_request"] == float(f"{exact / 4:.10g}") == 6.85e-07


def test_the_outcome_names_what_the_manifest_keeps(small):
    outcome = small.costs()
    assert outcome.artifacts == {
        "costs_json": "small-default/results/costs.json", "provider": "emulator", "pricing_key": "small", "usd": 0.0022,
    }  # fmt: skip
    assert [path.name for path in outcome.outputs] == ["costs.json"]


def test_the_same_inputs_give_the_same_bytes(small):
    small.costs()
    before = small.paths.costs.read_bytes()
    small.costs()
    assert small.paths.costs.read_bytes() == before
    assert before.startswith(b'{\n  "attempts"')
    assert before.endswith(b"}\n")


def test_temperatures_are_priced_apart(quick_path):
    small = Priced(quick_path, temperatures=[0, 0.25])
    small.used(lambda name: (100, 10, 110) if custom_id.split(name).temp == "0" else (10, 1, 11))
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    assert set(small.document["temps"]) == {"0", "0.25"}
    assert small.document["temps"]["0.25"]["control"]["usd"] == 0.00012
    assert small.document["temps"]["0"]["control"]["usd"] == 0.0012


@pytest.mark.parametrize(
    ("discounts", "usd"),
    [
        ({}, 0.0022),
        ({"batch_discount": 0}, 0.0044),
        ({"batch_discount": 1}, 0.0),
        ({"cached_discount": 0}, 0.0024),
        ({"cached_discount": 1}, 0.0020),
    ],
)
def test_discounts_are_those_of_the_config(small, discounts, usd):
    small.config = config.check(
        {**small.config.values, "prices": {**PRICES, **discounts}}, base=small.folder, where="experiment.yaml"
    )
    small.costs()
    assert small.document["usd"] == usd
    assert small.document["batch_discount_applied"] is (discounts.get("batch_discount", 0.5) > 0)


# --- what is not known is null, and said ----------------------------------------------------------


def reprice(small, **changes):
    small.config = config.check({**small.config.values, **changes}, base=small.folder, where="experiment.yaml")


def amounts(found):
    """Every US dollar amount of the document."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key.startswith("usd") or key.endswith("usd"):
                yield value
            else:
                yield from amounts(value)
    elif isinstance(found, list):
        for value in found:
            yield from amounts(value)


def test_an_unknown_price_is_null_with_a_reason_and_never_0(small):
    reprice(small, provider="fireworks", prices={"models": {"another": PRICES["models"]["small"]}})
    small.history(COUNTS, estimate=None)
    small.costs()
    assert set(amounts(small.document)) == {None}
    assert small.document["pricing"] == {
        **small.document["pricing"],
        "reason": "no price for 'lab/small' under prices.models",
        "table_found": False,
        "input_rate_per_mtok": None,
        "output_rate_per_mtok": None,
        "model_key": "lab/small",
    }
    assert small.document["prompt_tokens"] == 800


def test_the_emulator_is_free_and_says_so(small):
    reprice(small, prices={})
    small.costs()
    assert small.document["usd"] == 0.0
    assert small.document["pricing"]["reason"] == "the emulator is free"
    assert small.document["pricing"]["input_rate_per_mtok"] == 0.0


@pytest.mark.parametrize("name", ["lab/small", "small"])
def test_a_price_is_found_by_id_or_alias(small, name):
    reprice(small, provider="fireworks", prices={"models": {name: PRICES["models"]["small"]}})
    small.costs()
    assert small.document["pricing"]["model_key"] == name
    assert small.document["usd"] == 0.0022


def test_rows_without_counts_are_unpriced_and_counted(quick_path):
    """Missing usage once counted as 0 tokens and made the run look cheaper."""
    small = Priced(quick_path)
    first = small.ids[0]
    small.used(lambda name: None if name == first else (100, 10, 110))
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    assert (small.document["usage_records"], small.document["unpriced_rows"]) == (7, 1)
    assert small.document["conditions"]["control"]["unpriced_rows"] == 1
    assert small.document["conditions"]["treatment"]["unpriced_rows"] == 0
    assert small.document["usd"] == round(700 * IN + 70 * OUT, 6)


def test_an_unpriced_answer_leaves_the_price_of_an_item_open(quick_path):
    """It counted as $0 there: the condition of which less was known looked cheaper."""
    small = Priced(quick_path)
    small.used(lambda name: None if "|control|0|0|" in name else (100, 10, 110))
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    control, treatment = (small.document["conditions"][name] for name in ("control", "treatment"))
    assert (control["usage_records"], control["unpriced_rows"], control["unpriced_answers"]) == (2, 2, 2)
    assert (control["usd_per_item"], control["usd_per_correct_answer"]) == (None, None)
    assert control["usd"] == round(200 * IN + 20 * OUT, 6)
    assert (treatment["unpriced_answers"], treatment["usd_per_item"]) == (0, 0.0006)
    assert (small.document["unpriced_answers"], small.document["temps"]["0"]["control"]["unpriced_answers"]) == (2, 2)


@pytest.mark.parametrize("answer", [{"code": 500, "message": "no"}, completion(None, tokens=None)])
def test_a_request_without_an_answer_leaves_the_price_of_an_item_as_it_is(quick_path, answer):
    small = Priced(quick_path)
    first = small.ids[0]
    small.combine(lambda name: answer if name == first else completion(tokens=(100, 10, 110)))
    small.parse()
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    control = small.document["conditions"]["control"]
    assert (control["unpriced_rows"], control["unpriced_answers"]) == (1, 0)
    assert control["usd_per_item"] == pytest.approx((300 * IN + 30 * OUT) / 2)


def test_rows_that_failed_cost_what_the_provider_counted(quick_path):
    small = Priced(quick_path)
    small.combine(
        lambda name: {"code": 500, "message": "no"} if "control" in name else completion(tokens=(100, 10, 110))
    )
    small.parse()
    small.history(COUNTS, failed="control")
    small.scored(*SCORES)
    small.costs()
    control = small.document["conditions"]["control"]
    assert (control["usage_records"], control["unpriced_rows"]) == (0, 4)
    assert (control["usd"], control["usd_per_item"]) == (None, None)
    assert small.document["attempts"]["spent_on_unused_rows_usd"] == 0.0012


@pytest.mark.parametrize(
    ("counts", "provider", "unused"),
    [
        ([COUNTS, COUNTS], 1200 * IN + 120 * OUT, 0.0014),
        ([COUNTS, {}], None, None),
        ([{}], None, None),
        ([COUNTS, TAKEN], 800 * IN + 80 * OUT, 0.0002),
        ([COUNTS, TAKEN, COUNTS], 1200 * IN + 120 * OUT, 0.0014),
        ([COUNTS, TAKEN, {}], None, None),
        ([{"input_tokens": 400}], None, None),
        ([{"input_tokens": 0, "output_tokens": 0}], None, None),
        ([{**COUNTS, "cached_tokens": 500}], 800 * CACHED + 80 * OUT, 0.0),
        ([{**COUNTS, "cached_tokens": 400}], 800 * CACHED + 80 * OUT, 0.0),
    ],
)
def test_attempts_are_priced_by_the_providers_own_counts(small, counts, provider, unused):
    """What an attempt of which nothing is known cost cannot be known, so neither can the sum."""
    small.history(*counts)
    small.costs()
    found = small.document["attempts"]
    assert found["provider_usd"] == (None if provider is None else round(provider, 6))
    assert found["spent_on_unused_rows_usd"] == unused
    assert found["submissions"] == 2 + len(counts) - 1
    if provider is not None:
        assert sum(part["usd"] for part in small.document["parts"]) == pytest.approx(provider)
    assert small.document["parts"][0]["attempts"] == len(counts)
    if None in (provider, small.document["parts"][0]["usd"]):
        assert (provider, small.document["parts"][0]["usd"]) == (None, None)


@pytest.mark.parametrize("tokens", [None, (0, 0, 0), (0, 500, 500)])
def test_what_nobody_counted_is_in_no_sum_and_was_not_spent_on_nothing(quick_path, tokens):
    """Of answers called uncounted the tokens were priced; and all that the provider had counted was called wasted."""
    small = Priced(quick_path)
    small.used(lambda name: tokens if "control" in name else (100, 10, 110))
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    found = small.document
    assert (found["usage_records"], found["unpriced_rows"], found["completion_tokens"]) == (4, 4, 40)
    assert found["usd"] == found["conditions"]["treatment"]["usd"] == round(400 * IN + 40 * OUT, 6)
    assert found["conditions"]["control"]["usd"] is None
    assert found["attempts"]["provider_usd"] == round(800 * IN + 80 * OUT, 6)
    assert found["attempts"]["spent_on_unused_rows_usd"] is None


@pytest.mark.parametrize(
    ("tokens", "unpriced", "usd"),
    [
        ((100, 10, 110, 5000), 0, 400 * CACHED + 40 * OUT),
        ((100, 10, -1, -5), 0, 400 * IN + 40 * OUT),
        ((-100, 10, 110, 0), 4, None),
        ((100, -10, 110, 0), 4, None),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_counts_that_cannot_be_make_no_run_cheaper(quick_path, tokens, unpriced, usd, older):
    """They ended in an invalid costs.json at every try, or were subtracted from what the others cost."""
    small = Priced(quick_path)
    small.used(lambda name: tokens if "control" in name else (100, 10, 110))
    if older:  # as parse once wrote them
        cells = ",".join(f'"{count}"' for count in tokens)
        lines = small.paths.usage.read_text().splitlines()
        lines = [line.partition(',"ok",')[0] + f',"ok",{cells}' if "|control|" in line else line for line in lines]
        small.paths.usage.write_text("".join(f"{line}\r\n" for line in lines), newline="")
    small.history(COUNTS)
    small.scored(*SCORES)
    small.costs()
    found = small.document["conditions"]["control"]
    assert (found["unpriced_rows"], found["usd"]) == (unpriced, None if usd is None else round(usd, 6))


def test_a_count_of_64_bits_is_none_and_keeps_no_trial_from_its_costs(quick_path):
    """The sum of two was none that JSON can hold: a TypeError at every try, over answers that were paid."""
    most = 2**64 - 1
    small = Priced(quick_path)
    small.used(lambda name: (most, 10, most) if "control" in name else (100, 10, 110))
    small.history({**COUNTS, "input_tokens": most}, {**COUNTS, "input_tokens": most})
    small.scored(*SCORES)
    small.costs()
    assert small.document["conditions"]["control"]["unpriced_rows"] == 4
    assert small.document["usd"] == round(400 * IN + 40 * OUT, 6)
    assert small.document["attempts"]["provider_counts"] is None


@pytest.mark.parametrize("known", [True, False])
def test_what_the_content_filter_stopped_was_paid_for_rows_that_do_not_count(quick_path, known):
    """It was in no sum: neither an answer nor money spent on nothing."""
    small = Priced(quick_path)
    small.combine(
        lambda name: completion("x", tokens=(100, 10, 110), finish="content_filter" if "control" in name else "stop")
    )
    small.parse()
    small.history(COUNTS if known else {})
    small.scored(*SCORES)
    small.costs()
    found = small.document
    assert (found["usage_records"], found["usd"]) == (8, 0.0024)
    assert found["attempts"]["unanswered_usd"] == 0.0012
    assert found["attempts"]["spent_on_unused_rows_usd"] == (0.0012 if known else None)


def test_a_part_whose_attempts_are_not_known_any_more_leaves_the_sum_open(small):
    history = json.loads(small.paths.attempts.read_bytes())
    history["parts"][0]["attempts"] = []
    small.paths.attempts.write_bytes(jsonl.dumps_pretty(history))
    small.costs()
    found = small.document["attempts"]
    assert (found["provider_usd"], found["spent_on_unused_rows_usd"]) == (None, None)
    assert found["known"]["uncounted_attempts"] == 1
    assert [part["usd"] is None for part in small.document["parts"]] == [True, False]


def test_of_a_run_without_any_counts_the_price_is_unknown_not_0(quick_path):
    small = Priced(quick_path, provider="fireworks")
    small.used(lambda name: None)
    small.history({})
    small.scored(*SCORES)
    small.costs()
    blocks = (small.document, *small.document["conditions"].values(), *small.document["temps"]["0"].values())
    assert [(block["usage_records"], block["usd"]) for block in blocks] == [(0, None)] * 5
    assert small.document["conditions"]["control"]["usd_per_correct_answer"] is None


def test_what_is_known_is_said_although_the_sum_is_not(small):
    """An expired job often has no counts. One of those made everything that was counted unknown too."""
    small.history(COUNTS, {}, COUNTS, {}, TAKEN)
    small.costs()
    assert small.document["attempts"]["provider_counts"] is None
    assert small.document["attempts"]["known"] == {
        "uncounted_attempts": 2,
        "counts": {"input_tokens": 1200, "output_tokens": 120, "cached_tokens": 0},
        "usd": round(1200 * IN + 120 * OUT, 6),
    }


@pytest.mark.parametrize("counts", [[COUNTS], [COUNTS, TAKEN], [{}]])
def test_nothing_more_is_written_where_all_or_nothing_is_known(small, counts):
    small.history(*counts)
    small.costs()
    assert "known" not in small.document["attempts"]


def test_a_part_with_an_uncounted_attempt_has_no_known_sum_of_that_attempt(small):
    small.history(COUNTS, {})
    small.costs()
    assert small.document["parts"][0]["provider_input_tokens"] == 400
    assert small.document["parts"][1]["usd"] == 0.0012


def test_results_that_were_there_already_have_no_attempts(small):
    parts = [{"part": part.part, "rows": 4, "failed": 0, "attempts": []} for part in small.index.parts]
    small.paths.attempts.write_bytes(jsonl.dumps_pretty({"schema_version": 1, "parts": parts}))
    small.costs()
    assert small.document["attempts"] == {
        "submissions": 0, "estimated_usd_at_most": None, "provider_counts": None, "provider_usd": None,
        "spent_on_unused_rows_usd": None, "parts_without_record": 2,
    }  # fmt: skip
    assert small.document["parts"][0]["usd"] is None
    assert small.document["usd"] == 0.0022


# --- inputs that are not what their phases wrote --------------------------------------------------


@pytest.mark.parametrize("name", ["usage", "attempts", "scores"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b'"a\n', b"[]", b'{"parts": 5}', b'{"parts": [{}]}', b'"x","y"\r\n"1","2"\r\n', b"\x00" * 20,
     b'"custom_id","status","prompt_tokens","completion_tokens","total_tokens","cached_tokens"\r\n"x","ok","1","1","1",""',
     b'"condition","item_key","em","n_samples","n_missing"\r\n"control","a","high","1","0"\r\n'],
)  # fmt: skip
def test_a_damaged_input_is_one_clear_error(small, name, content):
    path = getattr(small.paths, name)
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact) as damage:
        small.costs()
    assert str(path) in str(damage.value)
    assert not small.paths.costs.exists()
    assert leftovers(small.folder) == []


def test_usage_of_fewer_rows_than_were_asked_is_refused(small):
    """Cut at a line end it is still a table; priced, the run would look cheaper than it was."""
    lines = small.paths.usage.read_bytes().splitlines(keepends=True)
    small.paths.usage.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(DamagedArtifact, match=r"usage\.csv: 6 rows, but 8 were asked for"):
        small.costs()
    assert not small.paths.costs.exists()


def test_a_failing_disk_leaves_the_old_costs(small):
    small.costs()
    before = small.paths.costs.read_bytes()
    small.history(COUNTS, COUNTS)
    for fail_at in range(len(operations(small.costs)) - 1):
        small.paths.costs.write_bytes(before)
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            small.costs()
        assert faulty.fired
        assert small.paths.costs.read_bytes() == before
