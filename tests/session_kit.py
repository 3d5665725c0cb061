"""`doit resume` in this process: every phase decided, performed and recorded in order, without doit or waiting."""

from dataclasses import dataclass, field

from pipeline import opening, request
from pipeline.errors import TrialmakeError
from pipeline.performing import perform

TO_COSTS = ("prepare", "build", "submit", "download", "parse", "score", "stats", "costs")


@dataclass
class Ending:
    """What one invocation came to: the decision of each phase, the errors, every line shown."""

    verbs: dict[str, str] = field(default_factory=dict)
    errors: dict[str, TrialmakeError] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def resume(rid: str, *phases: str, **variables: str) -> Ending:
    """What `doit resume` does about *phases* (TO_COSTS when none are named) of a run with one trial."""
    return go(rid, phases or TO_COSTS, may_create=False, **variables)


def go(rid: str, phases: tuple[str, ...], *, may_create: bool, **variables: str) -> Ending:
    ending = Ending()
    asked = request.parse({"rid": rid, "poll": "0.01", **variables})
    opened = opening.for_writing(asked, ending.said.append, may_create=may_create)
    try:
        for phase, slug in opened.cells():
            if phase.name not in phases:
                continue
            decision = opened.decide(phase.name, slug)
            ending.verbs[phase.name] = decision.verb
            if decision.verb == "skip":
                continue
            if any(not path.exists() for path in opened.question(phase.name, slug).inputs):
                ending.verbs[phase.name] = "not reached"  # as doit has it when a phase before this one failed
                continue
            opened.begin(phase.name, slug)
            try:
                opened.succeed(phase.name, slug, perform(opened, phase.name, slug))
            except TrialmakeError as error:
                ending.errors[phase.name] = error
                opened.fail(phase.name, slug, str(error), error.ending)
    finally:
        opened.close()
    return ending
