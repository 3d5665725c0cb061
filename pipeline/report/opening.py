"""How a report begins: the verdict, its limits, and what was asked and answered."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import limits, words
from pipeline.report.answers import Group
from pipeline.report.artifacts import TYPES
from pipeline.report.blocks import Block, Bullets, Code, Details, Findings, Heading, Note, Paragraph, Section, Table
from pipeline.report.model import Model
from pipeline.report.text import DASH, count, counted, p_cell, percent
from pipeline.report.verdict import TYPE_NAMES

_ERRORS_SHOWN = 10


def verdict(model: Model) -> Section:
    """Question and answer in words, with the figures that carry them and what speaks against them."""
    return Section("Verdict", "verdict", tuple(_verdict(model)))


def data_balance(model: Model) -> Section:
    """How many were asked, answered, missing and cut off, and what could be paired."""
    return Section("Data Balance", "data-balance", tuple(_data_balance(model)))


def _verdict(model: Model) -> Iterator[Block]:
    if model.provider == "emulator":
        yield Note(
            "No language model was asked: the local emulator answered, from the passages or with answers recorded "
            "before. This shows how the tool works, not what the model named here does."
        )
    several = len(model.treatments) > 1
    for treatment in model.treatments:
        if several:
            yield Heading(f"{treatment} against {model.control}")
        yield Paragraph(words.headline(model, treatment), lead=True)
        yield Findings(tuple(words.findings(model, treatment)))
        if remarks := limits.limits(model, treatment):
            yield Heading("Limits" if not several else f"Limits of {treatment} against {model.control}")
            yield Bullets(tuple(remarks))
    yield Details("How this was judged", (Paragraph(_method(model)),), printed=True)


def _method(model: Model) -> str:
    how = words.intervals(model)
    how = f"{how}. " if how else ""
    return (
        "Each question is one observation: the mean over its samples. Conditions are compared question by question. "
        f"p is a sign-flip permutation test of no difference; q is p after Benjamini-Hochberg correction over "
        f"{counted(model.tests(), 'primary test')}. {how}A difference is called better or worse when "
        f"q < {model.alpha:g}; a hint when only p < {model.alpha:g}; equivalent when it lies within the config's "
        "margin (two one-sided tests); not worse when only the side that would hurt is ruled out; unclear "
        "otherwise. A missing answer is left out, never counted as wrong."
    )


def _data_balance(model: Model) -> Iterator[Block]:
    groups = model.answers.counts
    several = len(model.temps) > 1
    order = [
        (kind, temp, condition)
        for kind in TYPES
        for temp in model.temps
        for condition in model.conditions
        if Group(temp, kind, condition) in groups
    ]
    rows = []
    for kind, temp, condition in order:
        group = groups[Group(temp, kind, condition)]
        rows.append(
            (
                TYPE_NAMES[kind],
                temp,
                condition,
                *(count(number) for number in (group.asked, group.answered, group.missing, group.truncated)),
            )
        )
    asked, missing = (sum(getattr(group, name) for group in groups.values()) for name in ("asked", "missing"))
    yield Paragraph(
        f"{counted(asked, 'request')}: {counted(model.scores.samples, 'sample')} of each question per condition"
        f"{' and temperature' if several else ''}. "
        + ("Every one was answered." if not missing else f"{counted(missing, 'request')} ({percent(missing / asked)}) "
           f"{'has' if missing == 1 else 'have'} no answer; left out, not scored 0.")
    )  # fmt: skip
    yield Table(
        ("Type", "Temperature", "Condition", "#Asked", "#Answered", "#Missing", "#Truncated"),
        tuple(rows),
        "Requests. Truncated answers hit the token limit; they are scored as they are.",
    )
    yield from _errors(model)
    yield Heading("Datasets")
    yield Table(
        ("Type", "Dataset", "#Questions", "#With an answer", "#Without", "#Clusters"),
        tuple(
            (
                TYPE_NAMES[kind],
                Code(dataset),
                count(size.items),
                count(size.answerable),
                count(size.items - size.answerable),
                count(len(size.clusters)),
            )
            for kind in TYPES
            for (of, dataset), size in sorted(model.scores.sizes.items())
            if of == kind
        ),
    )
    yield Heading("Pairing Analysis")
    yield Table(
        ("Type", "Temperature", "Contrast", "#Paired", "#In one condition only", "#p of unequal missing"),
        tuple(
            (
                TYPE_NAMES[block.type],
                block.temp,
                f"{block.treatment} − {model.control}",
                count(block.data["n_items"]),
                count(block.data["n_unpaired"]),
                p_cell(block.data["samples"]["missing_p_value"]),
            )
            for block in model.blocks
        ),
        "Questions met by both conditions. A small p says that one condition lacks more answers than the other.",
    )


def _errors(model: Model) -> Iterator[Block]:
    """The provider's reasons for missing answers, commonest first; equal counts by text, so the order is fixed."""
    reasons = sorted(model.answers.errors.items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return
    rows = tuple((Code(text or DASH), count(times)) for text, times in reasons[:_ERRORS_SHOWN])
    rest = sum(times for _, times in reasons[_ERRORS_SHOWN:])
    more = (("other reasons", count(rest)),) if rest else ()
    differs = "; … is what differs from message to message" if any("…" in text for text, _ in reasons) else ""
    yield Table(
        ("Reason given", "#Requests"),
        rows + more,
        f"Why answers are missing, in the provider's words if it gave any{differs}.",
    )
