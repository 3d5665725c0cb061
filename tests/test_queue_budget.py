"""What a submission will cost, before it is made; and the hard stop that counts the most it may cost."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_trial import CLOSED, OPEN, SmallTrial, settings

from pipeline import config
from pipeline.errors import BudgetExceeded
from pipeline.ledger import ID_TAKEN, Attempt
from pipeline.providers.base import Binding, JobPhase
from pipeline.queue import budget, estimates
from pipeline.queue.estimates import NOTHING, Estimate, Planned, Price

PRICED = {"models": {"lab/small": {"input_per_mtok": 4, "output_per_mtok": 20}}}
PRICE = Price(2e-6, 1e-5, 1e-6)
UNKNOWN = Price(None, None, None)
FROZEN = Path("experiments/run_r/experiment.yaml")
INTENDED = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = Attempt(1, "j", "j-in", "j-out", "a" * 64, 4, "lab/small", Binding("f", "a", "e"), {"usd": 0.5}, INTENDED)


def checked(tmp_path, **changes):
    return config.check(settings(**changes), base=tmp_path, where="x")


def price_of(tmp_path, **changes):
    found = checked(tmp_path, **changes)
    return Price.of(found, found.trials[0])


# --- prices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "price"),
    [
        ({"provider": "fireworks", "prices": PRICED}, PRICE),
        ({"provider": "emulator", "prices": PRICED}, PRICE),
        ({"provider": "emulator"}, Price(0.0, 0.0, 0.0)),
        ({"provider": "fireworks"}, UNKNOWN),
        ({"provider": "fireworks", "prices": {"models": {"small": PRICED["models"]["lab/small"]}}}, PRICE),
        ({"provider": "fireworks", "prices": {**PRICED, "batch_discount": 0, "cached_discount": 0}},
         Price(4e-6, 2e-5, 4e-6)),
        ({"provider": "fireworks", "prices": {"models": {"small": {"input_per_mtok": 0, "output_per_mtok": 0}}}},
         Price(0.0, 0.0, 0.0)),
    ],
)  # fmt: skip
def test_the_price_is_the_configs_less_its_discounts(tmp_path, changes, price):
    found = price_of(tmp_path, **changes)
    assert (found.input, found.output, found.cached) == pytest.approx((price.input, price.output, price.cached))


def test_tokens_are_priced_with_the_cached_ones_as_part_of_the_input():
    assert PRICE.usd(1_000_000, 0) == pytest.approx(2.0)
    assert PRICE.usd(1_000_000, 100_000, 500_000) == pytest.approx(1.0 + 0.5 + 1.0)
    assert UNKNOWN.usd(0, 0) is None


# --- estimates ------------------------------------------------------------------------------------


def body(*texts, **limits):
    return {"messages": [{"role": "user", "content": text} for text in texts], **limits}


def test_an_estimate_by_hand():
    """480 characters: 100, 120, 150 tokens, and 4 for each of two messages; 30 % of the limit, or all of it."""
    found = estimates.of_body(body("x" * 400, "y" * 80, max_tokens=100), 3)
    assert found == Estimate(3, 3 * 108, 3 * 128, 3 * 158, 3 * 30, 3 * 100)
    low, expected, high = found.usd(PRICE)
    assert low == pytest.approx(324 * 2e-6)
    assert expected == pytest.approx(384 * 2e-6 + 90 * 1e-5)
    assert high == pytest.approx(474 * 2e-6 + 300 * 1e-5)
    assert found.usd(UNKNOWN) is None


def test_without_a_limit_one_is_assumed_and_a_small_one_still_costs():
    assert estimates.of_body(body("x"), 1).output_tokens == 512
    assert estimates.of_body(body("x", max_tokens=1), 1).output_expected == 1


def test_a_file_is_estimated_row_by_row(quick_path):
    small = SmallTrial(quick_path, [OPEN, CLOSED], samples_per_item=2, decoding={"max_tokens": 10}).ready()
    rows = small.requests("t0_control_p01")
    expected = NOTHING
    for row in rows:
        expected += estimates.of_body(row["body"], 1)
    found = estimates.of_requests(small.paths.part_requests("t0_control_p01"))
    assert found == expected
    assert (found.rows, found.output_tokens) == (4, 40)


ESTIMATE = st.builds(Estimate, *[st.integers(0, 10**6)] * 6)


@given(ESTIMATE, ESTIMATE)
def test_estimates_add_up(one, other):
    total = one + other
    assert total == other + one
    assert one + NOTHING == one
    assert total.usd(PRICE) == pytest.approx(estimates.add(one.usd(PRICE), other.usd(PRICE)))


def test_the_intent_keeps_the_most_it_may_cost():
    found = Estimate(1, 10, 20, 30, 5, 50)
    assert estimates.ledger_estimate(found, PRICE) == {
        "input_tokens": 30, "output_tokens": 50, "usd": pytest.approx(30 * 2e-6 + 50 * 1e-5),
    }  # fmt: skip
    assert estimates.ledger_estimate(found, UNKNOWN)["usd"] is None


def test_a_plan_of_several_parts_has_one_price_or_none():
    estimate = Estimate(10, 1000, 1200, 1500, 300, 1000)
    both = Planned().with_part(estimate, PRICE, "t").with_part(estimate, PRICE, "t")
    assert (both.parts, both.estimate.rows) == (2, 20)
    assert both.usd == pytest.approx((0.004, 0.0108, 0.026))
    assert re.fullmatch(r"for about \$0\.0108 \(\$0\.0040* to at most \$0\.0260*\)", both.cost)
    assert both.with_part(estimate, UNKNOWN, "t").with_part(estimate, PRICE, "t").usd is None
    assert both.with_part(estimate, UNKNOWN, "t").cost == "at an unknown price"
    assert Planned().usd == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("provider", ["fireworks", "emulator"])
def test_a_model_without_a_price_is_named_and_its_cost_never_looks_like_nothing(tmp_path, provider):
    """All requests were counted and one model's money; with no price at all it said "$0.00 to at most $0.00"."""
    models = [{"id": "lab/small"}, {"id": "lab/large"}]
    estimate = Estimate(10, 1000, 1200, 1500, 300, 1000)
    one = checked(tmp_path, models=models, provider=provider, prices=PRICED)
    prices = [Price.of(one, trial) for trial in one.trials]
    both = (
        Planned()
        .with_part(estimate, prices[0], "t")
        .with_part(estimate, prices[1], "u")
        .with_part(estimate, prices[1], "u")
    )
    assert both.cost == "for about $0.0054 ($0.0020 to at most $0.0130; no price for lab/large: not counted)"
    assert (both.usd is None) is (provider == "fireworks")
    none = checked(tmp_path, models=models, provider=provider)
    alone = Planned().with_part(estimate, Price.of(none, none.trials[0]), "t")
    what = "at an unknown price" if provider == "fireworks" else "free with the emulator"
    assert alone.cost == f"{what} (no price for lab/small: not counted)"


