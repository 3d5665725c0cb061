"""The run as a whole: its trials side by side, best first, each with the way to its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.artifacts import TYPES, Json
from pipeline.report.artifacts import Block as Compared
from pipeline.report.blocks import Block, Code, Document, Line, Link, Note, Paragraph, Section, Table, folded
from pipeline.report.figures import Row, forest_of
from pipeline.report.text import DASH, NBSP, count, counted, is_point, listed, p_cell, percent, points, points_span, usd
from pipeline.report.verdict import TYPE_NAMES, judged

_NAMED = 3  # treatments that share the first place


@dataclass(frozen=True)
class Entry:
    """One treatment of one trial; *places* maps (type, temp) to its block."""

    slug: str
    model: str
    prompt_set: str
    treatment: str
    alpha: float
    places: Mapping[tuple[str, str], Compared]
    asked: int
    missing: int
    usd: float | None  # by list price; None without one, or where no answer came with token counts
    priced: bool  # whether its model has a list price
    uncounted: int  # answers without token counts

    @property
    def gain(self) -> float | None:
        """The mean difference in EM over types and temperatures, by which trials are ranked."""
        deltas = [self.em(place)["delta_mean"] for place in self.places]
        known = [delta for delta in deltas if delta is not None]
        # To the digits of a delta: beyond them a sum of differences that cancel is not 0.
        return round(sum(known) / len(known), 10) if known else None

    def em(self, place: tuple[str, str]) -> Json:
        """The EM object at *place*."""
        metric: Json = self.places[place].data["metrics"]["em"]
        return metric

    def verdict(self, place: tuple[str, str]) -> str:
        """The verdict on EM at *place*."""
        return judged(self.places[place], "em", self.alpha).value


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Best first: by gain in EM, one without a gain last, equal ones by name."""
    return sorted(entries, key=lambda e: (e.gain is None, -(e.gain or 0.0), e.slug, e.treatment))


def overview(name: str, rid: str, provider: str, entries: Sequence[Entry], *, page: bool) -> Document:
    """The overview of *entries*; a *page* links the HTML reports and draws, else it links the Markdown ones."""
    best_first = ranked(entries)
    trials = len({entry.slug for entry in entries})
    facts: tuple[tuple[str, Line], ...] = (("Run ID", Code(rid)), ("Provider", provider), ("Trials", str(trials)))
    sections = [
        Section("Trials", "trials", tuple(_trials(best_first, provider, page=page))),
        Section("EM in detail", "em", tuple(_details(best_first, drawn=page))),
    ]
    return Document("Run overview", name, facts, tuple(sections))


def _trials(entries: Sequence[Entry], provider: str, *, page: bool) -> Iterator[Block]:
    places = _places(entries)
    if provider == "emulator":
        yield Note("No language model was asked: the local emulator answered.")
    yield Paragraph(_best(entries), lead=True)
    rows: list[tuple[Line, ...]] = []
    sent: list[tuple[Line, ...]] = []
    for entry in entries:
        deltas: list[Line] = []
        for place in places:
            delta = entry.em(place)["delta_mean"] if place in entry.places else None
            deltas.append(DASH if delta is None else f"{points(delta)} {entry.verdict(place).replace(' ', NBSP)}")
        href = f"{entry.slug}/reports/report.{'html' if page else 'md'}"
        rows.append((Link(entry.slug, href), entry.treatment, points(entry.gain), *deltas))
        sums = (count(entry.asked), count(entry.missing), usd(entry.usd))
        row = (entry.slug, Code(entry.model), Code(entry.prompt_set), *sums)
        if row not in sent:  # the treatments of a trial share it
            sent.append(row)
    yield Table(
        ("Trial", "Treatment", "#Mean", *(f"#{_named(place)}" for place in places)),
        tuple(rows),
        "Difference in right answers (EM) between treatment and control, percentage points, with the verdict; ranked "
        "by the mean over the columns, equal ones by name. Each name leads to its report.",
        wraps=True,
    )
    if len(entries) > 1:
        yield Paragraph(
            "q-values are corrected within each trial, not over trials, and whatever comes first owes part of its "
            "place to chance. Confirm a choice on new questions."
        )
    yield Table(
        ("Trial", "Model", "Prompt set", "#Asked", "#Missing", "#US dollars"),
        tuple(sent),
        "What was sent: requests, those without an answer, and what they cost.",
    )
    if unpriced := sorted({entry.model for entry in entries if not entry.priced}):
        names = [piece for model in unpriced for piece in (", ", Code(model))][1:]
        yield Paragraph(("No list price for ", *names, ": not counted."))
    if uncounted := {entry.slug: entry.uncounted for entry in entries if entry.priced and entry.uncounted}:
        of = listed([f"{counted(number, 'answer')} of {slug}" for slug, number in uncounted.items()])
        yield Paragraph(f"Without token counts, so not in what they cost: {of}.")


