"""What a run would do, and why, before it does it: nothing is written, sent or created.

A phase that would be skipped by itself may still have to run because something before it runs; that
is known only when the new bytes are there, so the plan says "may run".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pipeline import foreign, jsonl, plain, sources
from pipeline.custom_id import CLOSED, OPEN
from pipeline.decision import Decision, Question, Refuse, Repair, Run, Skip
from pipeline.done import inputs_changed, stale_requests
from pipeline.errors import DamagedArtifact
from pipeline.opening import config_path
from pipeline.paths import RunPaths
from pipeline.phases.build import body, messages
from pipeline.plain import columns
from pipeline.queue import budget
from pipeline.queue.budget import Estimate, Planned, Price
from pipeline.session import Session
from pipeline.trials import Trial
from pipeline.workspace import Workspace

NOT_REACHED = "not reached"  # the verb of a step whose input a refused one would have to write
_REFUSED = {Refuse.verb: "refused", NOT_REACHED: "not reached"}


@dataclass(frozen=True)
class Step:
    """One cell of the plan; *verb* is a decision's, `may run` or NOT_REACHED."""

    phase: str
    trial: str
    verb: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The steps in order, and what would be sent; *usd* is (low, expected, high), None for an unknown price.

    *cost* says it in words, *unpriced* names the models to be asked that have no price. *config* is what a run that
    does not exist yet would be made from. *committed_usd* is spent or may still be.
    """

    rid: str
    config: Path | None
    steps: tuple[Step, ...]
    requests: int
    input_tokens: int
    output_tokens: int
    usd: tuple[float, float, float] | None
    cost: str
    unpriced: tuple[str, ...]
    committed_usd: float | None
    max_usd: float | None


def plan(session: Session) -> Plan:
    """The plan for the cells this invocation is about (archive only when asked for)."""
    work = session.workspace
    steps: list[Step] = []
    moving: dict[str, Step] = {}  # file or task -> the step that will or may do it anew, or is kept from it
    to_send: list[tuple[str, Estimate]] = []
    for phase, slug in session.cells():
        if not (phase.by_default or session.request.phases):
            continue
        decision = session.decide(phase.name, slug)
        steps.append(_step(session.question(phase.name, slug), decision, moving))
        if phase.name == "submit" and steps[-1].verb not in (NOT_REACHED, Refuse.verb):
            to_send += [(slug, estimate) for estimate in _unsent(session, slug)]
    planned = Planned()
    for slug, estimate in to_send:
        planned = planned.with_part(estimate, Price.of(work.config, work.trials[slug]), slug)
    return Plan(
        rid=work.rid,
        # What would be made has no config yet; a folder of its name may be there, of a run that was never submitted.
        config=None if work.record.config_sha256 else config_path(session.request),
        steps=tuple(steps),
        requests=planned.estimate.rows,
        input_tokens=planned.estimate.input_tokens,
        output_tokens=planned.estimate.output_expected,
        usd=planned.usd,
        cost=planned.cost,
        unpriced=planned.unpriced,
        committed_usd=_committed(work),
        max_usd=work.config["budget"]["max_usd"],
    )


def _step(question: Question, decision: Decision, moving: dict[str, Step]) -> Step:
    phase = question.phase
    causes = [moving[name] for name in question.input_names if name in moving]
    before = [moving[task] for task in _tasks(phase.after, question.slugs) if task in moving]
    step = Step(phase.name, question.slug, decision.verb, decision.reason)
    if blocked := next((cause for cause in (*causes, *before) if cause.verb in (Refuse.verb, NOT_REACHED)), None):
        step = Step(phase.name, question.slug, NOT_REACHED, f"since {blocked.phase} is {_REFUSED[blocked.verb]}")
    elif unfit := next(_unfit(question, decision, moving), None):
        step = Step(phase.name, question.slug, unfit.verb, unfit.reason)
    elif causes and (isinstance(decision, Skip) or decision == inputs_changed(question)):
        step = Step(phase.name, question.slug, "may run", f"if {causes[0].phase} writes other bytes")
    elif isinstance(decision, Skip):
        return step
    moving.update(dict.fromkeys((*question.target_names, *_tasks([phase.name], [question.slug])), step))
    return step


def _tasks(phases: Iterable[str], slugs: Iterable[str]) -> list[str]:
    return [f"{phase}:{slug}" for phase, slug in product(phases, slugs)]


def _unfit(question: Question, decision: Decision, moving: dict[str, Step]) -> Iterator[Refuse]:
    """Why inputs that no phase before this one will make anew are not to be used."""
    yield from (refused for name, refused in foreign.inputs(question) if name not in moving)
    if question.phase.name == "submit" and isinstance(decision, Run):  # a list of parts that is damaged has been told
        stale = stale_requests(question.workspace, question.slug)
        if stale is not None and question.relative(question.trial.index) not in moving:
            yield stale


def _unsent(session: Session, slug: str) -> Iterator[Estimate]:
    """Estimates of what submit would send for a trial: parts without an accepted job, or all that build would write."""
    work, trial = session.workspace, session.workspace.trials[slug]
    building = session.decide("build", slug)
    if isinstance(session.decide("submit", slug), Skip | Refuse) or isinstance(building, Refuse):
        return
    index = None
    if isinstance(building, Skip | Repair):
        with suppress(DamagedArtifact):
            index = work.index(slug)
    if index is None:
        for temperature in trial.temperatures:
            for condition in trial.conditions:
                yield _unbuilt(session, trial, temperature, condition)
        return
    for part in index.parts:
        last = work.ledger(slug, part.part).last
        results = work.trial_paths(slug).part(part.part).results
        if results.exists() or (last is not None and last.accepted):
            continue
        if isinstance(building, Skip):
            yield budget.estimate(work.trial_paths(slug).part_requests(part.part))
        else:
            yield _unbuilt(session, trial, part.temp, part.condition).share(part.rows)


def _unbuilt(session: Session, trial: Trial, temperature: float, condition: str) -> Estimate:
    """What build would write of one temperature and condition."""
    total = budget.NOTHING
    for question, context in _questions(session):
        kind = CLOSED if context is None else OPEN
        asked = messages(trial.prompts[condition], question, context)
        total += budget.estimate_body({**body(trial, temperature, kind), "messages": asked}, trial.samples)
    return total


def _questions(session: Session) -> Iterator[tuple[str, str | None]]:
    """Every question with its passage: the prepared ones, or those of the question files where prepare would run."""
    run, config = session.workspace.paths, session.workspace.config
    if isinstance(session.decide("prepare", ""), Skip):
        for path in (run.closed_book, run.open_book):
            for line in jsonl.lines(path):
                item = jsonl.loads(line.data)
                yield item["question"], item.get("context")
        return
    for source in config["sources"]:
        for read in sources.read(config.path(source["path"]), source):
            yield read.question, read.context


def _committed(work: Workspace) -> float | None:
    """What all attempts cost or may still cost; None where a price is not known."""
    total = 0.0
    for spent in budget.committed(work):
        if spent is None:
            return None
        total += spent
    return total


def as_json(planned: Plan) -> dict[str, Any]:
    """The plan as a document."""
    return {
        **vars(planned),
        "config": None if planned.config is None else str(planned.config),
        "steps": [vars(step) for step in planned.steps],
        "usd": None if planned.usd is None else dict(zip(("low", "expected", "high"), planned.usd, strict=True)),
    }


def as_text(planned: Plan) -> Iterator[str]:
    """The plan for people, one line a step."""
    if planned.config is not None:
        yield f"a new run would be made from {planned.config}"
    else:
        yield f"run {planned.rid}"
    yield from columns([(step.phase, step.trial or "-", step.verb, step.reason) for step in planned.steps])
    if not planned.requests:
        yield "nothing would be sent"
        return
    sent = f"{planned.requests:,} requests would be sent, about {planned.input_tokens:,} tokens in and"
    yield f"{sent} {planned.output_tokens:,} out, {planned.cost}"
    if planned.max_usd is not None:
        yield _limit(planned, planned.max_usd)


def _limit(planned: Plan, limit: float) -> str:
    """What `budget.max_usd` would say to it; what counts is the most it may cost."""
    if planned.usd is None or planned.committed_usd is None:
        where = planned.config or RunPaths.of(planned.rid).config
        return f"budget.max_usd cannot be kept without a price: nothing would be sent until {where} has each model's"
    most = planned.usd[2] + planned.committed_usd
    before = f" with {plain.usd(planned.committed_usd)} spent or committed" if planned.committed_usd else ""
    verdict = "allows it" if most <= limit else "would stop it"
    return f"budget.max_usd = {plain.usd(limit)} {verdict}: at most {plain.usd(planned.usd[2])}{before}"