def test_a_price_for_a_name_that_is_nearly_a_models_is_pointed_out(tmp_path):
    """A price list may name models that are not asked; so it is no error, and was never told."""
    price = PRICED["models"]["lab/small"]
    found = checked(tmp_path, provider="fireworks", prices={"models": {"smal": price, "unlike": price}})
    planned = Planned().with_part(NOTHING, Price.of(found, found.trials[0]), "t")
    assert "no price for lab/small (prices.models has 'smal'; did you mean 'small'?): not counted" in planned.cost
    other = checked(tmp_path, provider="fireworks", prices={"models": {"unlike": price}})
    assert Price.of(other, other.trials[0]).missing == "lab/small"


# --- spent and committed --------------------------------------------------------------------------


SILENT = {"input_tokens": 0, "output_tokens": 0, "succeeded": 0}
COUNTED = {"input_tokens": 1000, "output_tokens": 100, "succeeded": 3}


@pytest.mark.parametrize(
    ("changes", "price", "usd"),
    [
        ({}, PRICE, 0.5),
        ({"accepted": True, "state": "RUNNING"}, PRICE, 0.5),
        ({"ended": JobPhase.COMPLETED, "counts": {"input_tokens": 1000, "output_tokens": 100}}, PRICE, 0.003),
        ({"ended": JobPhase.PARTIAL, "counts": COUNTED | {"cached_tokens": 1000}}, PRICE, 0.002),
        ({"ended": JobPhase.PARTIAL, "counts": COUNTED | {"cached_tokens": 9999}}, PRICE, 0.002),  # part of the input
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED | {"output_tokens": 0}}, PRICE, 0.5),  # 0: nobody filled it in
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED | {"input_tokens": 0}}, PRICE, 0.5),
        ({"ended": JobPhase.COMPLETED, "counts": {"input_tokens": 1000, "succeeded": 3}}, PRICE, 0.5),
        ({"ended": JobPhase.PARTIAL, "counts": SILENT}, PRICE, 0.0),
        ({"ended": JobPhase.COMPLETED, "counts": SILENT | {"failed": 3}}, PRICE, 0.0),
        ({"ended": JobPhase.COMPLETED, "counts": SILENT | {"failed": 0}}, PRICE, 0.5),
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED | {"input_tokens": 2**63}}, PRICE, 0.5),  # no count of tokens
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED | {"output_tokens": 2**63}}, PRICE, 0.5),
        ({"ended": JobPhase.FAILED, "counts": {}}, PRICE, 0.5),
        ({"ended": JobPhase.FAILED, "counts": {"input_tokens": 0}}, PRICE, 0.0),
        ({"counts": {"input_tokens": 1000}}, PRICE, 0.5),
        ({"estimate": {"usd": None}}, PRICE, None),
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED}, UNKNOWN, 0.5),  # at most
        ({"ended": JobPhase.COMPLETED, "counts": COUNTED, "estimate": {"usd": None}}, UNKNOWN, None),
        ({"estimate": {"usd": None, "input_tokens": 1000, "output_tokens": 100}}, PRICE, 0.003),
        ({"ended": JobPhase.GONE, "state": ID_TAKEN}, PRICE, 0.0),
    ],
)
def test_an_attempt_counts_with_its_estimate_until_the_provider_has_counted(changes, price, usd):
    found = budget.spent(replace(ATTEMPT, **changes), price)
    assert found == (None if usd is None else pytest.approx(usd))