def _best(entries: Sequence[Entry]) -> str:
    """The first entry's gain in words; *entries* are ranked."""
    first = entries[0]
    if first.gain is None:
        return "No question was answered in both conditions of a trial, so there is nothing to rank."
    times_of = Counter(first.verdict(place) for place in _places([first]))
    verdicts = ", ".join(f"{verdict} at {times}" for verdict, times in times_of.most_common())
    over = "" if len(first.places) == 1 else f" on average over {len(first.places)} types and temperatures ({verdicts})"
    alone = f" ({verdicts.removesuffix(' at 1')})" if len(first.places) == 1 else ""
    name = f"{first.slug} with {first.treatment}"
    average = "" if all(len(entry.places) == 1 for entry in entries) else " on average"
    lead = f"No treatment gave more right answers than its control{average}. " if first.gain <= 0 else ""
    alike = [f"{entry.slug} with {entry.treatment}" for entry in entries if points(entry.gain) == points(first.gain)]
    if len(alike) > 1:  # as they are shown: a digit that nobody sees puts none before the other
        named = listed(alike) if len(alike) <= _NAMED else f"{len(alike)}"
        each = f"{points(first.gain)} points of right answers against its control each{average}"
        return f"{lead}Of {len(entries)} treatments, {named} come first, equal: {each}."
    gain = f"{points(first.gain)} points of right answers against its control{over}{alone}"
    if lead:
        return f"{lead}The first is {name}: {gain}."
    return f"Of {len(entries)} treatments, {name} comes first: {gain}." if len(entries) > 1 else f"{name}: {gain}."


def _details(entries: Sequence[Entry], *, drawn: bool) -> list[Block]:
    blocks: list[Block] = []
    several = len({entry.treatment for entry in entries}) > 1
    names = {id(entry): f"{entry.slug}: {entry.treatment}" if several else entry.slug for entry in entries}
    lines: list[Row] = []
    rows: list[tuple[Line, ...]] = []
    for place in _places(entries):
        lines.append(Row(_named(place)))
        for entry in entries:
            if place not in entry.places:
                continue
            em, primary = entry.em(place), entry.em(place)["primary"]
            lines.append(
                Row(
                    names[id(entry)],
                    em["delta_mean"],
                    primary["ci_95"],
                    judged(entry.places[place], "em", entry.alpha),
                )
            )
            rows.append(
                (
                    _named(place),
                    names[id(entry)],
                    entry.verdict(place),
                    points(em["delta_mean"]),
                    points_span(primary["ci_95"]),
                    p_cell(primary["p_value"]),
                    p_cell(primary["q_value"]),
                    percent(em["mean_control"]),
                    percent(em["mean_treatment"]),
                    count(em["n_pairs"]),
                )
            )
    if drawn:
        alt = "Difference in exact match per trial, type and temperature, with 95% intervals."
        blocks.append(forest_of(lines, "trials", "Difference in EM, treatment − control, percentage points", alt))
    columns = ("Where", "Trial", "Verdict", "#Difference", "#95% CI", "#p", "#q", "#Control", "#Treatment", "#n")
    caption = ""
    if any(is_point(entry.em(place)["primary"]["ci_95"]) for entry in entries for place in entry.places):
        caption = "Where an interval is a point, all questions or clusters differ by the same. That is no certainty."
    blocks.append(folded(Table(columns, tuple(rows), caption), "All differences"))
    return blocks


def _named(place: tuple[str, str]) -> str:
    return f"{TYPE_NAMES[place[0]]}, T={place[1]}"


def _places(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Every (type, temp) that occurs, in the report's order."""
    found = {place for entry in entries for place in entry.places}
    return sorted(found, key=lambda place: (TYPES.index(place[0]), float(place[1])))
