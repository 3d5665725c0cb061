"""What a run would do, and why, before it does it: nothing is written, sent or created.

A phase that would be skipped by itself may still have to run because something before it runs; that
is known only when the new bytes are there, so the plan says "may run".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline import graph, jsonl, sources
from pipeline.config import Trial
from pipeline.custom_id import CLOSED, OPEN
from pipeline.done import Decision, Question, Refuse, Repair, Skip
from pipeline.errors import DamagedArtifact
from pipeline.phases.build import body, messages
from pipeline.queue import budget
from pipeline.queue.budget import Estimate, Price
from pipeline.session import Session


@dataclass(frozen=True)
class Step:
    """One cell of the plan; *verb* is a decision's, or `may run`."""

    phase: str
    trial: str
    verb: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The steps in order, and what would be sent; *usd* is (low, expected, high), None for an unknown price."""

    rid: str
    steps: tuple[Step, ...]
    requests: int
    input_tokens: int
    output_tokens: int
    usd: tuple[float, float, float] | None


def plan(session: Session) -> Plan:
    """The plan for the cells this invocation is about (archive only when asked for)."""
    steps: list[Step] = []
    moving: dict[Path, str] = {}  # file -> the phase that will or may write it anew
    to_send: list[tuple[str, Estimate]] = []
    for phase, slug in session.cells():
        if not (phase.by_default or session.request.phases):
            continue
        decision = session.decide(phase.name, slug)
        steps.append(_step(session.question(phase.name, slug), decision, moving))
        if phase.name == "submit":
            to_send += [(slug, estimate) for estimate in _unsent(session, slug)]
    total = budget.NOTHING
    costs: list[tuple[float, float, float] | None] = []
    for slug, estimate in to_send:
        total += estimate
        costs.append(estimate.usd(Price.of(session.workspace.config, session.workspace.trials[slug])))
    known = [cost for cost in costs if cost is not None]
    usd = None
    if len(known) == len(costs):
        usd = (sum(cost[0] for cost in known), sum(cost[1] for cost in known), sum(cost[2] for cost in known))
    return Plan(session.workspace.rid, tuple(steps), total.rows, total.input_tokens, total.output_expected, usd)


def _step(question: Question, decision: Decision, moving: dict[Path, str]) -> Step:
    phase = question.phase
    cause = next((moving[path] for path in question.inputs if path in moving), None)
    if isinstance(decision, Skip) and cause is None:
        return Step(phase.name, question.slug, decision.verb, decision.reason)
    moving.update(dict.fromkeys(question.targets, phase.name))
    if isinstance(decision, Skip):
        return Step(phase.name, question.slug, "may run", f"if {cause} writes other bytes")
    return Step(phase.name, question.slug, decision.verb, decision.reason)


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


def as_json(planned: Plan) -> bytes:
    """The plan as a document."""
    return jsonl.dumps_pretty(
        {
            "rid": planned.rid,
            "steps": [vars(step) for step in planned.steps],
            "requests": planned.requests,
            "input_tokens": planned.input_tokens,
            "output_tokens": planned.output_tokens,
            "usd": None
            if planned.usd is None
            else {"low": planned.usd[0], "expected": planned.usd[1], "high": planned.usd[2]},
        }
    )


def as_text(planned: Plan) -> Iterator[str]:
    """The plan for people, one line a step."""
    width = max(len(name) for name in graph.NAMES)
    for step in planned.steps:
        yield f"{step.phase:<{width}}  {step.trial or '-'}  {step.verb}  {step.reason}"
    if not planned.requests:
        yield "nothing would be sent"
        return
    money = "at an unknown price"
    if planned.usd is not None:
        low, expected, high = planned.usd
        money = f"about ${expected:,.4f} (${low:,.4f} to ${high:,.4f})"
    yield f"{planned.requests:,} requests would be sent, about {planned.input_tokens:,} input tokens, {money}"