# --- the stop -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "committed", "planned", "goes"),
    [
        (None, [None, 99.0], None, True),
        (1.0, [], 1.0, True),
        (1.0, [0.5, 0.25], 0.25, True),
        (1.0, [0.5, 0.25], 0.26, False),
        (1.0, [1.0], 0.0, True),
        (0, [], 0.0, True),
        (0, [], 0.000001, False),
        (1.0, [2.0], 0.0, False),
        (1.0, [], None, False),
        (1.0, [0.1, None], 0.1, False),
    ],
)
def test_nothing_is_sent_that_might_pass_the_limit(tmp_path, limit, committed, planned, goes):
    found = checked(tmp_path, budget={"max_usd": limit})
    if goes:
        budget.check(found, iter(committed), planned, "m-default/t0_control_p01", FROZEN)
        return
    with pytest.raises(BudgetExceeded) as stopped:
        budget.check(found, iter(committed), planned, "m-default/t0_control_p01", FROZEN)
    assert str(stopped.value).startswith("m-default/t0_control_p01")
    assert "Nothing was sent for it." in str(stopped.value)
    assert str(FROZEN) in stopped.value.hint
    assert stopped.value.exit_code == 76


def test_the_stop_says_what_is_spent_what_it_may_cost_and_the_limit(tmp_path):
    said = r"part may cost \$1\.250*; with \$999\.50* spent and committed that passes budget\.max_usd = \$1,000\.0+\."
    with pytest.raises(BudgetExceeded, match=said):
        budget.check(checked(tmp_path, budget={"max_usd": 1000}), [999.5], 1.25, "part", FROZEN)


def test_a_limit_without_a_price_names_the_remedy(tmp_path):
    with pytest.raises(BudgetExceeded, match=r"budget.max_usd = \$2.00 cannot be kept[\s\S]*add the model under"):
        budget.check(checked(tmp_path, budget={"max_usd": 2}), [], None, "part", FROZEN)


def test_a_cost_that_nobody_knows_is_not_called_a_lacking_price(tmp_path):
    with pytest.raises(BudgetExceeded, match="what was submitted before may have cost is not known") as stopped:
        budget.check(checked(tmp_path, budget={"max_usd": 2}), [0.5, None], 1.0, "part", FROZEN)
    assert "put back its ledgers" in stopped.value.hint


def test_a_limit_and_a_model_without_a_price_are_refused_by_name_and_file(tmp_path):
    found = checked(tmp_path, provider="fireworks", budget={"max_usd": 2})
    with pytest.raises(BudgetExceeded) as stopped:
        budget.refuse_unpriced(found, found.trials, FROZEN, "doit resume rid=r")
    assert stopped.value.exit_code == 76
    assert str(stopped.value).splitlines() == [
        f"{FROZEN}: budget.max_usd = $2.00 cannot be kept: no price for lab/small.",
        "Nothing was sent. Results of running jobs are still collected.",
        f"Next: add prices.models.small (input_per_mtok, output_per_mtok) to {FROZEN}, or set budget.max_usd: null "
        "there; then doit resume rid=r",
    ]
    budget.refuse_unpriced(found, [], FROZEN, "")
    budget.refuse_unpriced(checked(tmp_path, provider="fireworks"), found.trials, FROZEN, "")
