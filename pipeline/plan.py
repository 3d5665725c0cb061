"""What a run would do, and why, before it does it: nothing is written, sent or created.

A phase that would be skipped by itself may still have to run because something before it runs; that
is known only when the new bytes are there, so the plan says "may run".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import actions, console, foreign, graph, jsonl, plain, sources
from pipeline.custom_id import CLOSED, OPEN
from pipeline.decision import Decision, Question, Refuse, Repair, Run, Skip, base
from pipeline.done import inputs_changed, stale_requests, unsent_parts
from pipeline.errors import BudgetExceeded, DamagedArtifact, Refused, TrialmakeError
from pipeline.opening import config_path
from pipeline.parts import temperature_label
from pipeline.paths import RunPaths
from pipeline.phases.build import body, messages
from pipeline.plain import columns
from pipeline.queue import budget, estimates
from pipeline.queue.estimates import Estimate, Planned, Price
from pipeline.queue.settling import is_untouched, left_behind
from pipeline.session import Session
from pipeline.trials import Trial
from pipeline.upgrade import group_of
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
    does not exist yet would be made from. *committed_usd* is spent or may still be, *added_usd* the most that would
    come to it. *confirm_above_usd* is set where what would be sent is above it, and a yes is wanted first.
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
    added_usd: float | None
    max_usd: float | None
    confirm_above_usd: float | None


class Unsent(NamedTuple):
    """What submit would send of a trial: *part*, or (None) all of a temperature and condition that is not built yet.

    *anew*: not even an intent of it was made, so that it is still to be agreed to and to be counted.
    """

    slug: str
    part: str | None
    estimate: Estimate
    anew: bool


def plan(session: Session) -> Plan:
    """The plan for the cells this invocation is about (archive only when asked for)."""
    work = session.workspace
    steps = _steps(session, {})
    submitting = [step.trial for step in steps if step.phase == "submit" and step.verb not in _REFUSED]
    to_send = [unsent for slug in submitting for unsent in _unsent(session, slug)]
    # What was begun and not acknowledged is also asked for by a download without submit.
    going_on = [step.trial for step in steps if step.phase == "download" and step.verb in (Run.verb, Repair.verb)]
    begun = [unsent for slug in going_on if slug not in submitting for unsent in _unsent(session, slug)]
    to_send += [unsent for unsent in begun if not unsent.anew]
    planned = _together(work, to_send)
    committed = list(budget.committed(work))
    anew = [unsent for unsent in to_send if unsent.anew]
    adding = _together(work, anew)
    if held := _held_back(session, anew, committed):
        steps = _steps(session, held)
    return Plan(
        rid=work.rid,
        # What would be made has no config yet; a folder of its name may be there, of a run that was never submitted.
        config=None if work.record.config_sha256 else config_path(session.request),
        steps=steps,
        requests=planned.estimate.rows,
        input_tokens=planned.estimate.input_tokens,
        output_tokens=planned.estimate.output_expected,
        usd=planned.usd,
        cost=planned.cost,
        unpriced=planned.unpriced,
        committed_usd=estimates.total(committed),
        added_usd=adding.at_most,
        max_usd=work.config["budget"]["max_usd"],
        confirm_above_usd=actions.asks_above(session, adding),
    )


def _steps(session: Session, held: Mapping[str, Refuse]) -> tuple[Step, ...]:
    """Every step; the trials in *held* are not submitted."""
    steps: list[Step] = []
    moving: dict[str, Step] = {}  # file or task -> the step that will or may do it anew, or is kept from it
    for phase, slug in session.cells():
        if phase.by_default or session.request.phases:
            decision = session.decide(phase.name, slug)
            if phase.name == "submit":
                decision = held.get(slug, decision)
            steps.append(_step(session.question(phase.name, slug), decision, moving))
    return tuple(steps)


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
    if isinstance(decision, Run | Repair):
        for name, writer, _ in graph.sources(question.phase, question.slugs):
            if name not in moving and question.workspace.fingerprints.look(name) is None:
                run = f"run {writer.name} first: doit resume rid={question.workspace.rid}"
                yield Refuse(f"needs {base(name)}, which is not there; {run}")
    if question.phase.name == "submit" and isinstance(decision, Run):  # a list of parts that is damaged has been told
        stale = stale_requests(question.workspace, question.slug)
        if stale is not None and question.relative(question.trial.index) not in moving:
            yield stale
    if question.phase.name == "download" and isinstance(decision, Run | Repair):
        with suppress(DamagedArtifact):  # the same
            if f"submit:{question.slug}" not in moving and (unsent := unsent_parts(question)) is not None:
                yield unsent


def _held_back(session: Session, anew: Sequence[Unsent], committed: Sequence[float | None]) -> dict[str, Refuse]:
    """trial -> why the queue would submit nothing more of it: a price is lacking, a yes, or room in the budget.

    Only what is certain: where anything is under way, what it costs in the end may leave room for more.
    """
    work = session.workspace
    if (refused := _not_agreed(session, anew, committed)) is not None:
        return {unsent.slug: _refuse(refused) for unsent in anew}
    held: dict[str, Refuse] = {}
    if not _under_way(work):
        for slug, (first, *_) in groupby(anew, lambda unsent: unsent.slug):
            if first.part is None:
                break  # how large its first part will be is not known
            try:
                most = _together(work, [first]).at_most
                budget.check(work.config, committed, most, f"{slug}/{first.part}", work.paths.config)
            except BudgetExceeded as exceeded:
                held[slug] = _refuse(exceeded)
            else:
                break  # it will be under way
    return held


def _not_agreed(
    session: Session, anew: Sequence[Unsent], committed: Sequence[float | None]
) -> BudgetExceeded | Refused | None:
    """Why the queue would submit nothing more of any trial: a price is lacking, or a yes that nobody can say."""
    work, slugs = session.workspace, {unsent.slug for unsent in anew}
    unpriced = [
        trial
        for slug, trial in work.trials.items()
        if (slug in slugs or None in committed) and Price.of(work.config, trial).input is None
    ]
    try:
        budget.refuse_unpriced(work.config, unpriced, work.paths.config, session.resume_command)
    except BudgetExceeded as refused:
        return refused
    planned = _together(work, anew)
    if actions.asks_above(session, planned) is None or console.can_ask():
        return None
    return actions.nobody_to_ask(session, planned)


def _refuse(error: TrialmakeError) -> Refuse:
    return Refuse(error.what.rstrip("."))


def _under_way(work: Workspace) -> bool:
    """Whether a part that was begun has no results yet."""
    return any(
        book.attempts and not work.trial_paths(slug).part(part).results.exists() for slug, part, book in work.ledgers()
    )


def _together(work: Workspace, unsent: Iterable[Unsent]) -> Planned:
    """What all of it may cost."""
    planned = Planned()
    for piece in unsent:
        planned = planned.with_part(piece.estimate, Price.of(work.config, work.trials[piece.slug]), piece.slug)
    return planned


def _unsent(session: Session, slug: str) -> Iterator[Unsent]:
    """What submit would send for a trial: parts of which none was sent, or what build would write beside those."""
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
                unbuilt = _unbuilt(session, trial, temperature, condition)
                rows = unbuilt.rows - _sent_rows(work, slug, f"{temperature_label(temperature)}_{condition}")
                if rows > 0:
                    yield Unsent(slug, None, unbuilt.share(rows), anew=True)
        return
    for part in index.parts:
        if _is_sent(work, slug, part.part):
            continue
        if isinstance(building, Skip):
            estimate = estimates.of_requests(work.trial_paths(slug).part_requests(part.part))
        else:
            estimate = _unbuilt(session, trial, part.temp, part.condition).share(part.rows)
        yield Unsent(slug, part.part, estimate, anew=is_untouched(work, slug, part.part))


def _is_sent(work: Workspace, slug: str, part: str) -> bool:
    """Whether the service took a part: its ledger says so, or (it may be lost) what such a job leaves is here."""
    files, last = work.trial_paths(slug).part(part), work.ledger(slug, part).last
    return files.results.exists() or (last is not None and last.accepted) or bool(left_behind(files))


def _sent_rows(work: Workspace, slug: str, group: str) -> int:
    """How many rows of the *group* of parts of one temperature and condition were sent, without a list of parts."""
    paths, rows = work.trial_paths(slug), 0
    for folder in paths.results.iterdir() if paths.results.is_dir() else ():
        if group_of(folder.name)[0] != group or not _is_sent(work, slug, folder.name):
            continue
        first = work.ledger(slug, folder.name).first
        files = (paths.part_requests(folder.name), paths.part(folder.name).results)
        lines = (sum(1 for _ in jsonl.lines(path)) for path in files if path.is_file())
        rows += next(lines, 0) if first is None else first.rows
    return rows


def _unbuilt(session: Session, trial: Trial, temperature: float, condition: str) -> Estimate:
    """What build would write of one temperature and condition."""
    total = estimates.NOTHING
    for question, context in _questions(session):
        kind = CLOSED if context is None else OPEN
        asked = messages(trial.prompts[condition], question, context)
        total += estimates.of_body({**body(trial, temperature, kind), "messages": asked}, trial.samples)
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
    held = any((step.phase, step.verb) == ("submit", Refuse.verb) for step in planned.steps)
    sent = f"{planned.requests:,} requests would be sent{' if that were mended' if held else ''}, about"
    yield f"{sent} {planned.input_tokens:,} tokens in and {planned.output_tokens:,} out, {planned.cost}"
    if planned.max_usd is not None:
        yield _limit(planned, planned.max_usd)
    if planned.confirm_above_usd is not None:
        yield f"budget.confirm_above_usd = {plain.usd(planned.confirm_above_usd)} wants a yes first: yes=1 gives it"


def _limit(planned: Plan, limit: float) -> str:
    """What `budget.max_usd` would say to it; what counts is the most it may cost."""
    if planned.added_usd is None or planned.committed_usd is None:
        where = planned.config or RunPaths.of(planned.rid).config
        return f"budget.max_usd cannot be kept without a price: nothing would be sent until {where} has each model's"
    most = planned.added_usd + planned.committed_usd
    before = f" with {plain.usd(planned.committed_usd)} spent or committed" if planned.committed_usd else ""
    verdict = "allows it" if most <= limit else "would stop it"
    rest = "" if most <= limit else "; parts are sent for as long as the next one fits"
    return f"budget.max_usd = {plain.usd(limit)} {verdict}: at most {plain.usd(planned.added_usd)}{before}{rest}"
