"""All that a trial's report says, read from the artifacts by their schemas into one plain value.

Nothing is computed here that the statistics or the costs already say. An artifact that does not fit
its schema is named; the report never guesses at another shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline import jsonl
from pipeline.config import Config
from pipeline.custom_id import CLOSED, OPEN
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.report import text
from pipeline.report.answers import AnswerFacts, Item, read_answers
from pipeline.report.artifacts import TYPES, Block, Json, blocks, read_costs, read_significance
from pipeline.report.scores import KINDS, Chosen, Place, ScoreFacts, read_scores
from pipeline.report.sent import Sent, read_sent
from pipeline.trials import Trial


@dataclass(frozen=True)
class Example:
    """An item that shows what a number means; *case* tells where it stands and why it was taken."""

    place: Place
    case: Chosen
    question: str
    golds: tuple[str, ...]
    context: str | None

    @property
    def item(self) -> Item:
        """The key of its answers."""
        return self.place.type, self.case.dataset, self.case.item_id


@dataclass(frozen=True)
class Model:
    """One trial, ready to be told."""

    name: str
    rid: str
    slug: str
    provider: str
    prompt_set: str
    control: str
    treatments: tuple[str, ...]
    temps: tuple[str, ...]
    blocks: tuple[Block, ...]
    significance: Json
    costs: Json
    attempts: Json
    scoring: Json
    scores: ScoreFacts
    answers: AnswerFacts
    sent: Sent
    examples: tuple[Example, ...]
    prompts: Mapping[str, str]
    index: Index

    @property
    def conditions(self) -> tuple[str, ...]:
        """The control, then the treatments."""
        return (self.control, *self.treatments)

    @property
    def alpha(self) -> float:
        """The level at which a q-value counts."""
        return float(self.significance["stats_config"]["alpha"])

    @property
    def models(self) -> tuple[str, ...]:
        """The model names that the accepted jobs carry."""
        return tuple(
            sorted({attempt["model"] for part in self.attempts["parts"] for attempt in part["attempts"]} - {None})
        )

    def of(self, treatment: str, kind: str | None = None) -> list[Block]:
        """The blocks of *treatment*, open book first, then by temperature; only those of type *kind* if given."""
        return [block for block in self.blocks if block.treatment == treatment and kind in (None, block.type)]

    @property
    def primary(self) -> Mapping[tuple[str, str, str, str], float]:
        """(treatment, temp, type, metric) -> p, for every primary test that was corrected for; twins count once."""
        members = set(self.significance["fdr"]["families"].get("primary", {"members": ()})["members"])
        return {
            place: metric["primary"]["p_value"]
            for block in self.blocks
            for name, metric in block.metrics
            if "/".join(place := (block.treatment, block.temp, block.type, name)) in members
        }

    def usd(self, value: float | None) -> str:
        """A sum of money; a dash without a list price, also where the emulator, which charges nothing, has 0."""
        return text.usd(value if self.costs["pricing"]["table_found"] else None)

    def tests(self) -> int:
        """How many hypotheses the primary q-values are corrected for."""
        return int(self.significance["fdr"]["families"].get("primary", {"m": 0})["m"])


def read(run: RunPaths, paths: TrialPaths, config: Config, trial: Trial, index: Index) -> Model:
    """The model of *trial*. Raises FileNotFoundError, UnreadableFile, or DamagedArtifact naming file and reason."""
    significance = read_significance(paths.significance)
    control, treatments = significance["control"], (significance["treatment"], *sorted(significance["contrasts"]))
    scores = read_scores(paths.scores, control, treatments, config["report"]["examples"])
    examples = tuple(_examples(run, scores, treatments))
    return Model(
        name=config["name"],
        rid=run.rid,
        slug=paths.slug,
        provider=config["provider"],
        prompt_set=trial.prompt_set,
        control=control,
        treatments=treatments,
        temps=tuple(significance["temps"]),
        blocks=tuple(blocks(significance)),
        significance=significance,
        costs=read_costs(paths.costs),
        attempts=jsonl.read_document(paths.attempts),
        scoring=config["scoring"],
        scores=scores,
        answers=read_answers(paths.predictions, {example.item for example in examples}),
        sent=read_sent(paths, index),
        examples=examples,
        prompts=trial.prompts,
        index=index,
    )


def _examples(run: RunPaths, scores: ScoreFacts, treatments: tuple[str, ...]) -> Iterator[Example]:
    """The chosen items with their questions, in the report's order. Passages are read for these items only."""
    wanted = {(place.type, case.dataset, case.item_id) for place, cases in scores.chosen.items() for case in cases}
    items: dict[Item, Json] = {}
    for kind, path in ((CLOSED, run.closed_book), (OPEN, run.open_book)):
        if any(item[0] == kind for item in wanted):
            for line in jsonl.lines(path):
                row = jsonl.loads(line.data)
                if (item := (kind, row["dataset"], row["id"])) in wanted:
                    items[item] = row
    order = {name: number for number, name in enumerate((*treatments, *TYPES, *KINDS))}
    places = sorted(scores.chosen, key=lambda p: (order[p.treatment], order[p.type], order[p.kind], float(p.temp)))
    for place in places:
        for case in scores.chosen[place]:
            row = items[place.type, case.dataset, case.item_id]
            golds = () if row.get("is_unanswerable") else tuple(row["answers"])
            yield Example(place, case, row["question"], golds, row.get("context"))
