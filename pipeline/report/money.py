"""What was paid, and what it bought."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import curves
from pipeline.report.artifacts import Json
from pipeline.report.blocks import Block, Code, Details, Heading, Line, Paragraph, Section, Table
from pipeline.report.model import Model
from pipeline.report.text import DASH, count, counted, exact_percent, listed, number, percent, points, usd


def cost(model: Model) -> Section:
    """Tokens and US dollars, per condition, against what was expected and what the provider counted."""
    return Section("Cost", "cost", tuple(_cost(model)))


def cost_effectiveness(model: Model) -> Section:
    """What a right answer costs, and what a gain in accuracy costs more."""
    return Section("Cost-Effectiveness", "cost-effectiveness", tuple(_cost_effectiveness(model)))


def _cost(model: Model) -> Iterator[Block]:
    costs = model.costs
    yield Paragraph(_price(model))
    rows = [
        _row(model, condition, costs["conditions"][condition])
        for condition in model.conditions
        if condition in costs["conditions"]
    ]
    yield Table(
        ("Condition", "#Counted", "#Unpriced", "#Prompt", "#Cached", "#Completion", "#Total tokens", "#US dollars"),
        (*rows, _row(model, "all", costs)),
        "Rows with token counts, rows without (they are not free, only unknown), tokens, and their price.",
    )
    attempts = costs["attempts"]
    wasted, unanswered = attempts["spent_on_unused_rows_usd"], attempts.get("unanswered_usd")
    answers = None if costs["usd"] is None else round(costs["usd"] - (unanswered or 0), 6)
    least = wasted is None and unanswered is not None and costs["pricing"]["table_found"]
    yield Table(
        ("Expected against actual", "#US dollars"),
        (
            ("estimated at most, before submission", model.usd(attempts["estimated_usd_at_most"])),
            ("by the provider's own counts", model.usd(attempts["provider_usd"])),
            ("the rows that count", model.usd(answers)),
            ("spent on rows that do not count", f"at least {model.usd(unanswered)}" if least else model.usd(wasted)),
        ),
        _submissions(attempts),
    )
    yield curves.tokens(model, "tokens")
    if model.answers.unknown:
        yield Paragraph(f"{counted(model.answers.unknown, 'request')} came without token counts and are not drawn.")


def _submissions(attempts: Json) -> str:
    made = counted(attempts["submissions"], "submission")
    if lost := attempts.get("parts_without_record"):
        return f"{made}, and those of {counted(lost, 'part')} of which no record is left, so the totals are not known."
    if attempts["provider_counts"] is None:
        return f"{made}. The provider gave no counts for every one, so its total is not known."
    return f"{made}."


def _price(model: Model) -> Line:
    costs, price = model.costs, model.costs["pricing"]
    if not price["table_found"]:
        unpriced = ("No list price for ", Code(price["model_key"]), " under prices.models: not counted")
        if price["provider"] != "emulator":
            return (*unpriced, ". What was paid is not known; it is not 0.")
        return (*unpriced, ". The emulator charges nothing.")
    discounts = (
        f"{exact_percent(price['batch_discount'])} off for batch mode"
        if costs["batch_discount_applied"]
        else "no discount"
    )
    free = " The emulator charges nothing; the price is shown for the sake of example." if (
        price["provider"] == "emulator"
    ) else ""  # fmt: skip
    paid = f"{usd(costs['usd'])} for {counted(costs['usage_records'], 'request')}"
    if costs["usd"] is None:
        paid = "No answer came with token counts, so the cost is not known; it is not 0. It would be counted"
    return (
        f"{paid}, at "
        f"{usd(price['input_rate_per_mtok'])} per million input tokens and {usd(price['output_rate_per_mtok'])} per "
        f"million output tokens, {discounts}, {exact_percent(price['cached_discount'])} more off cached input.{free}"
    )


def _row(model: Model, name: str, money: Json) -> tuple[Line, ...]:
    tokens = ("usage_records", "unpriced_rows", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens")
    return (name, *(count(money[key]) for key in tokens), model.usd(money["usd"]))


def _cost_effectiveness(model: Model) -> Iterator[Block]:
    yield curves.cost_accuracy(model, "cost-accuracy")
    conditions = model.costs["conditions"]
    yield Table(
        ("Condition", "#Questions", "#Right answers", "#US dollars per question", "#US dollars per right answer"),
        tuple(
            (
                condition,
                count(conditions[condition]["items"]),
                number(conditions[condition]["correct_answers"], 0),
                model.usd(conditions[condition]["usd_per_item"]),
                model.usd(conditions[condition]["usd_per_correct_answer"]),
            )
            for condition in model.conditions
            if condition in conditions
        ),
        "A question's cost covers all its samples and temperatures; right answers are samples.",
    )
    if uncounted := [name for name in model.conditions if conditions.get(name, {}).get("unpriced_answers")]:
        answers = sum(conditions[name]["unpriced_answers"] for name in uncounted)
        yield Paragraph(
            f"{counted(answers, 'answer')} under {listed(uncounted)} came without token counts: what they cost is not "
            "known, so nor is the price of a question or of a gain there."
        )
    rows = [row for treatment in model.treatments for temp in model.temps if (row := _gain(model, treatment, temp))]
    types = {block.type for block in model.blocks}
    yield Heading("What a gain costs")
    if rows:
        yield Table(
            (
                "Contrast",
                "Temperature",
                "#Extra US dollars",
                "#Extra",
                "#EM gain (points)",
                "#US dollars per point gained",
            ),
            tuple(rows),
            f"EM gain: the mean difference over the questions{' of both types' if len(types) > 1 else ''} that both "
            "conditions answered. Money: of all requests. No price per point where nothing was gained.",
        )
        if failed := sum(_unpriced(model, condition) for condition in model.conditions):
            yield Paragraph(
                f"{counted(failed, 'request')} came without token counts; so that this makes no condition cheaper, "
                f"{'it is' if failed == 1 else 'each is'} taken to cost as much as its condition's others."
            )
    else:
        needs = "A price per point needs a list price, the token counts of every answer and scores in both conditions."
        yield Details("Not shown", (Paragraph(needs),))


def _gain(model: Model, treatment: str, temp: str) -> tuple[Line, ...] | None:
    money, gain = model.costs["temps"].get(temp, {}), _gained(model, treatment, temp)
    if gain is None or {model.control, treatment} - set(money) or not model.costs["pricing"]["table_found"]:
        return None
    if money[model.control]["unpriced_answers"] or money[treatment]["unpriced_answers"]:
        return None  # the sums lack what these cost, so their difference may be of either sign
    before, after = _paid(money[model.control]), _paid(money[treatment])
    if before is None or after is None:
        return None
    extra = after - before
    signed = f"−{usd(-extra)}" if extra < 0 else usd(extra)
    return (
        f"{treatment} − {model.control}",
        temp,
        signed,
        percent(extra / before) if before else DASH,
        points(gain),
        usd(extra / (100 * gain)) if gain > 0 and extra >= 0 else DASH,
    )


def _gained(model: Model, treatment: str, temp: str) -> float | None:
    """The mean difference in EM over the paired questions of all types: what each condition answered is another set."""
    ems = [block.data["metrics"]["em"] for block in model.of(treatment) if block.temp == temp]
    pairs = sum(em["n_pairs"] for em in ems)
    if not pairs:
        return None
    # To the digits that significance.json has: beyond them a sum of differences that cancel is not 0.
    return round(float(sum(em["n_pairs"] * em["delta_mean"] for em in ems if em["n_pairs"]) / pairs), 10)


def _unpriced(model: Model, condition: str) -> int:
    return sum(money[condition]["unpriced_rows"] for money in model.costs["temps"].values() if condition in money)


def _paid(money: Json) -> float | None:
    """US dollars of all requests, by the mean of those counted: failed ones must not make their condition cheaper.

    In more digits than the sum has: a difference of two sums needs them.
    """
    each: float | None = money["usd_per_request"]
    return None if each is None else float(each * (money["usage_records"] + money["unpriced_rows"]))
