"""Questions that show what the numbers mean: clear wins, clear losses, false answers, word for word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pipeline.predictions import ERROR, TRUNCATED
from pipeline.report.answers import LONGEST
from pipeline.report.blocks import (
    Block,
    Bullets,
    Code,
    Details,
    Heading,
    Inline,
    Line,
    Paragraph,
    Quotation,
    Section,
    Table,
)
from pipeline.report.model import Example, Model
from pipeline.report.scores import FALSE_ANSWER, LOSS, WIN
from pipeline.report.text import count, counted, percent, points
from pipeline.report.verdict import TYPE_NAMES

_SHOWN = 3  # distinct answers of a condition
_TITLES = {WIN: "Wins", LOSS: "Losses", FALSE_ANSWER: "False answers"}


def examples(model: Model) -> Section:
    """The chosen items, folded away, under the kind of case they are."""
    return Section("Examples", "examples", tuple(_examples(model)))


def unsupported(model: Model) -> Section:
    """Whether the answer to "does the passage support it" depends on how one looks."""
    return Section("Unsupported Sensitivity", "unsupported-sensitivity", tuple(_unsupported(model)))


def _examples(model: Model) -> Iterator[Block]:
    if not model.examples:
        yield Paragraph(
            "There are none to show: no question was won, lost or answered falsely, or none were asked for."
        )
        return
    yield Paragraph(
        "The clearest cases; among equally clear ones a digest of their id decides, not a person. A win is a question "
        "that the treatment got right more often than the control, a loss the reverse."
    )
    for (treatment, kind, case), group in groupby(
        model.examples, key=lambda example: (example.place.treatment, example.place.type, example.place.kind)
    ):
        which = f" of {treatment}" if len(model.treatments) > 1 else ""
        yield Heading(f"{_TITLES[case]}{which}, {TYPE_NAMES[kind].lower()}")
        for example in group:
            yield _example(model, example)


def _example(model: Model, example: Example) -> Details:
    question, _ = _cut(" ".join(example.question.split()), 100)
    label: Line = (f"T={example.place.temp} · ", Code(question)) if len(model.temps) > 1 else Code(question)
    return Details(label, tuple(_body(model, example)))


def _body(model: Model, example: Example) -> Iterator[Block]:
    yield Paragraph(("Dataset ", Code(example.case.dataset), ", item ", Code(example.case.item_id)))
    if example.context is not None:
        yield _quoted(example.context, "Passage")
    yield _quoted(example.question, "Question")
    golds = tuple((Code(gold),) for gold in example.golds[:10])
    yield Paragraph("Gold answers:" if golds else "Gold answer: none; the right answer is to abstain.")
    if golds:
        yield Bullets(golds)
    for condition in (model.control, example.place.treatment):
        yield from _answers(model, example, condition)


def _answers(model: Model, example: Example, condition: str) -> Iterator[Block]:
    seen = model.answers.answers.get((example.item, example.place.temp, condition), ())
    for answer, times in seen[:_SHOWN]:
        notes: list[Inline] = [f"{condition}, {counted(times, 'sample')}"]
        if answer.status == ERROR:
            notes.append(", no answer, because")
        elif answer.status == TRUNCATED:
            notes.append(", cut off at the token limit")
        if not answer.text:
            yield Paragraph((*notes, ": (empty)"))
        else:
            cut = answer.length if answer.length > len(answer.text) else None
            yield Quotation(answer.text, tuple(notes), cut)
    if len(seen) > _SHOWN:
        yield Paragraph(f"{condition}: {counted(len(seen) - _SHOWN, 'other answer')} not shown.")


def _quoted(text: str, label: str) -> Quotation:
    shown, length = _cut(text, LONGEST)
    return Quotation(shown, label, length)


def _cut(text: str, length: int) -> tuple[str, int | None]:
    return (text, None) if len(text) <= length else (f"{text[:length]}…", len(text))


def _unsupported(model: Model) -> Iterator[Block]:
    strategy = str(model.scoring["unsupported"])
    names = {"unsupported_rate": strategy, "unsupported_alt_rate": "overlap" if strategy == "span" else "span"}
    rows = []
    for (treatment, temp, _, column), (control, treated) in model.scores.paired.items():
        if control.value is not None and treated.value is not None:
            rows.append(
                (
                    f"{treatment} − {model.control}",
                    temp,
                    names[column],
                    percent(control.value),
                    percent(treated.value),
                    points(treated.value - control.value),
                    count(control.n),
                )
            )
    if not rows:
        yield Paragraph("There are no open-book answers whose passage could support them.")
        return
    yield Paragraph(
        f"The tables above use {strategy}: "
        + (
            "an answer is supported when it stands in the passage word for word."
            if strategy == "span"
            else "an answer is supported when enough of its words stand in the passage."
        )
        + " If both ways of looking agree, the finding does not hang on the choice."
    )
    yield Table(
        ("Contrast", "Temperature", "Way", f"#{model.control}", "#treatment", "#Difference", "#n"), tuple(sorted(rows))
    )
